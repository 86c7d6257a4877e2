"""What an answer ends in: the same value as one object of `--json`; names are stable."""

from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Literal

FinishReason = Literal["stop", "length", "blocked", "withdrawn", "cancelled"]
VerdictName = Literal["safe", "unsafe", "unscored"]
RefusalSource = Literal["draft", "mix", "judge"]


def json_safe(value: Any) -> Any:
    """The same, with null for floats that JSON can't hold."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    return value


@dataclass(frozen=True)
class Verdict:
    """The judge on one beam. `score` is calibrated where the judge has a record, else equals `raw`."""

    score: float | None
    raw: float | None
    probabilities: dict[str, float]
    verdict: VerdictName


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
    """What crossed between the vocabularies, over all beams.

    `steps` are those of the mixed phases in which the anchor was asked, `unmixed` those in which it was not:
    no step is both. The rest is of `steps`.
    """

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

    def as_dict(self) -> dict[str, Any]:
        """Every field under its own name, ready for `json.dumps`."""
        return dict(json_safe(asdict(self)))
