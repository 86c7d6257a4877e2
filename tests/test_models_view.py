"""How the tables of models look, on a terminal and off it."""

import pytest
from alignbeam_local.cli.console import tables
from rich.cells import cell_len

from alignbeam_local.models.registry import Registry
from alignbeam_local.paths import config_file

from .running import run


def test_what_a_user_wrote_is_no_markup_and_stays_one_line() -> None:
    about = "[/b] [red]kept[/red] " + "long " * 100
    file = config_file().with_name("models.toml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'[profiles.mine]\nabout = "{about}"\ndraft = "smollm2-135m-instruct"\n')
    ran = run("models", "list")
    assert ran.code == 0, ran.err
    (row,) = (line for line in ran.out.splitlines() if line.startswith("mine"))
    assert about.strip() in row


@pytest.mark.parametrize("columns", [50, 60, 80, 100, 200])
def test_no_width_cuts_a_name(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "is_terminal", lambda _: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = run("models", "list").out
    registry = Registry.load()
    used = {model for profile in registry.profiles for model in registry.profile_models(profile)}
    assert {*registry.models, *registry.profiles, *used} <= set(shown.split())
    assert max(map(cell_len, shown.splitlines())) <= columns


def test_profiles_come_first_and_what_never_ran_says_so() -> None:
    lines = run("models", "list").out.splitlines()
    gap = lines.index("")
    assert lines[0].startswith("profile ")
    assert lines[gap + 1].startswith("model ")
    assert all("untested: never run with this software" in head for head in (lines[0], lines[gap + 1]))
    untested = {line.split()[0] for line in lines if " untested: " in line.partition("(untested")[0]}
    assert {"medllama", "jsl-medllama-3-8b-v2.0", "llama-guard-3-1b"} <= untested
    assert untested.isdisjoint({"starter", "recommended", "smollm2-135m-instruct", "gemma-3-270m"})
