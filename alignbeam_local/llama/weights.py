"""A GGUF file, loaded."""

import ctypes
from pathlib import Path
from typing import Any, NamedTuple

from ..cancellation import Cancellation
from ..errors import ModelError
from ..knobs.machine import SplitMode
from ..lm.devices import ON_PROCESSOR, Offload
from ..lm.vocabulary import Vocabulary
from ..models.gguf_header import makes_embeddings
from .adapter import LoadedAdapter, load_adapter
from .library import backend, set_fields
from .rpc import device_handle
from .threads import llama_cpp
from .tokeniser import LlamaTokeniser

_SPLIT_MODES: dict[SplitMode, int] = {
    "layer": llama_cpp.LLAMA_SPLIT_MODE_LAYER,
    "row": llama_cpp.LLAMA_SPLIT_MODE_ROW,
    "tensor": llama_cpp.LLAMA_SPLIT_MODE_TENSOR,
}


class ModelInfo(NamedTuple):
    """What a GGUF says of itself, as llama.cpp read it."""

    quantisation: str
    context_length: int
    chat_template: str | None


class LlamaWeights:
    """A loaded GGUF file. Several contexts may share one; the owner closes it after them."""

    def __init__(
        self,
        path: Path,
        *,
        offload: Offload = ON_PROCESSOR,
        use_extra_bufts: bool = True,
        vocab_only: bool = False,
        cancellation: Cancellation | None = None,
    ) -> None:
        """Load the file.

        Raises:
            ModelError: llama.cpp can't read it, or it is no model that generates text.
            Cancelled: the user stopped it.
        """
        cancelled = cancellation or Cancellation()
        keep_loading = llama_cpp.llama_progress_callback(lambda *_: not cancelled.is_set)
        messages = backend()
        messages.take()
        # Repacked weights are copies: beneath them a memory map would hold everything twice.
        copies = use_extra_bufts and offload.layers == 0 and not vocab_only
        devices = (ctypes.c_void_p * (len(offload.devices) + 1))(*map(device_handle, offload.devices))
        shares = (ctypes.c_float * llama_cpp.llama_max_devices())(*offload.shares)
        params = set_fields(
            llama_cpp.llama_model_default_params(),
            n_gpu_layers=offload.layers,
            split_mode=_SPLIT_MODES[offload.split],
            devices=ctypes.addressof(devices),  # none is no device, not every one
            tensor_split=shares,
            load_mode=llama_cpp.LLAMA_LOAD_MODE_NONE if copies else llama_cpp.LLAMA_LOAD_MODE_MMAP,
            use_extra_bufts=use_extra_bufts,
            vocab_only=vocab_only,
            progress_callback=keep_loading,
        )
        self.path = path
        self.offload = offload
        self._adapters: dict[str, Any] = {}  # handles by sha256: freed with the model, loaded once
        self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            cancelled.check()
            raise ModelError(f"llama.cpp could not load {path}", messages.take() or "Is the file whole?")
        self.vocabulary = Vocabulary(LlamaTokeniser(self.handle, self))
        if not vocab_only:
            self._refuse_other_kinds()

    @property
    def info(self) -> ModelInfo:
        template = llama_cpp.llama_model_chat_template(self.handle, None)
        return ModelInfo(
            quantisation=llama_cpp.llama_ftype_name(llama_cpp.llama_model_ftype(self.handle)).decode(),
            context_length=int(llama_cpp.llama_model_n_ctx_train(self.handle)),
            chat_template=template.decode("utf-8", "replace") if template else None,
        )

    def metadata(self, key: str) -> str:
        """A value of the header as text, empty if absent."""
        buffer = ctypes.create_string_buffer(256)
        length = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else ""

    @property
    def saves(self) -> bool:
        """Whether the states of contexts can be saved: llama.cpp ends the process where a server has them."""
        return not self.offload.servers

    @property
    def rewinds(self) -> bool:
        """Whether a sequence's end can be cut off in the cache."""
        handle = self.handle
        return not (llama_cpp.llama_model_is_recurrent(handle) or llama_cpp.llama_model_is_hybrid(handle))

    def adapter(self, path: Path, sha256: str, scale: float) -> LoadedAdapter:
        """A LoRA adapter for contexts on these weights. Raises: ModelError: llama.cpp refuses it."""
        if sha256 not in self._adapters:
            self._adapters[sha256] = load_adapter(self.handle, path)
        return LoadedAdapter(self._adapters[sha256], sha256, scale)

    def forget_adapter(self, sha256: str) -> None:
        """Load it anew the next time: the file was not the one of this hash."""
        self._adapters.pop(sha256, None)

    def _refuse_other_kinds(self) -> None:
        architecture = self.metadata("general.architecture")
        pooling = self.metadata(f"{architecture}.pooling_type")
        embeds = makes_embeddings(architecture, int(pooling) if pooling.isdecimal() else 0)
        if embeds or not llama_cpp.llama_model_has_decoder(self.handle):
            self.close()
            raise ModelError(f"{self.path} is an embedding model", "Take one that generates text.")

    def close(self) -> None:
        """Free the weights; contexts on them must be closed before."""
        if self.handle:
            self._adapters = {}
            llama_cpp.llama_model_free(self.handle)
            self.handle = None


def load_vocabulary(path: Path) -> tuple[Vocabulary, str | None]:
    """The vocabulary and the chat template of a GGUF file; without weights, and kept to the process's end."""
    weights = LlamaWeights(path, vocab_only=True)
    return weights.vocabulary, weights.info.chat_template
