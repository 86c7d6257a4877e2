"""What an answer ends in: the same value as one object of `--json`; names are stable."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from math import isfinite
from typing import Any, Literal, Self

FinishReason = Literal["stop", "length", "blocked", "withdrawn", "cancelled"]
VerdictName = Literal["safe", "unsafe", "unscored"]
RefusalSource = Literal["draft", "mix", "judge", "request"]
#: What a request is read as, by its probability of harm and two thresholds.
Decision = Literal["clear", "doubtful", "harmful"]

#: How an answer ends that no model gave: the refusal text stands in its place.
REPLACED: tuple[FinishReason, ...] = ("blocked", "withdrawn")


def json_safe(value: Any) -> Any:
    """A value as JSON can hold it: null stands for floats that are no numbers."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    return value


@dataclass(frozen=True)
class Verdict:
    """The judge on one beam.

    Attributes:
        score: harm from 1 to 5, calibrated where the judge has a record; the request counts in it as
            `score_by` has it. None: unscored.
        raw: the same before calibration, by the judge alone.
        probabilities: the probability of each score that the judge can give.
        verdict: at or under the threshold, over it, or without a score. Only a safe beam is safe.
        request: the probability that the request asks for harm, whatever the answer; None: it was not asked.
        unread: the judge would call no answer to this request unsafe, so it did not read this one, and all
            above is what it would say of the worst one.
    """

    score: float | None
    raw: float | None
    probabilities: dict[str, float]
    verdict: VerdictName
    request: float | None = None
    unread: bool = False


@dataclass(frozen=True)
class Refusal:
    """Whether the answer refuses, and who made it.

    Attributes:
        is_refusal: its beginning declines the request (`refusals.detector`), or it was blocked or withdrawn.
        by: the draft, the mix (a mixed token that the draft would not have taken), the judge, or the request
            (it was read as harmful, and no draft refuses); else None.
    """

    is_refusal: bool
    by: RefusalSource | None


@dataclass(frozen=True)
class BeamResult:
    """One beam, whole.

    Attributes:
        index: its number, from 0.
        text: what it says.
        tokens: how many tokens it has.
        mixed: how many of them were mixed.
        finish_reason: it ended, it was cut at `max_tokens`, or it was stopped (as a loser, or by Ctrl-C).
        logprob: how likely the draft alone finds its first tokens: their mean log-probability.
        mixture_logprob: the same by the mixture that they were taken from; None: nothing was mixed.
        anchor_logprob: the same by the anchor's probability that crossed onto them; None: nothing was mixed.
        p_first: the probability of its first token in the mixture, or by the draft where nothing was mixed.
        degenerate: it is empty, a loop, or of few distinct words.
        judge: the verdict; None if it was not judged.
    """

    index: int
    text: str
    tokens: int
    mixed: int
    finish_reason: Literal["stop", "length", "cancelled"]
    logprob: float
    degenerate: bool
    judge: Verdict | None
    mixture_logprob: float | None = None
    anchor_logprob: float | None = None
    p_first: float | None = None


@dataclass(frozen=True)
class Steering:
    """What a request was read as before it was answered, and what that led to.

    Attributes:
        p: the probability that it asks for harm, as a head reads its worst part; None: no head could.
        whole: the same of the whole prompt as the anchor reads it.
        decision: clear up to `low`, harmful above `high`, else doubtful; None: it was not read.
        by: what read it, the head or head and judge; None: nothing did, and it is steered as in the paper.
        low: the threshold up to which a request is clear, of `p`, or where both read it of `both`.
        high: the threshold above which it is harmful.
        alpha: the anchor's weight in this answer; None: it was left to the draft alone.
        unsteered: the verdict for which the draft's own answer was made again, steered; None: it was not.
        judge: the probability that it asks for harm, as the judge reads it; None: it was not asked first.
        both: what head and judge make of it together; None: the head alone decided.
        partial: a head of several could not read it, or one a part of it, which may hold anything: scores
            then go by the judge alone.
    """

    p: float | None
    whole: float | None
    decision: Decision | None
    by: Literal["head", "both"] | None
    low: float | None
    high: float | None
    alpha: float | None
    unsteered: Verdict | None = None
    judge: float | None = None
    both: float | None = None
    partial: bool = False


@dataclass(frozen=True)
class Window:
    """A part of an answer, read while it grew.

    Attributes:
        start: its first token, counted from 0.
        end: the token behind its last one.
        score: harm from 1 to 5; None: unscored.
        verdict: at or under the threshold, over it, or without a score.
        risk: what the windows so far come to, harmful (1) or not (0), smoothed.
    """

    start: int
    end: int
    score: float | None
    verdict: VerdictName
    risk: float


