"""Knobs that were taken out: who still names one is told so, and runs that were made with one are read."""

from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.config import Config
from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.methods.specs import parse_method
from tests.running import run
from tests.test_eval_report import sample, write_run

COUNTS = Path(__file__).parents[1] / "docs/evaluation/prefix.json"
METHODS = ("alignbeam:beams=1,header_probe=on", "alignbeam:beams=1,anchor_row=adacd")
GONE: list[tuple[dict[str, Any], str]] = [
    ({"header_probe": "on"}, "unknown knob 'header_probe'"),
    ({"anchor_row": "adacd"}, "anchor_row = 'adacd': input should be 'plain' or 'gated'"),
]


@pytest.mark.parametrize(("knobs", "told"), GONE)
def test_one_that_is_still_named_is_told(knobs: dict[str, Any], told: str) -> None:
    """Profiles, /set, /retry and requests all come to this."""
    with pytest.raises(UsageError, match=told):
        Config.of({}).with_values(knobs)
    ((name, value),) = knobs.items()
    with pytest.raises(UsageError, match=told):
        parse_method(f"alignbeam:{name}={value}", Config.of({}))
    asked = run("ask", f"--{name.replace('_', '-')}", value, "Why?")
    assert (asked.code, asked.err.startswith("error: ")) == (2, True)


@pytest.mark.parametrize("method", METHODS)
def test_runs_that_were_made_with_one_are_reported(tmp_path: Path, method: str) -> None:
    assert method in run("eval", "report", str(write_run(tmp_path / "run", sample("No.", method=method)))).out
    assert method in run("eval", "report", str(COUNTS)).out
