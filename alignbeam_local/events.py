"""What an answer tells while it is made: the core yields, the CLI prints."""

from dataclasses import dataclass
from typing import Literal

from .result import Result, Verdict

Winner = Literal["anchor", "both", "draft", "neither"]


@dataclass(frozen=True)
class Notice:
    """Something the user should know; not part of the answer."""

    message: str


@dataclass(frozen=True)
class Phase:
    """A phase of the method begins."""

    name: Literal["load", "examples", "think", "prefill", "mix", "complete", "judge"]


@dataclass(frozen=True)
class TopToken:
    """One candidate of a mixed step."""

    token: int
    piece: str
    p_mixed: float


@dataclass(frozen=True)
class Step:
    """One mixed token of one beam: who wanted what, and what was taken.

    `won_by` names whose first choice was taken; `anchor_piece` is None where the anchor was not asked.
    """

    position: int
    beam: int
    token: int
    draft_token: int
    anchor_token: int | None
    piece: str
    draft_piece: str
    anchor_piece: str | None
    won_by: Winner
    p_mixed: float
    p_draft: float
    p_anchor: float
    covered_mass: float
    top: tuple[TopToken, ...]

    @property
    def steered(self) -> bool:
        """Whether the mixture took what the draft alone would not have; every beam but one must start so."""
        forked = self.beam > 0 and self.position == 0
        return self.token != self.draft_token and not forked


@dataclass(frozen=True)
class BeamText:
    """New characters of one beam; `mixed` says that they come from a mixed step."""

    beam: int
    text: str
    mixed: bool


@dataclass(frozen=True)
class Judged:
    """A verdict on a beam has been reached."""

    beam: int
    verdict: Verdict


@dataclass(frozen=True)
class AnswerText:
    """Characters of the answer, decided: safe to show."""

    text: str


@dataclass(frozen=True)
class Withdrawn:
    """The answer shown so far is taken back; what stands instead."""

    text: str


@dataclass(frozen=True)
class Done:
    """The last event."""

    result: Result


Event = Notice | Phase | Step | BeamText | Judged | AnswerText | Withdrawn | Done