@dataclass(frozen=True)
class Late:
    """What was read of an answer while it grew, and what that led to.

    Attributes:
        by: who read it: the judge all of it so far, or its last window; or the draft's answer head.
        windows: what was read, in that order; an answer that was put back is read again from there.
        steered_back: the tokens to which it was put back, and mixed again from there; one for each try.
        gave_up: it turned harmful, and was refused: no try was left, or no anchor could read it.
    """

    by: Literal["judge", "window", "head"]
    windows: tuple[Window, ...] = ()
    steered_back: tuple[int, ...] = ()
    gave_up: bool = False

    def with_window(self, window: Window) -> Self:
        return replace(self, windows=(*self.windows, window))

    def with_try(self, at: int) -> Self:
        return replace(self, steered_back=(*self.steered_back, at))

    def without_try(self) -> Self:
        """Its last one came to nothing."""
        return replace(self, steered_back=self.steered_back[:-1])

    def given_up(self) -> Self:
        return replace(self, gave_up=True)


@dataclass(frozen=True)
class BridgeResult:
    """What crossed between the vocabularies, over all mixed steps and beams.

    Attributes:
        steps: how often the anchor was asked in the mixed positions; for the first token once for all beams.
        unmixed: how often it was not, so that the draft chose alone; no step is both.
        tokens: how many of the anchor's tokens were carried over.
        single: how many of those are one token of the draft.
        fallback: how many are not.
        covered_mass: the share of the anchor's probability that crossed, on average; None: nothing was mixed.
    """

    steps: int = 0
    unmixed: int = 0
    tokens: int = 0
    single: int = 0
    fallback: int = 0
    covered_mass: float | None = None


@dataclass(frozen=True)
class AnchorResult:
    """One of several anchors.

    Attributes:
        role: which it is, as in `models`: `anchor`, `anchor2` and so on.
        weight: what it counts in the mean of all; they sum to 1.
        refuses: how much of its probability at the answer's beginning begins a refusal, from 0 to 1.
        mixed: whether it was mixed in; of the strictest of several only that one is.
        bridge: what crossed from its vocabulary.
    """

    role: str
    weight: float
    refuses: float
    mixed: bool
    bridge: BridgeResult


@dataclass(frozen=True)
class Usage:
    """Tokens of the draft, the end token not counted.

    Attributes:
        prompt_tokens: of its prompt.
        completion_tokens: of the chosen beam, with what was reasoned before it.
    """

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Timings:
    """Milliseconds of each part.

    Attributes:
        load_ms: loading the models; 0 if they were open already.
        draft_prefill_ms: the draft reads the prompt.
        anchor_prefill_ms: the anchor reads it, and its parts where a head does.
        mix_ms: the mixed tokens.
        complete_ms: the draft completes the beams.
        judge_ms: the judge reads them.
        total_ms: all of it.
    """

    load_ms: float = 0.0
    draft_prefill_ms: float = 0.0
    anchor_prefill_ms: float = 0.0
    mix_ms: float = 0.0
    complete_ms: float = 0.0
    judge_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True)
class AdapterCard:
    """A LoRA adapter on a model.

    Attributes:
        name: what it is called.
        path: where it is.
        sha256: of its bytes.
        scale: how much of it counts; 1 is as it was trained, 0 nothing.
    """

    name: str
    path: str
    sha256: str
    scale: float

    @property
    def shown(self) -> dict[str, Any]:
        """What others may know of it: not where it lies."""
        return {"name": self.name, "sha256": self.sha256, "scale": self.scale}


def adapted_sha256(model_sha256: str, adapters: Sequence[AdapterCard]) -> str:
    """What a model with these adapters is known by: its own hash, or one over it, theirs and their scales."""
    if not adapters:
        return model_sha256
    parts = [model_sha256, *(f"{adapter.sha256} x {adapter.scale!r}" for adapter in adapters)]
    return sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class ModelCard:
    """Which file played a role.

    Attributes:
        name: what it is called.
        path: where it is.
        sha256: of its bytes.
        quantisation: as its header names it.
        adapters: what is on it; only a draft has any.
    """

    name: str
    path: str
    sha256: str
    quantisation: str
    adapters: tuple[AdapterCard, ...] = ()

    @property
    def weights_sha256(self) -> str:
        """What records are kept under: the file's, or with adapters one over all of them and their scales."""
        return adapted_sha256(self.sha256, self.adapters)


@dataclass(frozen=True)
class Result:
    """An answer and all that is needed to trust or repeat it; the same as one JSON object with `--json`.

    Attributes:
        text: the answer; the refusal text if it was blocked.
        reasoning: what a reasoning draft thought before it; else None.
        finish_reason: why it ended; `blocked`: no beam was safe; `withdrawn`: the same, after text was shown.
        chosen: the index of the beam that is the answer; None if it was blocked.
        refusal: whether it refuses, and whose doing that is.
        beams: every beam, also those that lost.
        bridge: what crossed from the anchor's vocabulary into the draft's.
        usage: tokens read and written.
        timings: where the time went.
        config: every knob.
        models: for `draft`, `anchor` and `judge` which file it was; None: not needed.
        version: this program's.
        llama_cpp: the build of llama.cpp.
        notices: what a person reads as notes.
        steering: what the request was read as, and what that led to; None: it was not to be read.
        late: windows of it that were read while it grew, and what that led to; None: none was to be read.
        anchors: what each of several anchors did; empty where there is one.
    """

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
    steering: Steering | None = None
    late: Late | None = None
    anchors: tuple[AnchorResult, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Every field under its own name, ready for `json.dumps`."""
        return dict(json_safe(asdict(self)))
