"""No byte of an answer is sent before a verdict has passed a text that holds it."""

from collections import Counter

import pytest

from tests.guarded_streams import found


def test_no_byte_comes_before_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    streams, faults = found(monkeypatch, 60, seed=7)
    assert faults == []
    outcomes = Counter(stream.outcome for stream in streams)
    assert outcomes["answered"] > 10
    assert outcomes["no end"] == 0
    assert all(outcomes[name] for name in ("blocked", "withdrawn", "left", "failed"))


@pytest.mark.parametrize("late", ["judge", "window"])
def test_none_comes_where_answers_are_read_on_and_put_back(
    late: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams, faults = found(monkeypatch, 40, seed=9, late=late, late_every=24)
    assert faults == []
    outcomes = Counter(stream.outcome for stream in streams)
    assert outcomes["answered"] > 5
    assert outcomes["no end"] == 0
    assert outcomes["withdrawn"]


def test_bytes_that_come_too_early_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _, faults = found(monkeypatch, 10, seed=8, mode="open", allows_knobs=True)
    assert faults
