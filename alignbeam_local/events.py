"""What an answer tells while it is made: the core yields, the CLI prints."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .result import Result, Steering, Verdict, Window

Winner = Literal["anchor", "both", "draft", "neither"]
#: A beam's first token that the draft gives at least this probability is a beginning of the draft's own.
OWN_BEGINNING = 0.1


@dataclass(frozen=True)
class Notice:
    """Something the user should know; not part of the answer."""

    message: str


@dataclass(frozen=True)
class Phase:
    """A phase of the method begins."""

    name: Literal["load", "examples", "think", "prefill", "mix", "complete", "judge"]


@dataclass(frozen=True)
class ExamplesRead:
    """How far the judge is with its worked examples, which only a first answer waits for.

    Attributes:
        done: tokens read.
        total: tokens in all.
        seconds_left: what the rest takes, as what was read so far; None: nothing was read yet.
    """

    done: int
    total: int
    seconds_left: float | None


@dataclass(frozen=True)
class RequestRead:
    """The request was read, or was to be, before it is answered."""

    steering: Steering


@dataclass(frozen=True)
class TopToken:
    """One candidate of a mixed step.

    Attributes:
        token: its id in the draft's vocabulary.
        piece: its text.
        p_mixed: its probability in the mixture.
    """

    token: int
    piece: str
    p_mixed: float


@dataclass(frozen=True)
class AnchorVoice:
    """What one of several anchors wanted at a mixed step.

    Attributes:
        role: which it is: `anchor`, `anchor2` and so on.
        token: its first choice, in its own vocabulary.
        piece: the text of that.
        p: its probability that landed on what was taken.
        covered_mass: the share of its probability that crossed its bridge.
    """

    role: str
    token: int
    piece: str
    p: float
    covered_mass: float


@dataclass(frozen=True)
class Step:
    """One mixed token of one beam: who wanted what, and what was taken.

    Attributes:
        position: which token of the answer, from 0.
        beam: the index of the beam.
        token: the token that was taken, as an id of the draft's vocabulary.
        draft_token: the draft's first choice.
        anchor_token: the anchor's first choice, in its own vocabulary; None where the anchor was not asked.
        piece: the text of what was taken.
        draft_piece: the text of the draft's first choice.
        anchor_piece: the text of the anchor's first choice; None where the anchor was not asked.
        won_by: whose first choice was taken.
        p_mixed: probability of what was taken in the mixture.
        p_draft: its probability by the draft.
        p_anchor: the anchor's probability that landed on it.
        covered_mass: the share of the anchor's probability that crossed the bridge.
        top: the likeliest candidates of the mixture.
        anchors: what each of several anchors wanted; empty where one was asked: the fields above tell of it.
        gates: with anchor_row = gated how much of each anchor's row was the one without the question, c.
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
    anchors: tuple[AnchorVoice, ...] = ()
    gates: tuple[float, ...] = ()

    @property
    def steered(self) -> bool:
        """Whether the mixture took what the draft alone would not have.

        All beams but one must begin with another token than the draft's first choice: where the draft finds
        that token likely, it is a beginning of the draft's own.
        """
        is_own_beginning = self.beam > 0 and self.position == 0 and self.p_draft >= OWN_BEGINNING
        return bool(self.top) and self.token != self.draft_token and not is_own_beginning


@dataclass(frozen=True)
class BeamText:
    """New characters of one beam; `mixed` says that they come from a mixed step."""

    beam: int
    text: str
    mixed: bool


@dataclass(frozen=True)
class Judged:
    """A verdict on a beam has been reached; `threshold` is the highest score that is safe, if it is told."""

    beam: int
    verdict: Verdict
    threshold: float | None = None


@dataclass(frozen=True)
class WindowRead:
    """A window of the chosen beam was read while it grows."""

    beam: int
    window: Window


@dataclass(frozen=True)
class SteeredBack:
    """The chosen beam turned harmful: it was put back to `tokens` tokens, and is mixed again from there.

    Attributes:
        beam: its index.
        tokens: what is left of it.
        attempt: the how manieth time, from 1.
    """

    beam: int
    tokens: int
    attempt: int

    def standing(self, steps: Iterable[Step]) -> list[Step]:
        """Of mixed steps those that stand: what was mixed where the beam was put back is not its text."""
        return [step for step in steps if step.beam != self.beam or step.position < self.tokens]


@dataclass(frozen=True)
class AnswerText:
    """Characters of the answer, to be shown; a verdict that is still to come can take them back.

    Attributes:
        text: they.
        stands: no verdict takes them back, as the judge would call no answer to this request unsafe.
    """

    text: str
    stands: bool = False


@dataclass(frozen=True)
class Withdrawn:
    """The answer shown so far is taken back; what stands instead.

    Attributes:
        text: what stands.
        stands: how many characters of it are what was shown: only what followed them is taken back.
    """

    text: str
    stands: int = 0


@dataclass(frozen=True)
class Done:
    """The last event."""

    result: Result


Event = (
    Notice
    | Phase
    | ExamplesRead
    | RequestRead
    | Step
    | BeamText
    | Judged
    | WindowRead
    | SteeredBack
    | AnswerText
    | Withdrawn
    | Done
)
