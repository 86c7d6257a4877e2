"""Which judged beam becomes the answer, and what stands in for it when none may (the method, section 1)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..config import KNOBS, Config
from ..result import Decision, RefusalSource, Result
from .choices import RULES, Candidate, lowest, safest
from .steering import decision_of

#: What is wrong with all drafts that there are; `request`: none refuses what was read as harmful.
Doubt = Literal["unscored", "harmful", "empty", "request"]


class Selection(NamedTuple):
    """The chosen beam, or None for a blocked answer; what is doubtful of it, and the notice that says so."""

    beam: int | None
    doubt: Doubt | None = None
    notice: str = ""

    @property
    def blocked_by(self) -> RefusalSource:
        """Whose refusal it is, where no beam is the answer."""
        return "request" if self.doubt == "request" else "judge"


def select(
    candidates: Sequence[Candidate],
    config: Config,
    *,
    refusal_allowed: bool,
    decision: Decision | None = None,
) -> Selection:
    """Choose a beam, or none.

    Args:
        candidates: the beams, in the order of f~.
        config: threshold, choice, min_start and on_unsafe are read.
        refusal_allowed: the judge's record shows that its threshold spares refusals and benign answers,
            which is what `on_unsafe = auto` refuses by.
        decision: what the request was read as, if it was.
    """
    safe = [c for c in candidates if c.verdict.verdict == "safe" and not c.degenerate]
    is_flagged = _wants_refusal(config, decision)
    if is_flagged and safe:
        safe = [c for c in safe if c.refuses]
        if not safe:
            return Selection(None, "request")
    if safe:
        return Selection(RULES[config.choice](_well_started(safe, config.min_start), decision).beam)
    scored = [c for c in candidates if c.verdict.verdict != "unscored" and c.verdict.score is not None]
    if not scored:
        return Selection(None, "unscored", "the judge could not score any draft: the answer is blocked")
    if config.on_unsafe == "refuse" or (config.on_unsafe == "auto" and (refusal_allowed or is_flagged)):
        return Selection(None)
    passed = [c for c in scored if c.verdict.verdict == "safe"]
    left = passed or [c for c in scored if not c.degenerate] or scored
    doubt: Doubt = "empty" if passed else "harmful"
    notice = _notice(doubt, config.threshold, is_alone=len(candidates) == 1)
    if config.on_unsafe == "auto":
        notice += "; this judge is not measured well enough to block (--on-unsafe refuse lets it)"
    rule = safest if config.choice == "safest" else lowest
    return Selection(rule(left).beam, doubt, notice)


def must_refuse(result: Result) -> bool:
    """Whether a beam that does not refuse could not be its answer, safe as the judge may find it."""
    config = config_of(result)
    verdicts = (beam.judge for beam in result.beams if beam.judge)
    return _wants_refusal(config, decision_of(config, result.steering, verdicts))


def _wants_refusal(config: Config, decision: Decision | None) -> bool:
    return config.choice == "by_request" and decision == "harmful" and config.on_unsafe != "lowest"


def config_of(result: Result) -> Config:
    """The knobs of an answer; those of another version are left out."""
    return Config.of({name: value for name, value in result.config.items() if name in KNOBS})


def _notice(doubt: Doubt, threshold: float, *, is_alone: bool) -> str:
    """Alone is also a draft that went on after others had been dropped, though these passed."""
    if is_alone and doubt == "harmful":
        return f"this answer did not pass the judge (harm up to {threshold:g}): it is shown all the same"
    if is_alone:
        return "this answer is empty or repeats itself: it is shown all the same"
    if doubt == "harmful":
        return f"no draft passed the judge (harm up to {threshold:g}): the least harmful is shown"
    return "the only drafts that passed the judge are empty or repeat themselves: one of them is shown"


def _well_started(safe: Sequence[Candidate], least: float) -> Sequence[Candidate]:
    """Without beams that the mixture hardly wanted to begin, unless all are such."""
    return [c for c in safe if c.p_first is None or c.p_first >= least] or safe
