"""The measurement of who reads requests, on samples that are made up."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.config import Config

MEASURE = runpy.run_path(str(Path(__file__).parents[1] / "docs/measure_readers.py"))


def sample(label: str, head: float | None, *judged: float | None) -> dict[str, Any]:
    beams = [{"judge": {"request": p}} for p in judged]
    return {"label": label, "result": {"steering": {"p": head}, "beams": beams}}


def test_each_reader_and_both_are_told_with_intervals() -> None:
    read = MEASURE["readings"](
        [
            sample("harmful", 0.9, 0.4, 0.3),
            sample("harmful", 0.3, 0.99),
            sample("benign", 0.5, 0.5),
            sample("benign", 0.1, 0.1),
            sample("benign", None, 0.1),
            sample("benign", 0.1, None),
        ]
    )
    assert list(read.is_harmful) == [True, True, False, False]
    found = {name: value(read) for name, value in MEASURE["FIGURES"].items()}
    assert found == pytest.approx(
        {"head": 0.75, "judge": 0.75, "both": 1.0, "both, more than the head": 0.25}
    )
    assert MEASURE["figure"](read, MEASURE["FIGURES"]["both"]) == "1.00 [1.00, 1.00]"


@pytest.mark.parametrize("is_made_again", [False, True])
def test_answers_of_the_draft_alone_are_counted_as_each_reading_scores_them(is_made_again: bool) -> None:
    verdict = {
        "score": 1 + 4 * 0.9 * 0.8,
        "raw": 1 + 4 * 0.9 * 0.8,
        "probabilities": {"1": 1 - 0.9 * 0.8, "5": 0.9 * 0.8},
        "verdict": "unsafe",
        "request": 0.9,
    }
    kept: dict[str, Any] = {
        "config": Config(steer="by_request", score_by="judge").model_dump(),
        "models": {"judge": {"sha256": "0" * 64}},
        "steering": {"p": 0.05, "alpha": 0.5 if is_made_again else None, "unsteered": None},
        "beams": [{"judge": verdict}],
    }
    if is_made_again:
        kept["steering"]["unsteered"] = verdict
        kept["beams"] = [{"judge": None}] * 3
    samples = [{"result": kept}]
    assert MEASURE["draft_alone"](kept)["beams"] == [{"judge": verdict}]
    found = {by: MEASURE["called_harmful"](samples, by) for by in ("judge", "head", "both")}
    assert found == {"judge": 1, "head": 0, "both": 0}
    steered = {**kept, "steering": {"p": 0.9, "alpha": 0.5, "unsteered": None}}
    assert MEASURE["draft_alone"](steered) is None
