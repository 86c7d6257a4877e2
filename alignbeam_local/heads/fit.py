"""Fitting a head: a standardised logistic regression on labelled requests, by scikit-learn."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from hashlib import sha256
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..errors import ModelError, UsageError
from ..judge.calibration import auc
from ..judge.check import require_apart
from ..result import ModelCard
from .check import ReadRequest, Scored, figures, score_all
from .features import States
from .head import Figures, Floats, RequestHead, Thresholds
from .labelled_requests import ORDINARY, LabelledRequest

#: How little the weights are held back: the inverse of the regularisation's strength.
C = 0.01
#: AUCs of layers that differ by no more are the same.
NEAR = 0.002
#: Thresholds are chosen by heads that have not seen what they read: topics are left out in so many turns.
FOLDS = 5
#: At most this share of harmful requests is up to the low threshold, read as clear: that comes first.
MAX_HARMFUL_CLEAR = 0.05
#: Where a head can do both, at most this share of ordinary harmless requests is above it: doubtful.
MAX_ORDINARY_ABOVE_LOW = 0.05
#: At most this share of all harmless requests, those that only look harmful too, is above the high one.
MAX_HARMLESS_ABOVE_HIGH = 0.05

#: Of fewer ordinary requests no small share can be told: then the low threshold goes by all harmless ones.
_MIN_ORDINARY = 20
_ITERATIONS = 2000


def require_scikit_learn() -> None:
    """Raises: UsageError: it is not installed."""
    if find_spec("sklearn") is None:
        raise UsageError("fitting a head needs scikit-learn", "pip install 'alignbeam-local[heads]'")


def require_fittable(requests: Iterable[LabelledRequest]) -> None:
    """Raises: UsageError: a label is missing in a split, or each is of one topic alone, or one is in both."""
    requests = list(requests)
    require_apart("topic", ((request.split, request.topic) for request in requests))
    for split in ("fit", "held_out"):
        for label in ("harmful", "harmless"):
            topics = {r.topic for r in requests if (r.split, r.label) == (split, label)}
            if len(topics) < (2 if split == "fit" else 1):
                raise UsageError(
                    f"too few {label} requests of split '{split}' to fit a head",
                    "Both labels are needed in both splits, to fit on of two topics or more.",
                )


def tried_layers(num_layers: int) -> range:
    """The layers that a head may be fitted on: behind the first third, and not the last."""
    return range(num_layers // 3, num_layers - 1)


def layer_aucs(
    requests: Sequence[LabelledRequest],
    states: States,
    layers: Sequence[int],
    card: ModelCard,
) -> dict[int, float]:
    """How well each layer tells harmful requests from harmless ones, by heads that saw no such topic.

    Args:
        requests: of split `fit`.
        states: (n, layers, n_embd), of whole requests.

    Raises:
        UsageError: as `require_scikit_learn`, or topics are too few to leave any out.
    """
    require_scikit_learn()
    found = {}
    for at, layer in enumerate(layers):
        items = [ReadRequest(*each) for each in zip(requests, states[:, at : at + 1], strict=True)]
        read = [s for seen, unseen in _folds(items) for s in score_all(_fitted(seen, card, ""), unseen)]
        found[layer] = auc(*_sides(read, lambda one: one.whole))
    return found


def _sides(read: Sequence[Scored], score: Callable[[Scored], float]) -> tuple[list[float], list[float]]:
    """Scores of harmful and of harmless requests. Raises: UsageError: of one side there are none."""
    harmful, harmless = ([score(one) for one in read if one.is_harmful == side] for side in (True, False))
    if not harmful or not harmless:
        raise UsageError("too few topics to leave any out", "Give each label several topics.")
    return harmful, harmless


def best_layer(aucs: Mapping[int, float]) -> int:
    """The first layer that is about as good as any: what lies behind it is not computed."""
    return min(layer for layer, value in aucs.items() if value >= max(aucs.values()) - NEAR)


def fit_head(
    items: Sequence[ReadRequest], card: ModelCard, key: str, layer: int | None = None
) -> RequestHead:
    """Fit on the requests of split `fit`, measure on those of split `held_out`.

    `layer` is whose states they are; None: those after the final norm.

    Raises:
        UsageError: as `require_scikit_learn` and `require_fittable`, or topics are too few in another way.
        ModelError: the model's hidden states are no numbers.
    """
    require_scikit_learn()
    require_fittable(item.request for item in items)
    if not all(np.isfinite(item.states).all() for item in items):
        raise ModelError(f"{card.name} gives hidden states that are no numbers", "Choose another model.")
    fit, rest = ([item for item in items if item.request.split == s] for s in ("fit", "held_out"))
    head = _fitted(fit, card, key)
    head = head.model_copy(update={"layer": layer, "thresholds": _thresholds(fit, card, key)})
    return head.model_copy(update={"held_out": figures(score_all(head, rest), head.thresholds)})


def _fitted(items: Sequence[ReadRequest], card: ModelCard, key: str) -> RequestHead:
    """A head without thresholds and figures, fitted on whole requests: of a part nobody said what it is."""
    states = np.stack([item.states[0] for item in items]).astype(np.float64)
    weights, intercept = regression(states, np.array([i.request.label == "harmful" for i in items]))
    return RequestHead(
        model=card.name,
        model_sha256=card.sha256,
        key=key,
        weights=tuple(map(short, weights)),
        intercept=short(intercept),
        thresholds=Thresholds(low=0, high=0),
        held_out=Figures(aucs=(), shares=()),
        requests_sha256=_hash(item.request for item in items),
        date=date.today().isoformat(),
        version=__version__,
    )


def regression(
    states: Floats, harmful: npt.NDArray[np.bool_], each: Floats | None = None
) -> tuple[Floats, float]:
    """Weights (n_embd,) and intercept on states (n, n_embd) as they are.

    `each` (n,) is what each counts; without it both labels weigh the same.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(states)
    model = LogisticRegression(
        C=C, class_weight=None if each is not None else "balanced", max_iter=_ITERATIONS
    )
    model.fit(scaler.transform(states), harmful, sample_weight=each)
    weights = np.asarray(model.coef_[0] / scaler.scale_, np.float64)
    return weights, float(model.intercept_[0] - weights @ scaler.mean_)


