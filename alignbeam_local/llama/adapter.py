"""LoRA adapters on loaded weights: they are the model's, and each context says how much of them counts."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ModelError
from .library import backend
from .threads import llama_cpp


class LoadedAdapter(NamedTuple):
    """An adapter's handle, which is freed with its model; the sha256 of its file; its scale."""

    handle: Any
    sha256: str
    scale: float

    @property
    def key(self) -> str:
        """What a context's numbers depend on."""
        return f"lora {self.sha256} x {self.scale!r}"


def load_adapter(model: Any, path: Path) -> Any:
    """The handle of an adapter on a model's handle.

    Raises:
        ModelError: llama.cpp refuses it.
    """
    messages = backend()
    messages.take()
    handle = llama_cpp.llama_adapter_lora_init(model, str(path).encode())
    if not handle:
        hint = messages.take() or "Does it belong to this model? See: alignbeam models inspect."
        raise ModelError(f"llama.cpp could not load the adapter {path}", hint)
    return handle


def set_adapters(context: Any, adapters: Sequence[LoadedAdapter]) -> None:
    """Let a context, which holds nothing yet, compute with these; one of scale 0 is left out.

    Raises:
        ModelError: llama.cpp can't.
    """
    wanted = [adapter for adapter in adapters if adapter.scale]
    if not wanted:
        return
    handles = (llama_cpp.llama_adapter_lora_p_ctypes * len(wanted))(*(one.handle for one in wanted))
    scales = (ctypes.c_float * len(wanted))(*(one.scale for one in wanted))
    if llama_cpp.llama_set_adapters_lora(context, handles, len(wanted), scales):
        raise ModelError("llama.cpp could not put the adapters on the model", backend().take())
