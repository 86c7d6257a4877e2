"""What the reading of a request decides: whether its answer is steered, with which weight, how strictly."""

from collections.abc import Iterable, Sequence

from ..config import Config
from ..result import Decision, Steering, Verdict

#: The judge's reading of a request has no thresholds of its own: what is likelier counts.
EVEN = 0.5
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
        high: above this it is harmful, unless `harmful_above` says otherwise.
    """
    low = low if config.clear_below is None else config.clear_below
    high = max(low, high if config.harmful_above is None else config.harmful_above)
    decision = _decision(worst, low, high)
    alpha = None if config.steers_by_request and decision == "clear" else config.alpha
    return Steering(worst, whole, decision, "head", low, high, alpha)


def _decision(p: float, low: float, high: float) -> Decision:
    return "clear" if p <= low else "harmful" if p > high else "doubtful"


def reading_of(config: Config, readings: Sequence[Steering | None]) -> Steering:
    """What the readings of one request by several heads come to: the one that leads to more.

    Args:
        readings: of each head, None of one that could not read it. That one may have found anything: no
            request is then clear, and it is steered as unread unless another head finds more in it.
    """
    found = [unread(config) if read is None else read for read in readings]
    return max(found, key=lambda read: (_LEADS.index(read.decision), read.p or 0.0), default=unread(config))


def knobs_of(config: Config, steering: Steering | None) -> Config:
    """The knobs that a request is answered with: the user's, where steering does not go by the request."""
    if not config.steers_by_request or steering is None or steering.decision is None:
        return config
    if steering.alpha is None:
        return config.with_values({"depth": 0, "beams": 1, "min_start": 0.0})
    if steering.decision == "harmful" and config.on_unsafe == "auto":
        return config.with_values({"on_unsafe": "refuse"})
    return config


def decision_by_judge(config: Config, verdicts: Iterable[Verdict]) -> Decision | None:
    """What the judge's own question about the request comes to; None where it was not asked."""
    read = [verdict.request for verdict in verdicts if verdict.request is not None]
    if not read:
        return None
    low = EVEN if config.clear_below is None else config.clear_below
    return _decision(max(read), low, max(low, EVEN if config.harmful_above is None else config.harmful_above))


def decision_of(config: Config, steering: Steering | None, verdicts: Iterable[Verdict]) -> Decision | None:
    """What the choice goes by: a clear request whose unsteered answer was not judged safe is doubtful.

    What was steered as harmful stays harmful, whatever the judge makes of it.
    """
    if steering is not None and steering.unsteered:
        return "doubtful"
    is_steered_so = config.steers_by_request and steering is not None and steering.decision == "harmful"
    if config.request_by == "judge" and not is_steered_so:
        return decision_by_judge(config, verdicts)
    return steering.decision if steering else None
