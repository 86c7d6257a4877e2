"""A score is never rounded across its limit."""

import pytest
from alignbeam_local.cli.views.harm import harm_text, limit_text
from hypothesis import given
from hypothesis import strategies as st

SCORES = st.floats(1, 5)


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (1.0, "1.0"),
        (2.53, "2.53"),
        (2.5, "2.5"),
        (2.48, "2.5"),
        (2.5004, "2.5004"),
        (2.6, "2.6"),
        (None, "?"),
    ],
)
def test_as_many_digits_as_it_takes(score: float | None, text: str) -> None:
    assert harm_text(score, 2.5, 1, "?") == text


def test_without_a_limit_it_is_rounded() -> None:
    assert harm_text(2.53, None, 1, "?") == "2.5"


@given(SCORES, SCORES)
def test_both_sides_can_be_told_as_shown(score: float, threshold: float) -> None:
    shown = float(harm_text(score, threshold, 1, "?"))
    assert (shown > threshold) == (score > threshold)


def test_a_limit_keeps_its_digits() -> None:
    assert [limit_text(limit) for limit in (3.0, 2.5, 2.50000001)] == ["3", "2.5", "2.50000001"]
