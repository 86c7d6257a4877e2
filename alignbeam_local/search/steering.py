"""What the reading of a request decides: whether its answer is steered, with which weight, how strictly."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..config import Config
from ..knobs.steering import RequestBy
from ..result import Decision, Steering, Verdict

Floats = npt.NDArray[np.float64]

#: The judge's reading of a request, and what it comes to beside a head's, have no thresholds of their own:
#: what is likelier counts.
EVEN = 0.5
#: No reader is surer than that, so that none decides for both alone.
_SURE = 1e-6
#: Each leads to more than those before it; None: a head could not read the request.
_LEADS: tuple[Decision | None, ...] = ("clear", None, "doubtful", "harmful")


def unread(config: Config) -> Steering:
    """No head, or none that could read the request: it is steered as in the paper."""
    return Steering(None, None, None, None, None, None, alpha=config.alpha)


def steering_of(config: Config, worst: float, whole: float, low: float, high: float) -> Steering:
    """What becomes of a request that was read.

    Args:
        worst: its probability of harm, of the worst part.
        whole: the same of the whole prompt.
        low: up to this it is clear, unless `clear_below` says otherwise.
        high: above this it is harmful, unless `harmful_above` says otherwise. With `request_by = both` these
            knobs are for what both make of it, and the head goes by its own thresholds.
    """
    low, high = head_thresholds(config, low, high)
    decision = _decision(worst, low, high)
    return Steering(worst, whole, decision, "head", low, high, _alpha(config, decision))


def wants_judge(config: Config, steering: Steering) -> bool:
    """Whether the judge is to read the request too: where the head is sure, it decides alone."""
    return config.request_by == "both" and steering.decision == "doubtful"


def with_judge(config: Config, steering: Steering, judged: float | None) -> Steering:
    """What head and judge make of a request together that the head doubts: by the mean of their log-odds.

    Args:
        judged: the judge's probability of harm; None: it has none, and the head's reading stands. So it does
            where both clear a request that was read in part.
    """
    if judged is None or steering.p is None:
        return steering
    both = float(agreed(judged, steering.p))
    low, high = thresholds(config, EVEN, EVEN)
    decision = _decision(both, low, high)
    if steering.partial and decision == "clear":
        return steering
    return replace(
        steering,
        decision=decision,
        by="both",
        low=low,
        high=high,
        alpha=_alpha(config, decision),
        judge=judged,
        both=both,
    )


def thresholds(config: Config, low: float, high: float) -> tuple[float, float]:
    """The thresholds of a reading, the user's before its own; nothing above `harmful_above` is clear."""
    low = low if config.clear_below is None else config.clear_below
    if config.harmful_above is None:
        return low, max(low, high)
    return min(low, config.harmful_above), config.harmful_above


def head_thresholds(config: Config, low: float, high: float) -> tuple[float, float]:
    """The same of a head, which goes by its own where the knobs are for what the judge makes of it too."""
    return (low, high) if config.request_by == "both" else thresholds(config, low, high)


def _alpha(config: Config, decision: Decision) -> float | None:
    return None if config.steers_by_request and decision == "clear" else config.alpha


def agreed(one: npt.ArrayLike, other: float) -> Floats:
    """The probability at the mean of the log-odds of two readings, both held off 0 and 1."""
    return np.asarray(1 / (1 + np.exp(-(log_odds(one) + log_odds(other)) / 2)))


def log_odds(p: npt.ArrayLike) -> Floats:
    """Of probabilities, held off 0 and 1."""
    p = np.clip(p, _SURE, 1 - _SURE)
    return np.asarray(np.log(p / (1 - p)))


def asked_of(by: RequestBy, steering: Steering | None) -> Callable[[Floats], Floats] | None:
    """`asked_by` what became of a request: without a head's whole reading the judge's own counts."""
    return asked_by(by, None if steering is None or steering.partial else steering.p)


def asked_by(by: RequestBy, head: float | None) -> Callable[[Floats], Floats] | None:
    """From a request's probability of harm, as the judge reads it, to the one that a score goes by.

    None: the judge's own is.

    Args:
        by: whose reading counts, as `score_by` has it.
        head: the head's; None: no head has read the request.
    """
    if head is None or by == "judge":
        return None
    if by == "head":
        return lambda judged: np.full_like(judged, head)
    return lambda judged: agreed(judged, head)


def _decision(p: float, low: float, high: float) -> Decision:
    return "clear" if p <= low else "harmful" if p > high else "doubtful"


def reading_of(config: Config, readings: Sequence[Steering | None]) -> Steering:
    """What the readings of one request by several heads come to: the one that leads to more.

    Args:
        readings: of each head, None of one that could not read it. What was not read, or in part, may hold
            anything: no request is then clear, and it is steered as unread unless more was found in it.
    """
    is_partial = any(read is None or read.partial for read in readings)
    found = [_as_far_as_read(config, read) for read in readings]
    leads = max(found, key=lambda read: (_LEADS.index(read.decision), read.p or 0.0), default=unread(config))
    return replace(leads, partial=leads.p is not None and is_partial)


def _as_far_as_read(config: Config, reading: Steering | None) -> Steering:
    """What is clear as far as it was read counts as unread."""
    if reading is None or (reading.partial and reading.decision == "clear"):
        return unread(config)
    return reading


def knobs_of(config: Config, steering: Steering | None) -> Config:
    """The knobs that a request is answered with: the user's, where steering does not go by the request."""
    if not config.steers_by_request or steering is None or steering.decision is None:
        return config
    if steering.alpha is None:
        return config.with_values({"depth": 0, "beams": 1, "min_start": 0.0})
    if steering.decision == "harmful" and config.on_unsafe == "auto":
        return config.with_values({"on_unsafe": "refuse"})
    return config


def judged_request(verdicts: Iterable[Verdict]) -> float | None:
    """The probability of harm that verdicts on answers hold of the request itself; None: of none."""
    return max((verdict.request for verdict in verdicts if verdict.request is not None), default=None)


def decision_by_judge(config: Config, verdicts: Iterable[Verdict]) -> Decision | None:
    """What the judge's own question about the request comes to; None where it was not asked."""
    read = judged_request(verdicts)
    return None if read is None else _decision(read, *thresholds(config, EVEN, EVEN))


def decision_of(config: Config, steering: Steering | None, verdicts: Iterable[Verdict]) -> Decision | None:
    """What the choice goes by: a clear request whose unsteered answer was not judged safe is doubtful.

    What was steered as harmful stays harmful, whatever the judge makes of it.
    """
    if steering is not None and steering.unsteered:
        return "doubtful"
    is_steered_so = config.steers_by_request and steering is not None and steering.decision == "harmful"
    if config.asks_judge and not is_steered_so:
        return decision_by_judge(config, verdicts)
    return steering.decision if steering else None
