"""Which tokens a safe model prefers to another: PACT's safety tokens (arXiv 2603.07445, Eq. 1 and 2).

Pure numpy, no model. Shapes: V is the vocabulary's size, T the positions of an answer, K the tokens kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


class TopDifferences(NamedTuple):
    """The K tokens of the largest d(v), largest first, all above 0."""

    tokens: Ids  # (K,)
    values: Vector  # (K,)
    share: float  # of all that is above 0, what these hold


class AnswerDifference:
    """Eq. 1 over one answer: at every position p_safe(v | x, y_<t) - p_base(v | x, y_<t)."""

    def __init__(self, vocabulary_size: int) -> None:
        self._sum: Vector = np.zeros(vocabulary_size)
        self.positions = 0

    def add(self, safe: Logits, base: Logits) -> None:
        """One position: logits (V,) of both models behind the same answer so far."""
        self._sum += softmax(safe)
        self._sum -= softmax(base)
        self.positions += 1

    @property
    def mean(self) -> Vector:
        """(V,) the mean over the positions added; zeros without any."""
        return self._sum / max(1, self.positions)


def mean_difference(answers: Sequence[Vector]) -> Vector:
    """Eq. 2, d(v): the mean over answers of their means, so that a long answer counts as much as a short one.

    Args:
        answers: at least one of (V,).
    """
    return np.asarray(sum(answers[1:], start=answers[0].copy()) / len(answers), np.float64)


def top_differences(d: Vector, count: int) -> TopDifferences:
    """The `count` tokens of the largest d(v) (V,); fewer where fewer are above 0; equal ones by their ids."""
    order = np.lexsort((np.arange(len(d)), -d))[:count]
    kept = order[d[order] > 0].astype(np.int64)
    total = float(d[d > 0].sum())
    return TopDifferences(kept, d[kept], float(d[kept].sum()) / total if total else 0.0)


def random_tokens(size: int, count: int, seed: int, left_out: Sequence[int] = ()) -> Ids:
    """A control: tokens (count,) of a vocabulary of `size` drawn at random, none of those left out."""
    others = np.setdiff1d(np.arange(size, dtype=np.int64), np.array(left_out, np.int64))
    return np.sort(np.random.default_rng(seed).choice(others, min(count, len(others)), replace=False))


def softmax(logits: Logits) -> Vector:
    """Probabilities (V,) of a row of logits (V,)."""
    weights = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(weights / weights.sum(), np.float64)
