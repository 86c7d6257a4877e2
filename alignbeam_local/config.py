"""Every knob, its default, its range and its meaning: the one home of each."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from math import isfinite
from typing import Annotated, Any, Literal, NamedTuple, Self, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from .errors import UsageError, did_you_mean
from .knobs import Knob, Mark, Panel
from .placing import Server, parse_gpus, parse_servers
from .roles import MOST_ANCHORS, anchor_number, anchor_role, is_anchor, part_of

Variant = Literal["drop", "first", "exact"]
DraftMass = Literal["each", "once"]
Prefix = Literal["fixed", "adaptive"]
AlphaRule = Literal["fixed", "decay", "disagreement"]
Together = Literal["mean", "strictest"]
AnchorRow = Literal["plain", "gated"]
SafetyTokensUse = Literal["none", "boost", "ablate"]
Choice = Literal["safest", "likeliest", "lowest", "mixture", "anchor", "votes", "by_request"]
Steer = Literal["always", "by_request"]
RequestBy = Literal["head", "judge", "both"]
ReadClear = Literal["needed", "always"]
ReadRequest = Literal["auto", "on", "off"]
OnUnsafe = Literal["auto", "refuse", "lowest"]
LateReader = Literal["off", "judge", "window", "head"]
KvStrategy = Literal["auto", "seq", "state"]
Kept = Literal["none", "examples", "all"]
FlashAttention = Literal["auto", "on", "off"]
SplitMode = Literal["layer", "row", "tensor"]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]

#: Named as the judge it says: no model of its own, the draft's answer head.
HEAD_JUDGE = "head"

#: `judge_at` of a chat with several beams (docs/measurements.md, "When a chat judges").
CHAT_JUDGE_AT = 32

#: The longest context that a model claims to have, and the most tokens that can be asked for.
MOST_TOKENS = 10 * 2**20
#: Of 32 bits, with room for a seed a beam.
MOST_SEED = 2**32 - 65
#: The most threads that llama.cpp has room for: with more it ends the process.
_MOST_THREADS = 512
_MOST_LAYERS = 65_536
_MOST_TOP_K = 2**31 - 1
_MOST_GPUS = 256
_LARGEST_SHARE = 1e6
_LARGEST_SCALE = 100.0
#: Below this, logits over the temperature, or over the penalty, are no numbers any more.
_LEAST_DIVISOR = 1e-3

_WHOLE: CacheType = "f16"
_UNQUANTISED = ("f32", "f16", "bf16")


_Share = Annotated[float, Field(ge=0, le=1)]


class LoraSpec(NamedTuple):
    """An adapter as it was named: a name, a path or hf:owner/repo/file.gguf, and how much of it counts."""

    file: str
    scale: float

    @property
    def text(self) -> str:
        """What names the same once more: the scale to its last digit."""
        short = f"{self.scale:g}"
        return f"{self.file}:{short if float(short) == self.scale else repr(self.scale)}"


def _knob(default: Any, description: str, about: Knob) -> Any:
    """A field of `Config`: its default, its meaning, and what else is to be known of it."""
    return Field(default, description=description, json_schema_extra=asdict(about))


class Config(BaseModel):
    """The knobs of one answer (paper: section 4; the defaults are the paper's, but for `choice`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: Annotated[float, Field(ge=0, le=1)] = _knob(
        0.5,
        "anchor's weight in the mixture, on the tokens that it finds likely: "
        "0 = the draft chooses among them, 1 = the anchor",
        Knob("Method", ("measured",)),
    )
    depth: Annotated[int, Field(ge=0, le=512)] = _knob(
        6,
        "N: how many tokens of each answer are mixed; 0 = none",
        Knob("Method", ("measured", "benched"), "N"),
    )
    beams: Annotated[int, Field(ge=1, le=32)] = _knob(
        3,
        "K: how many answers are started; 1 = lowest cost, unjudged",
        Knob("Method", ("measured", "benched", "sizes"), "K"),
    )
    bridge_width: Annotated[int, Field(ge=1, le=4096)] = _knob(
        50,
        "B: how many of the anchor's most probable tokens are carried over a step",
        Knob("Method", ("measured", "benched"), "B"),
    )
    variant: Variant = _knob(
        "drop",
        "what an anchor token that is no single draft token does: it is left out (drop), "
        "its first part gets the credit (first), or its mass goes back to the draft (exact)",
        Knob("Method", ("measured",)),
    )
    draft_mass: DraftMass = _knob(
        "each",
        "count a draft token's mass for each anchor token that lands on it, or once",
        Knob("Method", ("measured",)),
    )
    prefix: Prefix = _knob(
        "fixed",
        "which tokens are mixed: the first N (fixed); or N and then on while the models part, to max_depth "
        "(adaptive)",
        Knob("Method", ("measured", "sizes")),
    )
    max_depth: Annotated[int, Field(ge=1, le=512)] = _knob(
        20,
        "no token is mixed behind this many, where more than N may be; N if that is more",
        Knob("Method", ("measured", "sizes")),
    )
    agree_for: Annotated[int, Field(ge=1, le=512)] = _knob(
        3,
        "M: an adaptive prefix ends after so many tokens in a row in which the models did not part",
        Knob("Method", ("measured",)),
    )
    alpha_rule: AlphaRule = _knob(
        "fixed",
        "the anchor's weight at each position: alpha (fixed); half of it every N tokens (decay); or alpha in "
        "the first N, and behind them, to max_depth, only where the models' disagreement has added up "
        "(disagreement)",
        Knob("Method", ("measured", "sizes")),
    )
    anchors: Together = _knob(
        "mean",
        "of several anchors: the mean of their mixtures (mean), or the one that most begins to refuse "
        "(strictest)",
        Knob("Method", ("measured",)),
    )
    anchor_weights: str | None = _knob(
        None,
        "what each of several anchors counts in the mean, as 2,1; none = all the same",
        Knob("Method", ("measured",)),
    )
    anchor_row: AnchorRow = _knob(
        "plain",
        "what of an anchor is mixed: its own row (plain); or that row mixed with its row without the "
        "question, by how sure that and the draft are among the tokens of safety_file (gated), which reads "
        "the anchor twice",
        Knob("Method", ("measured", "sizes")),
    )
    safety_tokens: SafetyTokensUse = _knob(
        "none",
        "what is done to the draft's safety tokens: nothing, their logits are raised (boost), "
        "or they can't come (ablate, to see what they are worth)",
        Knob("Method", ("measured",)),
    )
    boost: Annotated[float, Field(ge=0, le=100)] = _knob(
        5.0, "what is added to the logits of boosted safety tokens", Knob("Method", ("measured",))
    )
    safety_steps: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = _knob(
        None,
        "in how many tokens from the answer's first on safety tokens are boosted or ablated; none = in all",
        Knob("Method", ("measured",)),
    )
    safety_file: str | None = _knob(
        None,
        "the file that names the safety tokens, from `alignbeam tokens find`",
        Knob("Method", ("measured", "shared")),
    )
    steer: Steer = _knob(
        "always",
        "which requests are steered: all, as in the paper; or by what the anchor's head reads of each: clear "
        "ones are answered by the draft alone, doubtful ones as always, harmful ones judged and "
        "blocked if no beam is safe; without a head all",
        Knob("Steering", ("measured", "sizes")),
    )
    clear_below: _Share | None = _knob(
        None,
        "up to this probability of harm a request is clear; none = the head's own threshold",
        Knob("Steering", ("measured",)),
    )
    harmful_above: _Share | None = _knob(
        None,
        "above this probability of harm a request is harmful; none = the head's own threshold",
        Knob("Steering", ("measured",)),
    )
    request_by: RequestBy = _knob(
        "head",
        "whose reading of the request choice = by_request goes by: the anchor's head, the judge's own "
        "question about it, or the head and, where it doubts, both; steering goes by the head or by both",
        Knob("Steering", ("measured",)),
    )
    score_by: RequestBy = _knob(
        "both",
        "whose reading of the request the judge's score goes by, where steering or the choice goes by the "
        "head: the head's, the judge's own question about it, or both (the mean of their log-odds)",
        Knob("Steering", ("measured",)),
    )
    read_clear: ReadClear = _knob(
        "needed",
        "let the judge read the draft's own answer to a clear request: always, or where what was read of the "
        "request leaves that it could call an answer unsafe at all (needed)",
        Knob("Steering"),
    )
    read_request: ReadRequest = _knob(
        "auto",
        "let the anchor's head read the request: on, off, or where steering or the choice goes by it",
        Knob("Steering"),
    )
    threshold: Annotated[float, Field(ge=1, le=5)] = _knob(
        2.5,
        "tau: the highest judge's score, 1 to 5, that counts as safe",
        Knob("Judge", ("judges", "selects", "measured")),
    )
    choice: Choice = _knob(
        "by_request",
        "among safe beams: the lowest score, of near ones what the draft likes (safest, the paper) or the "
        "mixture's order (lowest); the likeliest first token (likeliest) or start (mixture), what the "
        "anchor finds likeliest (anchor), what most of them do, refuse or answer (votes); or, by the "
        "request's reading, an answer to what is clear and only a refusal to what is harmful (by_request; "
        "where nothing read it, safest)",
        Knob("Judge", ("judges", "selects", "measured")),
    )
    min_start: _Share = _knob(
        0.0,
        "beams whose first token the mixture gives less than this are chosen only if no other is safe; "
        "0 = off",
        Knob("Judge", ("judges", "selects", "measured")),
    )
    judge_at: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = _knob(
        None,
        "judge after this many tokens, drop the losers and go on with the winner, which streams "
        "and is judged again at its end; none = at the end only; "
        f"if not set, in a chat with several beams {CHAT_JUDGE_AT}",
        Knob("Judge", ("measured",)),
    )
    judge_every: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = _knob(
        None,
        "judge the winner again each time it has grown by this many tokens, and show only what a verdict has "
        "passed; without judge_at the beams are judged after as many; none = text is shown as it comes",
        Knob("Judge", ("measured",)),
    )
    late: LateReader = _knob(
        "off",
        "who reads an answer on while it grows, window by window, and steers it back where it turns harmful: "
        "the judge, all that was said so far (judge) or the last window by itself (window); or the draft's "
        "answer head (head); without judge_at the beams are judged after one window",
        Knob("Judge", ("judges", "sizes", "measured")),
    )
    late_every: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = _knob(
        64, "the tokens of a window", Knob("Judge", ("measured",))
    )
    late_tries: Annotated[int, Field(ge=0, le=16)] = _knob(
        2,
        "how often an answer that turned harmful is put back to before that and mixed again for depth "
        "tokens, each further time for depth more than before; then it is refused",
        Knob("Judge", ("measured",)),
    )
    on_unsafe: OnUnsafe = _knob(
        "auto",
        "when no beam is safe: refuse; give the lowest score; or, with auto, refuse only if the "
        "judge's record is good enough, else give the lowest with a notice; what choice = by_request found "
        "harmful is blocked with auto too",
        Knob("Judge", ("judges", "selects", "measured")),
    )
    head_votes: bool = _knob(
        False,
        "let the draft's answer head judge too, beside the judge: the worse verdict counts",
        Knob("Judge", ("judges", "sizes", "measured")),
    )
    refusal_text: str = _knob(
        "I'm sorry, but I can't help with that.",
        "the text that is shown instead of a blocked answer",
        Knob("Judge"),
    )
    temperature: Annotated[float, Field(ge=0, le=10)] = _knob(
        0.7, "sampling temperature after the mixed tokens; 0 = greedy", Knob("Sampling", ("measured",))
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = _knob(
        1.0, "nucleus sampling; 1.0 = off", Knob("Sampling", ("measured",))
    )
    top_k: Annotated[int, Field(ge=0, le=_MOST_TOP_K)] = _knob(
        0, "sample among this many likeliest tokens; 0 = all", Knob("Sampling", ("measured",))
    )
    min_p: Annotated[float, Field(ge=0, le=1)] = _knob(
        0.0,
        "leave out tokens less likely than this share of the likeliest one's probability; 0 = none",
        Knob("Sampling", ("measured",)),
    )
    repeat_penalty: Annotated[float, Field(ge=_LEAST_DIVISOR, le=10)] = _knob(
        1.15, "penalty on tokens the answer already holds; 1.0 = none", Knob("Sampling", ("measured",))
    )
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = _knob(
        42, "beam i is seeded with seed + i", Knob("Sampling", ("shared",))
    )
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = _knob(
        512, "the longest answer, in draft tokens", Knob("Sampling", ("sizes",))
    )
    stop: tuple[str, ...] = _knob(
        (),
        "texts that end the answer, which is what came before; the flag can be repeated",
        Knob("Sampling"),
    )
    prefill: str | None = _knob(
        None,
        "what every answer is made to begin with: the first mixed token comes after it, the judge reads it, "
        "and it is no part of the answer's text; for measuring such attacks",
        Knob("Sampling"),
    )
    ignore_eos: bool = _knob(False, "go on past the end of the answer (for timing)", Knob("Sampling"))
    grammar: str | None = _knob(
        None, "a grammar (GBNF) that the answer keeps to, mixed tokens too; none = any text", Knob("Sampling")
    )
    json_schema: str | None = _knob(
        None, "a JSON schema that the answer keeps to, in place of a grammar", Knob("Sampling")
    )

    draft: str | None = _knob(
        None,
        "the specialist: a name, a path or hf:owner/repo/file.gguf",
        Knob("Models", ("loads", "sizes", "measured", "shared")),
    )
    anchor: str | tuple[str, ...] | None = _knob(
        None,
        "the aligned model that lends its first tokens; the flag can be repeated, for several",
        Knob("Models", ("loads", "sizes", "measured", "shared")),
    )
    judge: str | None = _knob(
        None,
        "the model that scores the beams; or head: the draft's own answer head, and no model beside it",
        Knob("Models", ("loads", "sizes", "judges", "measured", "shared")),
    )
    profile: str | None = _knob(
        None,
        "a named set of models and knobs; without one, the default_profile of models.toml",
        Knob("Models", ("loads", "sizes", "shared")),
    )
    lora: tuple[str, ...] = _knob(
        (),
        "LoRA adapters on the draft, each FILE or FILE:SCALE (1 if not said), a name or an address as for a "
        "model; the flag can be repeated; none = the draft as it is",
        Knob("Models", ("loads", "sizes", "measured", "shared")),
    )
    system: str | None = _knob(
        None,
        "the system prompt, for the draft; as a flag, @FILE is what a file holds",
        Knob("Models", ("measured",)),
    )
    anchor_system: str = _knob(
        "none",
        "the anchor's system prompt: none, same (as the draft's), or a text",
        Knob("Models", ("measured",)),
    )

    context: Annotated[int, Field(ge=128, le=MOST_TOKENS)] = _knob(
        4096, "tokens of one beam's conversation", Knob("Machine", ("loads", "sizes"))
    )
    threads: Annotated[int, Field(ge=0, le=_MOST_THREADS)] = _knob(
        0, "CPU threads; 0 = physical cores", Knob("Machine", ("loads",))
    )
    parallel: Annotated[int, Field(ge=1, le=64)] = _knob(
        1,
        "how many prompts share batches, in filter and eval run; each needs memory of its own",
        Knob("Machine", ("loads",)),
    )
    gpu_layers: Annotated[int, Field(ge=0, le=_MOST_LAYERS)] | Literal["auto", "all"] = _knob(
        "auto",
        "layers of each model on the GPU: a number, all, or auto: as many as fit, "
        "the anchor's first, then the draft's, then the judge's",
        Knob("Machine", ("loads", "places", "sizes")),
    )
    main_gpu: Annotated[int, Field(ge=0, lt=_MOST_GPUS)] | None = _knob(
        None,
        "the one GPU that takes them, by its number; none = every GPU",
        Knob("Machine", ("loads", "places", "sizes")),
    )
    tensor_split: str | None = _knob(
        None,
        "what each GPU takes of them, as 3,1; none = as much as it has free",
        Knob("Machine", ("loads", "places", "sizes")),
    )
    draft_gpu: str | None = _knob(
        None,
        "the GPUs that take the draft's layers, by number, as 0 or 0,1; or cpu, none of them; "
        "none = as main_gpu and tensor_split say",
        Knob("Machine", ("loads", "places", "sizes")),
    )
    anchor_gpu: str | None = _knob(
        None, "the GPUs that take the anchor's, likewise", Knob("Machine", ("loads", "places", "sizes"))
    )
    judge_gpu: str | None = _knob(
        None, "the GPUs that take the judge's, likewise", Knob("Machine", ("loads", "places", "sizes"))
    )
    split_mode: SplitMode = _knob(
        "layer",
        "how several GPUs share a model: whole layers each (layer), or a part of every layer, as llama.cpp's "
        "modes row and tensor have it",
        Knob("Machine", ("loads", "places", "sizes")),
    )
    rpc: tuple[str, ...] = _knob(
        (),
        "RPC servers of llama.cpp that take layers too, each HOST:PORT, or ROLE=HOST:PORT for one role; "
        "only on a network that you trust; the flag can be repeated; none = this machine alone",
        Knob("Machine", ("loads", "places", "sizes")),
    )
    flash_attn: FlashAttention = _knob(
        "auto", "flash attention: on, off, or where it can run", Knob("Machine", ("loads", "sizes"))
    )
    cache_type_k: CacheType = _knob(
        _WHOLE,
        f"type of the cached keys of draft and anchor; the judge's are {_WHOLE}",
        Knob("Machine", ("loads", "sizes")),
    )
    cache_type_v: CacheType = _knob(
        _WHOLE,
        "type of the cached values, likewise; a quantised type needs flash attention",
        Knob("Machine", ("loads", "sizes")),
    )
    kv: KvStrategy = _knob(
        "auto",
        "how beams fork: shared cells (seq), saved states (state), or what the model allows",
        Knob("Machine", ("loads",)),
    )
    prompt_cache: Kept = _knob(
        "examples",
        "what is cached on disk for the next run: none; the judge's worked "
        "examples; or all: also what draft and anchor read before a prompt (system prompts)",
        Knob("Machine", ("loads", "shared")),
    )
    force: bool = _knob(False, "run a pair even if its bridge is hopeless", Knob("Models", ("loads",)))

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise PydanticCustomError("truth_value", "this knob can't be true or false")
        return value

    @field_validator("*")
    @classmethod
    def _unicode(cls, value: Any) -> Any:
        texts = value if isinstance(value, tuple) else (value,)
        if any("\ud800" <= letter <= "\udfff" for text in texts if isinstance(text, str) for letter in text):
            raise PydanticCustomError("unicode", "this is not Unicode text")
        return value

    @field_validator(
        *("judge_at", "judge_every", "clear_below", "harmful_above", "main_gpu", "tensor_split"),
        *("draft_gpu", "anchor_gpu", "judge_gpu", "anchor_weights"),
        *("grammar", "json_schema", "safety_steps", "safety_file", "prefill"),
        mode="before",
    )
    @classmethod
    def _none(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("gpu_layers", mode="before")
    @classmethod
    def _as_llama_cpp_counts(cls, value: Any) -> Any:
        return "auto" if value in (-1, "-1") else value

    @field_validator("stop", "lora", "rpc", mode="before")
    @classmethod
    def _one_text_or_a_list(cls, value: Any) -> Any:
        if value in (None, "none", ["none"]):
            return ()
        return _texts(value) if isinstance(value, str) else value

    @field_validator("anchor", mode="before")
    @classmethod
    def _one_anchor_or_several(cls, value: Any) -> Any:
        """One is its name, as ever; several are a list, in which a list may stand written as JSON."""
        listed = _texts(value) if isinstance(value, str) else value
        if not isinstance(listed, list | tuple):
            return value
        if not listed or not all(isinstance(name, str) and name for name in listed):
            raise PydanticCustomError("anchors", "each anchor is a model's name")
        if len(listed) > MOST_ANCHORS:
            raise PydanticCustomError("anchors", "at most {most} anchors", {"most": MOST_ANCHORS})
        if twice := next((name for name in listed if listed.count(name) > 1), None):
            raise PydanticCustomError("twice", "{name} is there twice", {"name": twice})
        return listed[0] if len(listed) == 1 else tuple(listed)

    @field_validator("anchor_weights")
    @classmethod
    def _weights_of_anchors(cls, value: str | None) -> str | None:
        if value is not None and 0 in _parse_shares(value):
            raise PydanticCustomError("weight", "an anchor that counts 0 is opened for nothing: leave it out")
        return value

    @field_validator("stop")
    @classmethod
    def _each_a_text(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise PydanticCustomError("empty", "an empty text would end every answer at once")
        return value

    @field_validator("lora")
    @classmethod
    def _each_an_adapter(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        files = [_lora_spec(text).file for text in value]
        if "none" in files:
            raise PydanticCustomError("none", "none says that there is no adapter: it stands alone")
        if twice := next((file for file in files if files.count(file) > 1), None):
            raise PydanticCustomError("twice", "{file} is there twice", {"file": twice})
        return value

    @field_validator("safety_tokens")
    @classmethod
    def _sure_among(cls, value: SafetyTokensUse, info: ValidationInfo) -> SafetyTokensUse:
        if value == "ablate" and info.data.get("anchor_row") == "gated":
            raise PydanticCustomError(
                "gated", "among tokens that can't come nothing is sure: anchor_row = gated"
            )
        return value

    @field_validator("grammar", "json_schema")
    @classmethod
    def _alone(cls, value: str | None, info: ValidationInfo) -> str | None:
        """What a grammar promises, nothing else may cut or lengthen."""
        if value is None:
            return None
        if not value.strip():
            raise PydanticCustomError("blank", "there is nothing in it")
        for other in ("stop", "prefill", "ignore_eos", "grammar"):
            if other != info.field_name and info.data.get(other):
                raise PydanticCustomError("alone", "it does not go together with {other}", {"other": other})
        return value

    @field_validator("temperature")
    @classmethod
    def _not_next_to_0(cls, value: float) -> float:
        if 0 < value < _LEAST_DIVISOR:
            raise PydanticCustomError("tiny", f"input should be 0, or at least {_LEAST_DIVISOR:g}")
        return value

    @field_validator("tensor_split")
    @classmethod
    def _shares_of_gpus(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            _parse_shares(value)
            if info.data.get("main_gpu") is not None:
                raise PydanticCustomError("one_gpu", "main_gpu names one GPU, so there is nothing to share")
        return value

    @field_validator("draft_gpu", "anchor_gpu", "judge_gpu")
    @classmethod
    def _gpus(cls, value: str | None, info: ValidationInfo) -> str | None:
        try:
            numbers = parse_gpus(value) if value is not None else ()
        except ValueError as error:
            raise PydanticCustomError("gpus", "{reason}", {"reason": str(error)}) from None
        if numbers and info.data.get("gpu_layers") == 0:
            raise PydanticCustomError("no_layers", "gpu_layers = 0 leaves nothing for a GPU")
        if max(numbers, default=0) >= _MOST_GPUS:
            raise PydanticCustomError("gpus", "no machine has so many GPUs")
        return value

    @field_validator("rpc")
    @classmethod
    def _servers(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        try:
            parse_servers(value)
        except ValueError as error:
            raise PydanticCustomError("servers", "{reason}", {"reason": str(error)}) from None
        if value and info.data.get("gpu_layers") == 0:
            raise PydanticCustomError("no_layers", "gpu_layers = 0 leaves nothing for a server")
        if value and info.data.get("split_mode") != "layer":
            raise PydanticCustomError("split_mode", "servers take whole layers: split_mode must be layer")
        return value

    @field_validator("flash_attn")
    @classmethod
    def _as_split(cls, value: FlashAttention, info: ValidationInfo) -> FlashAttention:
        if value == "off" and info.data.get("split_mode") == "tensor":
            raise PydanticCustomError("split_mode", "split_mode = tensor needs flash_attn on or auto")
        return value

    @field_validator("kv")
    @classmethod
    def _states(cls, value: KvStrategy, info: ValidationInfo) -> KvStrategy:
        if value == "state" and info.data.get("rpc"):
            raise PydanticCustomError("rpc", "llama.cpp saves no states over RPC: kv must be auto or seq")
        return value

    @field_validator("cache_type_v")
    @classmethod
    def _with_flash_attention(cls, value: CacheType, info: ValidationInfo) -> CacheType:
        if info.data.get("flash_attn") == "off" and value not in _UNQUANTISED:
            raise PydanticCustomError("flash_attention", "a quantised type needs flash_attn on or auto")
        return value

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str = "") -> Self:
        """Build from loose values.

        Raises:
            UsageError: as `by_name`; an unknown knob or a value out of range, named with its `source`.
        """
        try:
            return cls(**by_name(values, source))
        except ValidationError as error:
            raise _usage_error(error, source) from None

    def with_values(self, values: dict[str, Any], source: str = "") -> Self:
        """This configuration with some knobs changed, checked anew."""
        if not values:
            return self
        return self.of({**self.model_dump(), **{canonical(name): v for name, v in values.items()}}, source)

    @property
    def without_safety_tokens(self) -> Self:
        """The same for a model of which no safety tokens are named: they are the draft's."""
        return self.with_values({name: type(self).model_fields[name].default for name in SAFETY_KNOBS})

    @property
    def judged(self) -> bool:
        """One beam needs no judge, unless the user says what an unsafe answer leads to, or when to judge.

        An answer that nobody steered, or that is read while it grows, is judged too.
        """
        return self._judged_where_steered or self.steers_by_request

    @property
    def _judged_where_steered(self) -> bool:
        is_asked_for = self.on_unsafe != "auto" or self.first_verdict_at is not None
        return self.beams > 1 or is_asked_for

    @property
    def judged_by_head(self) -> bool:
        """Whether the draft's answer head is the judge."""
        return self.judge == HEAD_JUDGE

    @property
    def reads_answers(self) -> bool:
        """Whether the draft's answer head has a say: as the judge, or beside it."""
        return self.judged and (self.judged_by_head or self.head_votes)

    @property
    def needs_answer_head(self) -> bool:
        """Whether the draft's answer head reads anything: whole answers, or windows of one."""
        return self.reads_answers or self.late == "head"

    @property
    def reads_request(self) -> bool:
        """Whether the anchor's head is to read the request, if there is one."""
        is_wanted = self.read_request == "on" or (self.read_request == "auto" and self._goes_by_head)
        return self.depth > 0 and is_wanted

    @property
    def _goes_by_head(self) -> bool:
        chooses = self.choice == "by_request" and self.request_by != "judge" and self._judged_where_steered
        return self.steer == "by_request" or chooses

    @property
    def scored_by(self) -> RequestBy:
        """Whose reading of the request scores go by: the judge's own where nothing else goes by the head."""
        return self.score_by if self._goes_by_head and self.reads_request else "judge"

    @property
    def steers_by_request(self) -> bool:
        """Whether what is read of a request decides if it is steered."""
        return self.steer == "by_request" and self.reads_request

    @property
    def first_verdict_at(self) -> int | None:
        """After how many tokens the beams are judged; None: at their ends."""
        return self.judge_at or self.judge_every or (self.late_every if self.late != "off" else None)

    @property
    def verdict_every(self) -> int | None:
        """Tokens from one look at an answer that is read while it grows to the next; None: at its end."""
        late = self.late_every if self.late != "off" else None
        return min((every for every in (self.judge_every, late) if every is not None), default=None)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that an answer needs a model for, in the order in which they are opened."""
        anchors = self.anchor_roles if self.depth > 0 else ()
        return ("draft", *anchors, *(("judge",) if self.judged and not self.judged_by_head else ()))

    @property
    def anchor_names(self) -> tuple[str, ...]:
        """The anchors as they are named, in their order; none is named, or one, or several."""
        return self.anchor if isinstance(self.anchor, tuple) else (self.anchor,) if self.anchor else ()

    @property
    def anchor_roles(self) -> tuple[str, ...]:
        """The roles of the anchors: `anchor`, then `anchor2` and so on. There is always one."""
        return tuple(anchor_role(number) for number in range(max(1, len(self.anchor_names))))

    @property
    def is_gated(self) -> bool:
        """Whether each anchor is opened once more, and this twin reads no question."""
        return self.anchor_row == "gated" and self.depth > 0

    @property
    def goes_by_tokens(self) -> bool:
        """Whether what the file of safety tokens names is part of an answer."""
        return self.safety_tokens != "none" or self.is_gated

    @property
    def weights(self) -> tuple[float, ...]:
        """What each anchor counts, in their order; they sum to 1.

        Raises:
            UsageError: there are as many weights as anchors, or none.
        """
        count = len(self.anchor_roles)
        given = (1.0,) * count if self.anchor_weights is None else _parse_shares(self.anchor_weights)
        if len(given) != count:
            raise UsageError(
                f"anchor_weights has {len(given)} for {count} anchor{'' if count == 1 else 's'}",
                "Give one weight an anchor, or none at all.",
            )
        return tuple(weight / sum(given) for weight in given)

    def named(self, role: str) -> str | None:
        """The model that is named for a role, if one is; a twin is its anchor's."""
        if not is_anchor(role):
            spec: str | None = getattr(self, role)
            return spec
        number = anchor_number(role)
        return self.anchor_names[number] if number < len(self.anchor_names) else None

    def model_named(self, role: str) -> str:
        """Raises: UsageError: no model is named for this role."""
        spec = self.named(role)
        if spec is None:
            raise UsageError(f"no {role} model is named", f"Give --{role} MODEL or --profile NAME.")
        return spec

    @property
    def adapters(self) -> tuple[LoraSpec, ...]:
        """The draft's LoRA adapters, in their order."""
        return tuple(map(_lora_spec, self.lora))

    def cache_types(self, role: str) -> tuple[CacheType, CacheType]:
        """Types of the keys and of the values that this role keeps.

        The judge's stay what they were when its record was fitted: another rounding may move its scores.
        """
        return (_WHOLE, _WHOLE) if role == "judge" else (self.cache_type_k, self.cache_type_v)

    @property
    def gpu_shares(self) -> tuple[float, ...]:
        """What each GPU takes, in their order; empty if nothing was said."""
        return _parse_shares(self.tensor_split) if self.tensor_split is not None else ()

    def gpus_of(self, role: str) -> tuple[int, ...] | None:
        """The numbers of the GPUs that were named for this role; None: none was, and `cpu` is empty."""
        text: str | None = getattr(self, f"{part_of(role)}_gpu", None)
        return None if text is None else parse_gpus(text)

    @property
    def servers(self) -> tuple[Server, ...]:
        """The RPC servers that were named."""
        return parse_servers(self.rpc)

    @property
    def goes_beyond(self) -> bool:
        """Whether more than N tokens may be mixed."""
        return (self.prefix == "adaptive" or self.alpha_rule == "disagreement") and self.depth > 0

    @property
    def longest_prefix(self) -> int:
        """The most tokens that may be mixed, however long the answer: N, or what it may go on to."""
        return max(self.depth, self.max_depth) if self.goes_beyond else self.depth

    @property
    def mixed_depth(self) -> int:
        """The most tokens that are mixed: at most the answer's length."""
        return min(self.longest_prefix, self.max_tokens)


KNOBS = tuple(Config.model_fields)
#: Knobs that may have several values.
LISTS = tuple(
    name
    for name, field in Config.model_fields.items()
    if any(get_origin(kind) is tuple for kind in (field.annotation, *get_args(field.annotation)))
)
#: What is done to the draft's safety tokens; the file of them serves other ends too.
SAFETY_KNOBS = ("safety_tokens", "boost", "safety_steps")
#: What is to be known of each knob, by its name.
ABOUT: Mapping[str, Knob] = {
    name: Knob(**cast(dict[str, Any], field.json_schema_extra)) for name, field in Config.model_fields.items()
}
#: What a person may type for a knob, after the paper's symbols.
ALIASES = {about.symbol: name for name, about in ABOUT.items() if about.symbol}


def knobs_of(panel: Panel) -> tuple[str, ...]:
    """The knobs that stand under a heading."""
    return tuple(name for name in KNOBS if ABOUT[name].panel == panel)


def knobs_that(mark: Mark) -> tuple[str, ...]:
    """The knobs that have this mark."""
    return tuple(name for name in KNOBS if mark in ABOUT[name].marks)


def canonical(word: str) -> str:
    """A knob's name, for the name or the symbol that a person typed; any other word stays."""
    return ALIASES.get(word, word)


def _parse_shares(text: str) -> tuple[float, ...]:
    """Raises: PydanticCustomError: not a list of shares, or all of them are 0."""
    try:
        shares = tuple(map(float, text.split(",")))
    except ValueError:
        shares = ()
    if not all(share == 0 or _LEAST_DIVISOR <= share <= _LARGEST_SHARE for share in shares) or not any(
        shares
    ):
        raise PydanticCustomError("shares", "not a list of shares, such as 3,1")
    return shares


def _lora_spec(text: str) -> LoraSpec:
    """Raises: PydanticCustomError: no file is named, or the scale is out of range."""
    file, colon, last = text.rpartition(":")
    try:
        scale = float(last) if colon else 1.0
    except ValueError:
        if not _ends_a_file(file, last):
            raise PydanticCustomError(
                "scale",
                "{text} is no scale: that is a number, such as 0.5",
                {"text": repr(last)},
            ) from None
        file, scale = text, 1.0
    file = file if colon else text
    if not file.strip():
        raise PydanticCustomError("adapter", "no adapter is named")
    if not isfinite(scale) or abs(scale) > _LARGEST_SCALE:
        raise PydanticCustomError("scale", f"a scale is a number, at most {_LARGEST_SCALE:g}")
    return LoraSpec(file, scale)


def _ends_a_file(before: str, last: str) -> bool:
    """Whether a colon is the file's own, as in hf:owner/repo/file.gguf."""
    return before == "hf" or last.lower().endswith(".gguf") or not {"/", "\\"}.isdisjoint(last)


def _texts(value: str) -> Any:
    """What a JSON list lists, so that a variable can name several texts, and newlines; else one text."""
    if value.startswith("["):
        with suppress(ValueError, RecursionError):
            listed = json.loads(value)
            if isinstance(listed, list):
                return listed
    return (value,)


def by_name(values: Mapping[str, Any], source: str = "") -> dict[str, Any]:
    """Loose values by the names of their knobs: the paper's symbols are replaced.

    Raises:
        UsageError: a knob is given by both.
    """
    names = [canonical(key) for key in values]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{_prefix(source)}{twice} is given twice", "Write either its name or its symbol.")
    return dict(zip(names, values.values(), strict=True))


def unknown_knob(name: str, source: str = "") -> UsageError:
    """The error for a knob that does not exist, with the nearest one that does."""
    hint = did_you_mean(name, KNOBS, f"Knobs: {', '.join(KNOBS)}")
    return UsageError(f"{_prefix(source)}unknown knob '{name}'", hint)


def _usage_error(error: ValidationError, source: str) -> UsageError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return unknown_knob(name, source)
    others = list(dict.fromkeys(str(one["loc"][0]) for one in error.errors() if one["loc"][0] != name))
    return UsageError(
        f"{_prefix(source)}{name} = {_shown(first['input'])}: {first['msg'].lower()}"
        + (f"; also wrong: {', '.join(others)}" if others else ""),
        f"{name}: {Config.model_fields[name].description}",
    )


def _shown(value: Any) -> str:
    """A value for a message, not all of it where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}..."


def _prefix(source: str) -> str:
    return f"{source}: " if source else ""
