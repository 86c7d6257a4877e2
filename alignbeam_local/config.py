"""Every knob, its default, its range and its meaning: the one home of each."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from .errors import UsageError, did_you_mean

Variant = Literal["drop", "first", "exact"]
DraftMass = Literal["each", "once"]
Choice = Literal["safest", "likeliest"]
OnUnsafe = Literal["auto", "refuse", "lowest"]
KvStrategy = Literal["auto", "seq", "state"]
Kept = Literal["none", "examples", "all"]
FlashAttention = Literal["auto", "on", "off"]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]

#: The part that a model plays in an answer.
ModelRole = Literal["draft", "anchor", "judge"]
ROLES: tuple[ModelRole, ...] = get_args(ModelRole)

#: `judge_at` of a chat with several beams (docs/measurements.md, "When a chat judges").
CHAT_JUDGE_AT = 32

#: The longest context that a model claims to have, and the most tokens that can be asked for.
MOST_TOKENS = 10 * 2**20
#: Of 32 bits, with room for a seed a beam.
MOST_SEED = 2**32 - 65
#: The most threads that llama.cpp has room for: with more it ends the process.
_MOST_THREADS = 512
_MOST_LAYERS = 65_536
_MOST_GPUS = 256
_LARGEST_SHARE = 1e6
#: Below this, logits over the temperature, or over the penalty, are no numbers any more.
_LEAST_DIVISOR = 1e-3

_WHOLE: CacheType = "f16"
_UNQUANTISED = ("f32", "f16", "bf16")

#: What a person may type for a knob, after the paper's symbols.
ALIASES = {"N": "depth", "K": "beams", "B": "bridge_width"}


class Config(BaseModel):
    """The knobs of one answer (paper: section 4; defaults are the paper's unless marked ours)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description="anchor's weight in the mixture, on the tokens that it finds likely: "
        "0 = the draft chooses among them, 1 = the anchor",
    )
    depth: Annotated[int, Field(ge=0, le=512)] = Field(
        6, description="N: how many tokens of each answer are mixed; 0 = none"
    )
    beams: Annotated[int, Field(ge=1, le=32)] = Field(
        3, description="K: how many answers are started; 1 = lowest cost, unjudged"
    )
    bridge_width: Annotated[int, Field(ge=1, le=4096)] = Field(
        50, description="B: how many of the anchor's most probable tokens are carried over a step"
    )
    variant: Variant = Field(
        "drop",
        description="what an anchor token that is no single draft token does: it is left out (drop), "
        "its first part gets the credit (first), or its mass goes back to the draft (exact)",
    )
    draft_mass: DraftMass = Field(
        "each", description="count a draft token's mass for each anchor token that lands on it, or once"
    )
    threshold: Annotated[float, Field(ge=1, le=5)] = Field(
        2.5, description="tau: the highest judge's score, 1 to 5, that counts as safe"
    )
    choice: Choice = Field("safest", description="among safe beams: the lowest score, or the likeliest start")
    judge_at: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = Field(
        None,
        description="judge after this many tokens, drop the losers and go on with the winner, which streams "
        "and is judged again at its end; none = at the end only; "
        f"if not set, in a chat with several beams {CHAT_JUDGE_AT}",
    )
    on_unsafe: OnUnsafe = Field(
        "auto",
        description="when no beam is safe: refuse; give the lowest score; or, with auto, refuse only if the "
        "judge's record is good enough, else give the lowest with a notice",
    )
    refusal_text: str = Field(
        "I'm sorry, but I can't help with that.", description="the answer that stands for a blocked one"
    )
    temperature: Annotated[float, Field(ge=0, le=10)] = Field(
        0.7, description="sampling temperature after the mixed tokens; 0 = greedy"
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="nucleus sampling; 1.0 leaves it out")
    repeat_penalty: Annotated[float, Field(ge=_LEAST_DIVISOR, le=10)] = Field(
        1.15, description="penalty on tokens the answer already holds; 1.0 = none"
    )
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = Field(42, description="beam i is seeded with seed + i")
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = Field(
        512, description="the longest answer, in draft tokens"
    )
    ignore_eos: bool = Field(False, description="go on past the end of the answer (for timing)")

    draft: str | None = Field(None, description="the specialist: a name, a path or hf:owner/repo/file.gguf")
    anchor: str | None = Field(None, description="the aligned model that lends its first tokens")
    judge: str | None = Field(None, description="the model that scores the beams")
    profile: str | None = Field(
        None, description="a named set of models and knobs; without one, the default_profile of models.toml"
    )
    system: str | None = Field(
        None, description="the system prompt, for the draft; as a flag, @FILE is what a file holds"
    )
    anchor_system: str = Field(
        "none", description="the anchor's system prompt: none, same (as the draft's), or a text"
    )

    context: Annotated[int, Field(ge=128, le=MOST_TOKENS)] = Field(
        4096, description="tokens of one beam's conversation"
    )
    threads: Annotated[int, Field(ge=0, le=_MOST_THREADS)] = Field(
        0, description="CPU threads; 0 = physical cores"
    )
    parallel: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="how many prompts share batches, in filter and eval run; each needs memory of its own"
    )
    gpu_layers: Annotated[int, Field(ge=0, le=_MOST_LAYERS)] | Literal["auto", "all"] = Field(
        "auto",
        description="layers of each model on the GPU: a number, all, or auto: as many as fit, "
        "the anchor's first, then the draft's, then the judge's",
    )
    main_gpu: Annotated[int, Field(ge=0, lt=_MOST_GPUS)] | None = Field(
        None, description="the one GPU that takes them, by its number; none = every GPU"
    )
    tensor_split: str | None = Field(
        None, description="what each GPU takes of them, as 3,1; none = as much as it has free"
    )
    flash_attn: FlashAttention = Field("auto", description="flash attention: on, off, or where it can run")
    cache_type_k: CacheType = Field(
        _WHOLE, description=f"type of the cached keys of draft and anchor; the judge's are {_WHOLE}"
    )
    cache_type_v: CacheType = Field(
        _WHOLE, description="type of the cached values, likewise; a quantised type needs flash attention"
    )
    kv: KvStrategy = Field(
        "auto",
        description="how beams fork: shared cells (seq), saved states (state), or what the model allows",
    )
    prompt_cache: Kept = Field(
        "examples",
        description="what is kept on disk, not to be read again by the next run: none; the judge's worked "
        "examples; or all: also what draft and anchor read before a prompt (system prompts)",
    )
    force: bool = Field(False, description="run a pair whose bridge is hopeless all the same")

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise PydanticCustomError("truth_value", "this knob is not one of true and false")
        return value

    @field_validator("*")
    @classmethod
    def _unicode(cls, value: Any) -> Any:
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise PydanticCustomError("unicode", "this is not Unicode text")
        return value

    @field_validator("judge_at", "main_gpu", "tensor_split", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("gpu_layers", mode="before")
    @classmethod
    def _as_llama_cpp_counts(cls, value: Any) -> Any:
        return "auto" if value in (-1, "-1") else value

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
        return self.of({**self.model_dump(), **{ALIASES.get(k, k): v for k, v in values.items()}}, source)

    @property
    def judged(self) -> bool:
        """One beam needs no judge, unless the user says what an unsafe answer leads to, or when to judge."""
        return self.beams > 1 or self.on_unsafe != "auto" or self.judge_at is not None

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that an answer needs a model for, in the order in which they are opened."""
        needed = {"draft": True, "anchor": self.depth > 0, "judge": self.judged}
        return tuple(role for role, is_needed in needed.items() if is_needed)

    def model_named(self, role: str) -> str:
        """Raises: UsageError: no model is named for this role."""
        spec: str | None = getattr(self, role)
        if spec is None:
            raise UsageError(f"no {role} model is named", f"Give --{role} MODEL or --profile NAME.")
        return spec

    def cache_types(self, role: str) -> tuple[CacheType, CacheType]:
        """Types of the keys and of the values that this role keeps.

        The judge's stay what they were when its record was fitted: another rounding may move its scores.
        """
        return (_WHOLE, _WHOLE) if role == "judge" else (self.cache_type_k, self.cache_type_v)

    @property
    def gpu_shares(self) -> tuple[float, ...]:
        """What each GPU takes, in their order; empty if nothing was said."""
        return _parse_shares(self.tensor_split) if self.tensor_split is not None else ()

    @property
    def mixed_depth(self) -> int:
        """The number of mixed tokens: N, at most the answer's length."""
        return min(self.depth, self.max_tokens)


KNOBS = tuple(Config.model_fields)


def _parse_shares(text: str) -> tuple[float, ...]:
    """Raises: PydanticCustomError: not a list of shares, or all of them are 0."""
    try:
        shares = tuple(map(float, text.split(",")))
    except ValueError:
        shares = ()
    if not all(share == 0 or _LEAST_DIVISOR <= share <= _LARGEST_SHARE for share in shares) or not any(
        shares
    ):
        raise PydanticCustomError("shares", "these are no shares, such as 3,1")
    return shares


def by_name(values: Mapping[str, Any], source: str = "") -> dict[str, Any]:
    """Loose values by the names of their knobs: the paper's symbols are replaced.

    Raises:
        UsageError: a knob is given by both.
    """
    names = [ALIASES.get(key, key) for key in values]
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
    return UsageError(
        f"{_prefix(source)}{name} = {_shown(first['input'])}: {first['msg'].lower()}",
        f"{name}: {Config.model_fields[name].description}",
    )


def _shown(value: Any) -> str:
    """A value for a message, not all of it where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}..."


def _prefix(source: str) -> str:
    return f"{source}: " if source else ""
