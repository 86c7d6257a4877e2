"""Where models run, and in how much memory."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ..placing import Server, parse_gpus, parse_servers
from ..roles import part_of
from .knob import Knob, knob
from .values import MOST_TOKENS, as_none, one_text_or_a_list, parse_shares

KvStrategy = Literal["auto", "seq", "state"]
Kept = Literal["none", "examples", "all"]
FlashAttention = Literal["auto", "on", "off"]
SplitMode = Literal["layer", "row", "tensor"]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]

#: The most threads that llama.cpp has room for: with more it ends the process.
_MOST_THREADS = 512
_MOST_LAYERS = 65_536
_MOST_GPUS = 256
_WHOLE: CacheType = "f16"
_UNQUANTISED = ("f32", "f16", "bf16")


class MachineKnobs(BaseModel):
    """This machine, its GPUs, and servers that take layers."""

    context: Annotated[int, Field(ge=128, le=MOST_TOKENS)] = knob(
        4096, "tokens of one beam's conversation", Knob("Machine", ("loads", "sizes"))
    )
    threads: Annotated[int, Field(ge=0, le=_MOST_THREADS)] = knob(
        0, "CPU threads; 0 = physical cores", Knob("Machine", ("loads",))
    )
    parallel: Annotated[int, Field(ge=1, le=64)] = knob(
        1,
        "how many prompts share batches, in filter and eval run; each needs memory of its own",
        Knob("Machine", ("loads",)),
    )
    gpu_layers: Annotated[int, Field(ge=0, le=_MOST_LAYERS)] | Literal["auto", "all"] = knob(
        "auto",
        "layers of each model on the GPU: a number, all, or auto: as many as fit, "
        "the anchor's first, then the draft's, then the judge's",
        Knob("Machine", ("loads", "places", "sizes")),
    )
    main_gpu: Annotated[int, Field(ge=0, lt=_MOST_GPUS)] | None = knob(
        None,
        "the one GPU that takes them, by its number; none = every GPU",
        Knob("Machine", ("loads", "places", "sizes")),
    )
    tensor_split: str | None = knob(
        None,
        "what each GPU takes of them, as 3,1; none = as much as it has free",
        Knob("Machine", ("loads", "places", "sizes")),
    )
    draft_gpu: str | None = knob(
        None,
        "the GPUs that take the draft's layers, by number, as 0 or 0,1; or cpu, none of them; "
        "none = as main_gpu and tensor_split say",
        Knob("Machine", ("loads", "places", "sizes")),
    )
    anchor_gpu: str | None = knob(
        None, "the GPUs that take the anchor's, likewise", Knob("Machine", ("loads", "places", "sizes"))
    )
    judge_gpu: str | None = knob(
        None, "the GPUs that take the judge's, likewise", Knob("Machine", ("loads", "places", "sizes"))
    )
    split_mode: SplitMode = knob(
        "layer",
        "how several GPUs share a model: whole layers each (layer), or a part of every layer, as llama.cpp's "
        "modes row and tensor have it",
        Knob("Machine", ("loads", "places", "sizes")),
    )
    rpc: tuple[str, ...] = knob(
        (),
        "RPC servers of llama.cpp that take layers too, each HOST:PORT, or ROLE=HOST:PORT for one role; "
        "only on a network that you trust; the flag can be repeated; none = this machine alone",
        Knob("Machine", ("loads", "places", "sizes")),
    )
    flash_attn: FlashAttention = knob(
        "auto", "flash attention: on, off, or where it can run", Knob("Machine", ("loads", "sizes"))
    )
    cache_type_k: CacheType = knob(
        _WHOLE,
        f"type of the cached keys of draft and anchor; the judge's are {_WHOLE}",
        Knob("Machine", ("loads", "sizes")),
    )
    cache_type_v: CacheType = knob(
        _WHOLE,
        "type of the cached values, likewise; a quantised type needs flash attention",
        Knob("Machine", ("loads", "sizes")),
    )
    kv: KvStrategy = knob(
        "auto",
        "how beams fork: shared cells (seq), saved states (state), or what the model allows",
        Knob("Machine", ("loads",)),
    )
    prompt_cache: Kept = knob(
        "examples",
        "what is cached on disk for the next run: none; the judge's worked "
        "examples; or all: also what draft and anchor read before a prompt (system prompts)",
        Knob("Machine", ("loads", "shared")),
    )

    _none_of_machine = field_validator(
        "main_gpu", "tensor_split", "draft_gpu", "anchor_gpu", "judge_gpu", mode="before"
    )(as_none)
    _rpc_servers = field_validator("rpc", mode="before")(one_text_or_a_list)

    @field_validator("gpu_layers", mode="before")
    @classmethod
    def _as_llama_cpp_counts(cls, value: Any) -> Any:
        return "auto" if value in (-1, "-1") else value

    @field_validator("tensor_split")
    @classmethod
    def _shares_of_gpus(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            parse_shares(value)
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

    def cache_types(self, role: str) -> tuple[CacheType, CacheType]:
        """Types of the keys and of the values that this role keeps.

        The judge's stay what they were when its record was fitted: another rounding may move its scores.
        """
        return (_WHOLE, _WHOLE) if role == "judge" else (self.cache_type_k, self.cache_type_v)

    @property
    def gpu_shares(self) -> tuple[float, ...]:
        """What each GPU takes, in their order; empty if nothing was said."""
        return parse_shares(self.tensor_split) if self.tensor_split is not None else ()

    def gpus_of(self, role: str) -> tuple[int, ...] | None:
        """The numbers of the GPUs that were named for this role; None: none was, and `cpu` is empty."""
        text: str | None = getattr(self, f"{part_of(role)}_gpu", None)
        return None if text is None else parse_gpus(text)

    @property
    def servers(self) -> tuple[Server, ...]:
        """The RPC servers that were named."""
        return parse_servers(self.rpc)
