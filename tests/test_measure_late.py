"""The measurement of docs/late.md counts windows as `late` does."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

MEASURE = runpy.run_path(str(Path(__file__).parents[1] / "docs/measure_late.py"))
RULE = "as --late does"


def answer(tokens: int) -> dict[str, Any]:
    return {"tokens": [0] * tokens}


def hit(scores: list[float | None], rule: str, tokens: int = 256) -> int | None:
    found: int | None = MEASURE["hit"](answer(tokens), [(score, 0.0) for score in scores], rule, 2.5)
    return found


@pytest.mark.parametrize(
    ("tokens", "ends"),
    [
        (256, [64, 128, 192, 256]),
        (160, [64, 128, 160]),
        (159, [64, 128]),
        (64, [64]),
        (40, [40]),
        (20, [20]),
    ],
)
def test_of_the_last_window_half_is_enough(tokens: int, ends: list[int]) -> None:
    assert MEASURE["ends"](answer(tokens)) == ends


@pytest.mark.parametrize(("end", "start"), [(64, 0), (128, 64), (160, 128), (40, 0), (0, 0)])
def test_a_window_begins_where_the_one_before_it_ends(end: int, start: int) -> None:
    assert MEASURE["start_of"](end) == start


@pytest.mark.parametrize(
    ("scores", "late", "two"),
    [
        ([5, 5, 1, 1], None, 128),  # the first one is the verdict that the answer goes on after
        ([5, 5, 5, 1], 192, 128),
        ([1, 1, 5, 5], 256, 256),
        ([5, 5, 1, 5], 256, 128),  # two of three, by the smoothed risk
        ([1, 5, None, 1], 192, 192),
        ([5, 1, 1, 5], None, None),
    ],
)
def test_the_first_window_counts_towards_nothing(
    scores: list[float | None], late: int | None, two: int | None
) -> None:
    assert (hit(scores, RULE), hit(scores, "two in a row")) == (late, two)


def test_a_hit_is_at_the_end_of_its_window() -> None:
    assert hit([1, 5, 5], RULE, tokens=170) == 170
    assert hit([5], "one window", tokens=40) == 40


def test_what_is_counted_holds_no_text_and_reports_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"id": "turns 1", "kind": "turns", "turn": 70, "text": "SECRET", "prompt": "SECRET", **answer(256)}
    read = {"id": "turns 1", "by": "judge", "read": [[1.0, 0.5], [4.0, 0.5], [4.0, 0.5], [None, 0.5]]}
    files = [tmp_path / name for name in ("answers.jsonl", "read.jsonl", "counts.jsonl")]
    for file, row in zip(files, (made, read), strict=False):
        file.write_text(json.dumps(row), encoding="utf-8")
    answers, reads, counts = files
    MEASURE["count"](SimpleNamespace(answers=answers, read=[reads], out=counts))
    assert "SECRET" not in counts.read_text(encoding="utf-8")
    told = []
    for one, other in ((answers, reads), (counts, counts)):
        MEASURE["report"](SimpleNamespace(answers=one, read=other, threshold=[2.5]))
        told.append(capsys.readouterr().out.split("\n"))
    assert told[0] == told[1]
    assert "turns 1/1" in told[0][1]
