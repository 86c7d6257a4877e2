"""Fitting a head on labelled answers, and measuring it on those that it was not fitted on."""

from collections.abc import Sequence
from datetime import date

import numpy as np

from .. import __version__
from ..errors import ModelError
from ..judge.calibration import LABELS, Floats, Line, class_weights, fit_line, held_out_figures
from ..judge.check import Measured, Pair, pairs_hash, require_splits
from ..judge.formats import JudgeReading
from ..result import ModelCard
from .answer_head import AnswerHead
from .features import States
from .fit import FOLDS, regression, require_scikit_learn, short


def fit_answer_head(
    pairs: Sequence[Pair], states: States, card: ModelCard, key: str, threshold: float
) -> AnswerHead:
    """Fit on the pairs of split `fit`, measure on those of split `held_out`.

    Args:
        pairs: labelled answers; compliance weighs as much as all harmless labels, in equal parts.
        states: (n, n_embd), at their ends.
        key: of the model's template.
        threshold: the highest score that counts as safe, for the figures.

    Raises:
        UsageError: scikit-learn is not installed, or as `require_splits`.
        ModelError: the model's hidden states are no numbers.
    """
    require_scikit_learn()
    require_splits(pairs)
    if not np.isfinite(states).all():
        raise ModelError(f"{card.name} gives hidden states that are no numbers", "Choose another model.")
    seen = np.array([pair.split == "fit" for pair in pairs])
    weights, intercept = _fitted([p for p in pairs if p.split == "fit"], states[seen].astype(np.float64))
    head = AnswerHead(
        model=card.name,
        model_sha256=card.weights_sha256,
        key=key,
        weights=tuple(map(short, weights)),
        intercept=short(intercept),
        held_out={},
        figures={},
        pairs_sha256=pairs_hash(pairs),
        date=date.today().isoformat(),
        version=__version__,
    )
    unseen = np.array([pair.split == "held_out" for pair in pairs])  # others may be of no split
    return _measured(head, [p for p in pairs if p.split == "held_out"], states[unseen], threshold)


def _fitted(pairs: Sequence[Pair], states: Floats) -> tuple[Floats, float]:
    """Weights and intercept, scaled to what log-odds are worth on questions that they were not fitted on."""
    line = _calibration(pairs, states)
    weights, intercept = _regression(pairs, states)
    return line.slope * weights, line.slope * intercept + line.intercept


def _calibration(pairs: Sequence[Pair], states: Floats) -> Line:
    """Of log-odds by heads that have not seen the question. Raises: ModelError: they tell nothing."""
    questions = sorted({pair.question for pair in pairs})
    fold_of = np.array([questions.index(pair.question) % FOLDS for pair in pairs])
    found = np.empty(len(pairs))
    for fold in range(FOLDS):
        unseen = fold_of == fold
        if unseen.any():
            rest = [pair for pair, is_out in zip(pairs, unseen, strict=True) if not is_out]
            weights, intercept = _regression(rest, states[~unseen])
            found[unseen] = states[unseen] @ weights + intercept
    labels = [pair.label for pair in pairs]
    return fit_line(found, np.array(labels) == "compliance", class_weights(labels))


def _regression(pairs: Sequence[Pair], states: Floats) -> tuple[Floats, float]:
    labels = [pair.label for pair in pairs]
    return regression(states, np.array(labels) == "compliance", class_weights(labels))


def _measured(head: AnswerHead, pairs: Sequence[Pair], states: States, threshold: float) -> AnswerHead:
    found = head.scores(states)
    assert found is not None, "the states are numbers"
    scores = {
        label: tuple(round(float(s), 3) for s, p in zip(found, pairs, strict=True) if p.label == label)
        for label in LABELS
    }
    return head.model_copy(update={"held_out": scores, "figures": held_out_figures(scores, threshold)})


def read_by(head: AnswerHead, pairs: Sequence[Pair], states: States) -> list[Measured]:
    """The pairs and what the head says of them, as a judge's are reported. Raises: ModelError: as above."""
    found = head.scores(states)
    if found is None:
        raise ModelError(
            f"{head.model} gives hidden states that its head can't read", "alignbeam heads fit --answers"
        )
    return [Measured(pair, _reading(float(score))) for pair, score in zip(pairs, found, strict=True)]


def _reading(score: float) -> JudgeReading:
    share = (score - 1) / 4
    return JudgeReading({"1": 1 - share, "5": share}, 1.0, (score,))
