"""A LoRA adapter as a GGUF file that llama.cpp loads beside its base."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ModelError
from ...models.adapter import BASE_SHA256
from ...models.gguf_header import parts_of
from ...models.gguf_reader import read_contents
from ...paths import replacing
from .peft_folder import Array, PeftAdapter

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")

_PLACES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
#: Where the input is as wide as the model, and where the output is.
_READS_WIDTH = ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")
_OTHER_BASE = "Give the GGUF file of the model that the adapter was trained on."


class BaseModel:
    """What of a base's GGUF file its adapter must fit."""

    def __init__(self, path: Path, sha256: str) -> None:
        """Read the header of a file that is known by this hash.

        Raises:
            ModelError: it is no whole GGUF file, or of an architecture that no adapter is exported for.
        """
        parts = [read_contents(part) for part in parts_of(path)]
        self.path, self.sha256 = path, sha256
        self._fields: Mapping[str, Any] = parts[0].fields
        self.name = str(self._fields.get("general.name", ""))
        self.architecture = str(self._fields.get("general.architecture", ""))
        if self.architecture not in ARCHITECTURES:
            raise ModelError(
                f"{path} is of the architecture {self.architecture[:64]!r}",
                f"Adapters are trained and exported for {', '.join(ARCHITECTURES)}.",
            )
        self.elements = {tensor.name: tensor.elements for part in parts for tensor in part.tensors}
        self.width = self._number("embedding_length")

    def heads(self, place: str) -> int:
        """How many heads the rows of q or of k are of."""
        queries = self._number("attention.head_count")
        if place == "attn_q":
            return queries
        shared = f"{self.architecture}.attention.head_count_kv"
        return self._number("attention.head_count_kv") if shared in self._fields else queries

    def shape(self, module: str, layer: int) -> tuple[int, int] | None:
        """Outputs and inputs of a layer's matrix, by its name in transformers; None: the file has none."""
        place = _PLACES[module]
        other = self.elements.get(f"blk.{layer}.{place}.weight", 0) // self.width
        if not other:
            return None
        return (other, self.width) if place in _READS_WIDTH else (self.width, other)

    def _number(self, name: str) -> int:
        value = self._fields.get(f"{self.architecture}.{name}")
        if not isinstance(value, int) or value < 1:
            raise ModelError(f"{self.path} does not say its {name}", _OTHER_BASE)
        return value


def write_adapter(path: Path, adapter: PeftAdapter, base: BaseModel, name: str) -> None:
    """Write the adapter's file, whole or not at all.

    Raises:
        ModelError: the adapter does not fit the base.
        OSError: it can't be written.
    """
    tensors = dict(_tensors(adapter, base))
    with replacing(path) as temporary:
        _write(temporary, tensors, adapter.alpha, base, name)


def _write(path: Path, tensors: Mapping[str, Array], alpha: float, base: BaseModel, name: str) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, base.architecture)
    try:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_name(name)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        writer.add_string(BASE_SHA256, base.sha256)
        for key, value in tensors.items():
            writer.add_tensor(key, value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _tensors(adapter: PeftAdapter, base: BaseModel) -> Iterator[tuple[str, Array]]:
    for name, (a, b) in adapter.pairs.items():
        _, number, module = name.split(".", 2)
        place = _PLACES.get(module)
        if place is None:
            raise ModelError(f"the adapter changes {name}, which cannot be exported", "Leave it out.")
        weight = f"blk.{number}.{place}.weight"
        _require_fit(weight, place, a, b, base)
        yield f"{weight}.lora_a", np.ascontiguousarray(a, np.float32)
        yield f"{weight}.lora_b", np.ascontiguousarray(_placed(b, place, base), np.float32)


def _require_fit(weight: str, place: str, a: Array, b: Array, base: BaseModel) -> None:
    width = a.shape[1] if place in _READS_WIDTH else b.shape[0]
    if base.elements.get(weight) != a.shape[1] * b.shape[0] or width != base.width:
        raise ModelError(
            f"the adapter does not fit {base.path}: its update of {weight} is {b.shape[0]} x {a.shape[1]}",
            _OTHER_BASE,
        )


def _placed(b: Array, place: str, base: BaseModel) -> Array:
    """B with its rows where llama.cpp has those of the weight: a llama's q and k are stored permuted."""
    if base.architecture != "llama" or place not in ("attn_q", "attn_k"):
        return b
    heads = base.heads(place)
    if b.shape[0] % (2 * heads):
        raise ModelError(f"the rows of {place} are not of {heads} heads", _OTHER_BASE)
    return b.reshape(heads, 2, b.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(b.shape)
