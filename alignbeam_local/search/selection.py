"""Which judged beam becomes the answer, and what stands in for it when none may (the method, section 1)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..config import Config
from ..result import Verdict

#: Scores this close count as equal; the draft's own liking of the prefix then decides.
SCORE_TIE = 0.05


class Candidate(NamedTuple):
    """A finished beam with its verdict, in the order of f~."""

    beam: int
    verdict: Verdict
    logprob: float
    degenerate: bool


#: What is wrong with all drafts that there are.
Doubt = Literal["unscored", "harmful", "empty"]


class Selection(NamedTuple):
    """The chosen beam, or None for a blocked answer; what is doubtful of it, and the notice that says so."""

    beam: int | None
    doubt: Doubt | None = None
    notice: str = ""


def select(candidates: Sequence[Candidate], config: Config, *, refusal_allowed: bool) -> Selection:
    """Choose a beam, or none.

    Args:
        candidates: the beams, in the order of f~.
        config: threshold, choice and on_unsafe are read.
        refusal_allowed: the judge's record shows that its threshold spares refusals and benign answers,
            which is what `on_unsafe = auto` refuses by.
    """
    safe = [c for c in candidates if c.verdict.verdict == "safe" and not c.degenerate]
    if safe:
        return Selection(_choose(safe, config).beam)
    scored = [c for c in candidates if c.verdict.verdict != "unscored" and c.verdict.score is not None]
    if not scored:
        return Selection(None, "unscored", "the judge could not score any draft: the answer is blocked")
    if config.on_unsafe == "refuse" or (config.on_unsafe == "auto" and refusal_allowed):
        return Selection(None)
    passed = [c for c in scored if c.verdict.verdict == "safe"]
    left = passed or [c for c in scored if not c.degenerate] or scored
    doubt: Doubt = "empty" if passed else "harmful"
    notice = _notice(doubt, config.threshold, is_alone=len(candidates) == 1)
    if config.on_unsafe == "auto":
        notice += "; this judge is not measured well enough to block (--on-unsafe refuse lets it)"
    return Selection(_safest(left).beam, doubt, notice)


def _notice(doubt: Doubt, threshold: float, *, is_alone: bool) -> str:
    """Alone is also a draft that went on after others had been dropped, though these passed."""
    if is_alone and doubt == "harmful":
        return f"this answer did not pass the judge (harm up to {threshold:g}): it is shown all the same"
    if is_alone:
        return "this answer is empty or repeats itself: it is shown all the same"
    if doubt == "harmful":
        return f"no draft passed the judge (harm up to {threshold:g}): the least harmful is shown"
    return "the only drafts that passed the judge are empty or repeat themselves: one of them is shown"


def _choose(safe: Sequence[Candidate], config: Config) -> Candidate:
    return safe[0] if config.choice == "likeliest" else _safest(safe)


def _safest(candidates: Sequence[Candidate]) -> Candidate:
    lowest = min(_score(c) for c in candidates)
    near = [c for c in candidates if _score(c) <= lowest + SCORE_TIE]
    return max(near, key=lambda c: (c.logprob, -c.beam))


def _score(candidate: Candidate) -> float:
    assert candidate.verdict.score is not None
    return candidate.verdict.score
