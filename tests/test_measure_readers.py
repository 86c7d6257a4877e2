"""The measurement of who reads requests, on samples that are made up."""

import runpy
from pathlib import Path
from typing import Any

import pytest

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
