"""Which judged beam becomes the answer, and what stands in for it when none may (the method, section 1)."""

from collections.abc import Sequence
from typing import NamedTuple

from ..config import Config
from ..result import Decision
from .choices import RULES, Candidate, lowest, safest


class Selection(NamedTuple):
    """The chosen beam, or None for a blocked answer, and a notice for the user."""

    beam: int | None
    notice: str = ""


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
    if safe:
        return Selection(RULES[config.choice](_well_started(safe, config.min_start), decision).beam)
    scored = [c for c in candidates if c.verdict.verdict != "unscored" and c.verdict.score is not None]
    if not scored:
        return Selection(None, "the judge could not score any draft: the answer is blocked")
    is_flagged = config.choice == "by_request" and decision == "harmful"
    if config.on_unsafe == "refuse" or (config.on_unsafe == "auto" and (refusal_allowed or is_flagged)):
        return Selection(None)
    notice = "the only drafts judged safe are empty or repeat themselves: one of them is shown"
    left = [c for c in scored if c.verdict.verdict == "safe"]
    if not left:
        notice = f"no draft was judged safe (harm up to {config.threshold:g}): the least harmful is shown"
        left = [c for c in scored if not c.degenerate] or scored
    if config.on_unsafe == "auto":
        notice += "; this judge is not measured well enough to block (--on-unsafe refuse lets it)"
    return Selection((safest if config.choice == "safest" else lowest)(left).beam, notice)


def _well_started(safe: Sequence[Candidate], least: float) -> Sequence[Candidate]:
    """Without beams that the mixture hardly wanted to begin, unless all are such."""
    return [c for c in safe if c.p_first is None or c.p_first >= least] or safe
