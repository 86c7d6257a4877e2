"""The rules by which one of several safe beams becomes the answer; no new rule goes by the draft's liking."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import NamedTuple

from ..knobs.judging import Choice
from ..result import Decision, Verdict

#: Scores this close count as equal.
SCORE_TIE = 0.05


class Candidate(NamedTuple):
    """A finished beam with its verdict, in the order of f~.

    `logprob`, `mixture` and `anchor`: mean log-probabilities of its mixed start, by the draft alone, by the
    mixture, by the anchor. `p_first`: of its first token in the mixture. None: nothing was mixed.
    """

    beam: int
    verdict: Verdict
    logprob: float
    degenerate: bool
    refuses: bool = False
    mixture: float | None = None
    anchor: float | None = None
    p_first: float | None = None


#: From safe candidates, in the order of f~, and what the request was read as, to the one that is taken.
Rule = Callable[[Sequence[Candidate], Decision | None], Candidate]


def safest(safe: Sequence[Candidate], decision: Decision | None = None) -> Candidate:
    """The paper's rule: the lowest score; of near ones the one whose start the draft likes best."""
    return max(_near_lowest(safe), key=lambda c: (c.logprob, -c.beam))


def lowest(safe: Sequence[Candidate], decision: Decision | None = None) -> Candidate:
    """The lowest score; of near ones the first in the mixture's order."""
    return _near_lowest(safe)[0]


def likeliest(safe: Sequence[Candidate], decision: Decision | None = None) -> Candidate:
    """The one whose first token the mixture finds likeliest."""
    return safe[0]


def mixture(safe: Sequence[Candidate], decision: Decision | None = None) -> Candidate:
    """The one whose whole mixed start the mixture finds likeliest."""
    return max(safe, key=lambda c: (_known(c.mixture), -c.beam))


def anchor(safe: Sequence[Candidate], decision: Decision | None = None) -> Candidate:
    """The one whose mixed start the anchor finds likeliest."""
    return max(safe, key=lambda c: (_known(c.anchor), -c.beam))


def votes(safe: Sequence[Candidate], decision: Decision | None = None) -> Candidate:
    """The likeliest of the larger party, those that refuse or those that answer; the likeliest if even."""
    parties = [[c for c in safe if c.refuses == side] for side in (True, False)]
    return min(parties, key=lambda party: (-len(party), party[0].beam if party else 0))[0]


def by_request(safe: Sequence[Candidate], decision: Decision | None = None) -> Candidate:
    """By what the request was read as.

    Harmful: the likeliest refusal, else the lowest score, where `select` lets that through. Clear: the
    likeliest that answers, whatever the scores, which below the threshold rank nothing; else the likeliest.
    Doubtful: the likeliest. Without a reading the paper's rule.
    """
    if decision is None:
        return safest(safe)
    refusing, answering = ([c for c in safe if c.refuses == side] for side in (True, False))
    if decision == "harmful":
        return refusing[0] if refusing else lowest(safe)
    if decision == "clear" and answering:
        return answering[0]
    return likeliest(safe)


RULES: Mapping[Choice, Rule] = {
    "safest": safest,
    "likeliest": likeliest,
    "lowest": lowest,
    "mixture": mixture,
    "anchor": anchor,
    "votes": votes,
    "by_request": by_request,
}


def _near_lowest(candidates: Sequence[Candidate]) -> list[Candidate]:
    least = min(_score(c) for c in candidates)
    return [c for c in candidates if _score(c) <= least + SCORE_TIE]


def _score(candidate: Candidate) -> float:
    assert candidate.verdict.score is not None
    return candidate.verdict.score


def _known(logprob: float | None) -> float:
    """A beam of whose start nothing was mixed comes last; where that is so of all they are alike."""
    return -inf if logprob is None else logprob
