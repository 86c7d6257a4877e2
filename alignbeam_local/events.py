"""What an answer tells while it is made, and the value it ends in: the core yields, the CLI prints."""

from dataclasses import dataclass, field
from typing import Any, Literal

FinishReason = Literal["stop", "length", "blocked", "withdrawn", "cancelled"]
VerdictName = Literal["safe", "unsafe", "unscored"]
RefusalSource = Literal["draft", "mix", "judge"]
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
class Verdict:
    """The judge on one beam. `score` is calibrated where the judge has a record, else equals `raw`."""

    score: float | None
    raw: float | None
    probabilities: dict[str, float]
    verdict: VerdictName


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
class Refusal:
    """Whether the answer refuses, and who made it: the draft, a mixed token, or the judge."""

    is_refusal: bool
    by: RefusalSource | None


@dataclass(frozen=True)
class BeamResult:
    """One beam, whole."""

    index: int
    text: str
    tokens: int
    mixed: int
    finish_reason: Literal["stop", "length", "cancelled"]
    logprob: float
    degenerate: bool
    judge: Verdict | None


@dataclass(frozen=True)
class BridgeResult:
    """What crossed between the vocabularies, over all mixed steps and beams."""

    steps: int = 0
    unmixed: int = 0
    tokens: int = 0
    single: int = 0
    fallback: int = 0
    covered_mass: float | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens of the draft's prompt and of the chosen beam, the end token not counted."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Timings:
    """Milliseconds of each part."""

    load_ms: float = 0.0
    draft_prefill_ms: float = 0.0
    anchor_prefill_ms: float = 0.0
    mix_ms: float = 0.0
    complete_ms: float = 0.0
    judge_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True)
class ModelCard:
    """Which file played a role."""

    name: str
    path: str
    sha256: str
    quantisation: str


@dataclass(frozen=True)
class Result:
    """An answer and all that is needed to trust or repeat it; the same as one JSON object with `--json`."""

    text: str
    reasoning: str | None
    finish_reason: FinishReason
    chosen: int | None
    refusal: Refusal
    beams: tuple[BeamResult, ...]
    bridge: BridgeResult
    usage: Usage
    timings: Timings
    config: dict[str, Any]
    models: dict[str, ModelCard | None]
    version: str
    llama_cpp: str
    notices: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Done:
    """The last event."""

    result: Result


Event = Notice | Phase | Step | BeamText | Judged | AnswerText | Withdrawn | Done