def _thresholds(items: Sequence[ReadRequest], card: ModelCard, key: str) -> Thresholds:
    """By heads fitted on the other topics: first that few harmful requests count as clear."""
    read = [one for seen, unseen in _folds(items) for one in score_all(_fitted(seen, card, key), unseen)]
    harmful, harmless = _sides(read, lambda one: one.worst)
    ordinary = [one.worst for one in read if not one.is_harmful and one.kind == ORDINARY]
    spared = ordinary if len(ordinary) >= _MIN_ORDINARY else harmless
    low = min(_exceeded_by(spared, MAX_ORDINARY_ABOVE_LOW), _exceeds(harmful, MAX_HARMFUL_CLEAR))
    return Thresholds(low=low, high=max(low, _exceeded_by(harmless, MAX_HARMLESS_ABOVE_HIGH)))


def _folds(items: Sequence[ReadRequest]) -> list[tuple[list[ReadRequest], list[ReadRequest]]]:
    """What to fit on and what to read, by topics; each label's topics are spread evenly."""
    fold_of: dict[str, int] = {}
    for label in ("harmful", "harmless"):
        topics = sorted({i.request.topic for i in items if i.request.label == label} - fold_of.keys())
        fold_of |= {topic: number % FOLDS for number, topic in enumerate(topics)}
    folds = []
    for fold in sorted(set(fold_of.values())):
        seen, unseen = (
            [i for i in items if (fold_of[i.request.topic] == fold) == out] for out in (False, True)
        )
        if len({i.request.label for i in seen}) == 2:
            folds.append((seen, unseen))
    return folds


def _exceeded_by(values: Sequence[float], share: float) -> float:
    """The least value that at most this share of the values exceeds."""
    ordered = sorted(values, reverse=True)
    return ordered[int(share * len(ordered))]


def _exceeds(values: Sequence[float], share: float) -> float:
    """A value under the least, such that at most this share of the values is not above it."""
    ordered = sorted(values)
    return float(np.nextafter(ordered[int(share * len(ordered))], 0.0))


def short(value: float) -> float:
    """A weight as records keep it."""
    return float(f"{value:.6g}")


def _hash(requests: Iterable[LabelledRequest]) -> str:
    return sha256("\n".join(sorted(map(repr, requests))).encode()).hexdigest()
