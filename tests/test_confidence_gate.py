"""Eq. 5 to 8 of PACT, worked by hand."""

from math import exp

import numpy as np
import pytest

from alignbeam_local.search.gate import Row, breadth, decayed, gate, mixed_reference


def logits(*probabilities: float) -> Row:
    return np.asarray(np.log(np.array(probabilities)), np.float64)


@pytest.mark.parametrize(
    ("probabilities", "needed"),
    [
        ((0.95, 0.03, 0.01, 0.01), 1),
        ((0.9, 0.05, 0.03, 0.02), 1),  # reached exactly
        ((0.02, 0.6, 0.08, 0.3), 2),  # 0.6 + 0.3, in whatever order they stand
        ((0.5, 0.3, 0.15, 0.05), 3),
        ((0.25, 0.25, 0.25, 0.25), 4),
    ],
)
def test_how_many_tokens_hold_nine_tenths(probabilities: tuple[float, ...], needed: int) -> None:
    assert breadth(logits(*probabilities)) == needed / 4


def test_breadth_is_of_the_tokens_among_themselves() -> None:
    """A shift of all logits together is not seen, nor is a scale that overflows."""
    row = logits(0.02, 0.6, 0.08, 0.3)
    assert breadth(row) == breadth(row + 800) == breadth(row - 800)
    assert breadth(np.zeros(1)) == 1.0


def test_the_gate() -> None:
    assert gate(0.5, 0.5) == 0.5
    assert gate(1.0, 0.0) == pytest.approx(1 / (1 + exp(-1)))
    assert gate(0.25, 0.75) == pytest.approx(1 / (1 + exp(0.5)))
    assert gate(0.25, 0.75, sharpness=2) == pytest.approx(1 / (1 + exp(1)))
    assert gate(0.25, 0.75) + gate(0.75, 0.25) == pytest.approx(1)


def test_the_gate_fades_behind_the_first_positions() -> None:
    assert [decayed(0.6, t, first=2, tau=4) for t in range(3)] == [0.6, 0.6, 0.6]
    assert decayed(0.6, 6, first=2, tau=4) == pytest.approx(0.6 * exp(-1))
    assert decayed(0.6, 0, first=0, tau=1) == 0.6


def test_a_reference_between_two() -> None:
    full, post = np.array([2.0, 0.0, -2.0]), np.array([0.0, 4.0, -2.0])
    assert mixed_reference(full, post, 0.25).tolist() == [1.5, 1.0, -2.0]
    assert mixed_reference(full, post, 0.0).tolist() == full.tolist()
    assert mixed_reference(full, post, 1.0).tolist() == post.tolist()
