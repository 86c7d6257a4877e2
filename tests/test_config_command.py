"""`alignbeam config`: the file that it writes is the defaults, and shows where values come from."""

import json
import re
import tomllib

import pytest
from alignbeam_local.cli.config_template import config_template

from alignbeam_local.config import KNOBS, Config, knobs_of
from alignbeam_local.knobs.knob import PANELS
from alignbeam_local.paths import config_file

from .running import run


def test_the_template_sets_nothing() -> None:
    assert tomllib.loads(config_template()) == {}
    assert [knob for panel in PANELS for knob in knobs_of(panel)] == re.findall(
        r"^#(?:# )?(\w+) = ", config_template(), re.M
    )


def test_every_line_that_can_be_uncommented_is_a_default() -> None:
    text = re.sub(r"^#(?!#)", "", config_template(), flags=re.M)
    values = tomllib.loads(text)
    assert Config.of(values) == Config.of({})
    assert set(values) == {name for name in KNOBS if Config.model_fields[name].default is not None}
    for field in Config.model_fields.values():
        assert f"## {field.description}" in text


def test_init_writes_a_private_file_once() -> None:
    ran = run("config", "init")
    assert (ran.code, ran.out, ran.err) == (0, "", f"written: {config_file()}\n")
    assert config_file().stat().st_mode & 0o777 == 0o600
    config_file().write_text("alpha = 0.9\n")
    ran = run("config", "init")
    assert ran.code == 2
    assert "--force" in ran.err
    assert config_file().read_text() == "alpha = 0.9\n"
    assert run("config", "init", "--force").code == 0
    assert config_file().read_text() == config_template()


def test_show_names_the_source_of_each_value(monkeypatch: pytest.MonkeyPatch) -> None:
    run("config", "init")
    with config_file().open("a") as file:
        file.write("alpha = 0.9\n")
    monkeypatch.setenv("ALIGNBEAM_DEPTH", "3")
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in run("config", "show").out.splitlines()}
    assert list(rows) == list(KNOBS)
    assert rows["alpha"] == ["0.9", str(config_file())]
    assert rows["depth"] == ["3", "environment ALIGNBEAM_DEPTH"]
    shown = json.loads(run("config", "show", "--json").out)
    assert shown["alpha"] == {"value": 0.9, "source": str(config_file())}


def test_a_broken_file_can_be_found_and_replaced() -> None:
    run("config", "init")
    config_file().write_text("alpha = 7\n")
    ran = run("config", "show")
    assert (ran.code, ran.out) == (2, "")
    assert str(config_file()) in ran.err
    assert run("config", "path").out == f"{config_file()}\n"
    assert run("config", "init", "--force").code == 0
    assert run("config", "show").code == 0
