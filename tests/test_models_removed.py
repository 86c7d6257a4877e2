"""`models rm`, and what `models import` and `models pull` say comes next."""

import json
import os
from pathlib import Path

import pytest
from alignbeam_local.cli.console import asking

from alignbeam_local.config import Config
from alignbeam_local.events import Event
from alignbeam_local.models.registry import Registry
from alignbeam_local.models.toml_files import user_file
from alignbeam_local.paths import models_dir

from .gguf_files import write_gguf
from .running import run


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "mine.gguf")


def test_an_import_prints_the_next_command(mine: Path) -> None:
    ran = run("models", "import", str(mine), "--copy")
    assert ran.out == f"mine: {models_dir() / 'mine.gguf'}\n"
    assert ran.err == "next: alignbeam chat --draft mine --profile recommended\n"
    assert run("models", "import", str(mine), "--json").err == ""


def test_a_pull_from_the_hub_prints_the_next_command(monkeypatch: pytest.MonkeyPatch) -> None:
    pulled = models_dir() / "o--r--x.gguf"
    monkeypatch.setattr("alignbeam_local.models.pull.pull", lambda *_, **__: pulled)
    ran = run("models", "pull", "hf:o/r/x.gguf")
    assert (ran.code, ran.out) == (0, f"{pulled}\n")
    assert ran.err == "next: alignbeam chat --draft hf:o/r/x.gguf --profile recommended\n"
    assert run("models", "pull", "gemma-3-270m").err == ""


def test_a_profiles_judge_reads_its_examples_once_it_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str | None] = []

    def keep(config: Config, *_: object) -> list[Event]:
        read.append(config.judge)
        return []

    monkeypatch.setattr("alignbeam_local.models.pull.pull", lambda *_, **__: Path())
    monkeypatch.setattr("alignbeam_local.engine.open_judge.keep_examples", keep)
    assert run("models", "pull", "--profile", "gemma").code == 0
    assert run("models", "pull").code == 0
    assert run("models", "pull", "gemma-3-270m").code == 0
    assert read == ["qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-0.5b-instruct"]


def test_a_judge_that_cannot_read_them_is_no_failed_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignbeam_local.models.pull.pull", lambda *_, **__: Path())
    ran = run("models", "pull")
    assert ran.code == 0
    assert ran.err.startswith("note: the judge's examples are read with the first answer: model 'qwen2.5-cod")


def test_an_imported_model_is_gone_with_its_name(mine: Path) -> None:
    other = mine.with_name("other.gguf")
    write_gguf(other, general__basename="another")
    run("models", "import", str(mine), "--copy")
    run("models", "import", str(other), "--copy")
    before, size = user_file().read_text(), mine.stat().st_size
    ran = run("models", "rm", "mine", "--yes", "--json")
    path = models_dir() / "mine.gguf"
    assert json.loads(ran.out) == [{"name": "mine", "path": str(path), "freed_bytes": size}]
    assert not path.exists()
    assert set(Registry.load().models) & {"mine", "other"} == {"other"}
    assert user_file().read_text() in before
    assert run("models", "import", str(other), "--name", "mine").code == 0, "the name is free again"


def test_a_table_that_somebody_edited_stays(mine: Path) -> None:
    run("models", "import", str(mine))
    user_file().write_text(user_file().read_text() + 'licence = "mine"\n')
    before = user_file().read_text()
    assert run("models", "rm", "mine", "--yes").code == 0
    assert user_file().read_text() == before


def test_a_link_to_the_same_bytes_frees_nothing_and_says_so(mine: Path) -> None:
    run("models", "import", str(mine))
    assert run("models", "rm", "mine", "--yes").out == (
        "mine: 0 MB freed: another link to the file, or to its bytes, is left\n"
    )
    assert mine.exists()


def test_what_is_outside_is_refused_and_nothing_is_removed(mine: Path) -> None:
    run("models", "import", str(mine), "--copy")
    outside = mine.with_name("outside.gguf")
    write_gguf(outside, general__basename="another")
    user_file().write_text(user_file().read_text() + f'\n[models.there]\npath = "{outside}"\n')
    for spec in (str(outside), "there"):
        ran = run("models", "rm", "mine", spec, "--yes")
        assert ran.code == 2
        assert "is outside the models directory" in ran.err
    assert outside.exists()
    assert (models_dir() / "mine.gguf").exists()
    assert run("models", "rm", "gemma-3-270m", "--yes").code == 3
    assert run("models", "rm", "no-such-model", "--yes").code == 2


def test_a_link_in_a_path_leads_nowhere_else(mine: Path) -> None:
    os.makedirs(models_dir(), exist_ok=True)
    (models_dir() / "away").symlink_to(mine.parent)
    ran = run("models", "rm", str(models_dir() / "away" / "mine.gguf"), "--yes")
    assert ran.code == 2
    assert mine.exists()


def test_it_asks_first(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("models", "import", str(mine), "--copy")
    ran = run("models", "rm", "mine")
    assert ran.code == 2
    assert "--yes" in ran.err
    monkeypatch.setattr(asking, "is_terminal", lambda _: True)
    assert run("models", "rm", "mine", given="n\n").code == 130
    assert (models_dir() / "mine.gguf").exists()
    assert run("models", "rm", "mine", given="y\n").code == 0
    assert not (models_dir() / "mine.gguf").exists()
