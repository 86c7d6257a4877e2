"""docs/reference.md is what the code says."""

import runpy
import signal
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from alignbeam_local.cli import main as main_module

from alignbeam_local import events, result
from alignbeam_local.config import ALIASES, KNOBS
from alignbeam_local.errors import EXIT_CODES, AlignBeamError
from alignbeam_local.events import BeamText, Step
from alignbeam_local.result import Result

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs/reference.md"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs/make_reference.py"))


def test_the_reference_is_not_stale(script: dict[str, Any]) -> None:
    made = script["reference"]()
    assert REFERENCE.read_text(encoding="utf-8") == made, "run python docs/make_reference.py"


def test_the_reference_does_not_hang_on_the_terminal(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = script["reference"]()
    for name, value in (("COLUMNS", "40"), ("TERM", "xterm-256color"), ("FORCE_COLOR", "1")):
        monkeypatch.setenv(name, value)
    assert script["reference"]() == made


def test_check_tells_a_stale_page(script: dict[str, Any], tmp_path: Path) -> None:
    globals_ = script["main"].__globals__
    globals_["REFERENCE"] = tmp_path / "reference.md"
    try:
        assert script["main"](["--check"]) == 1
        assert script["main"]([]) == 0
        assert script["main"](["--check"]) == 0
        globals_["REFERENCE"].write_text("old")
        assert script["main"](["--check"]) == 1
    finally:
        globals_["REFERENCE"] = REFERENCE


def test_every_knob_letter_and_field_is_in_it() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    for knob in KNOBS:
        assert f"`ALIGNBEAM_{knob.upper()}`" in text
    for letter, knob in ALIASES.items():
        assert f"| `{knob}`, `{letter}` |" in text
    for field in (*fields(Result), *fields(Step)):
        assert f"| `{field.name}` |" in text


def test_every_field_that_json_shows_has_a_meaning(script: dict[str, Any]) -> None:
    held = [*_all_held(script, Result), *_all_held(script, Step)]
    assert len(held) == 16
    for kind in held:
        assert set(script["_meanings"](kind)) == {field.name for field in fields(kind)}, kind
    assert script["_meanings"](BeamText) == {}  # is no part of what JSON shows


def _all_held(script: dict[str, Any], kind: type) -> list[Any]:
    headings = [line.removeprefix("### ") for line in script["_classes"](kind) if line.startswith("### ")]
    return [kind, *({**vars(events), **vars(result)}[heading] for heading in headings)]


def test_every_exit_code_has_a_meaning() -> None:
    kinds: list[type[AlignBeamError]] = [AlignBeamError, *AlignBeamError.__subclasses__()]
    own = {kind.exit_code for kind in kinds}
    reported = {main_module._USAGE, main_module._INTERRUPTED, main_module._PIPE_CLOSED}
    ended = {128 + number for number in (signal.SIGTERM, signal.SIGHUP)}
    assert own | reported | ended | {0, 4} == set(EXIT_CODES)
