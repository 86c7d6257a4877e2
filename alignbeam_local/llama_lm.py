"""The only file that knows llama.cpp: weights, a context of many sequences, samplers, its vocabulary."""

import ctypes
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple

import llama_cpp
import numpy as np
import numpy.typing as npt
import psutil
from llama_cpp._ggml import libggml

from .cancellation import Cancellation
from .config import CacheType, FlashAttention
from .devices import ON_PROCESSOR, Gpu, Offload
from .errors import Cancelled, ContextFull, ModelError
from .lm import Logits, Sampler, SamplerSettings, SequenceState, common_prefix
from .vocabulary import Vocabulary

log = logging.getLogger("llama.cpp")
log.addHandler(logging.NullHandler())  # silent unless the application listens

BATCH_TOKENS = 512
_LEVELS = {2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}
_EMBEDDING_ARCHITECTURES = ("bert", "t5encoder", "embedding")
_ABORTED, _NO_SLOT = 2, 1
_GPU, _INTEGRATED_GPU = 1, 2
_FLASH_ATTENTION: dict[FlashAttention, int] = {
    "auto": llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


class ModelInfo(NamedTuple):
    """What a GGUF says of itself, as llama.cpp read it."""

    quantisation: str
    context_length: int
    chat_template: str | None


class _Log:
    """llama.cpp's messages into `logging`; the last errors are kept for our own."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.callback = llama_cpp.llama_log_callback(self._write)

    def _write(self, level: int, text: bytes, _: object) -> None:
        message = text.decode("utf-8", "replace").rstrip()
        if not message:
            return
        log.log(_LEVELS.get(level, logging.DEBUG), message)
        if level == 4:
            self.errors = [*self.errors[-4:], message]

    def take(self) -> str:
        """The errors since the last call, as one line."""
        errors, self.errors = self.errors, []
        return "; ".join(errors)


@cache
def _backend() -> _Log:
    """Start llama.cpp once a process; its log callback must live as long."""
    writer = _Log()
    llama_cpp.llama_log_set(writer.callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return writer


def build() -> str:
    """llama.cpp's version and the Python package's."""
    return f"{llama_cpp.llama_version().decode()} (llama-cpp-python {llama_cpp.__version__})"


def system_info() -> str:
    """The CPU features and backends that this build of llama.cpp uses."""
    _backend()
    return str(llama_cpp.llama_print_system_info().decode())


def supports_gpu() -> bool:
    """Whether this build can place layers on a GPU."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def gpus() -> list[Gpu]:
    """The devices that llama.cpp would place layers on, in its order: integrated ones if there are no others.

    Those of one backend only: a second one may show the same GPU again.
    """
    _backend()
    handles = [_device(index) for index in range(_ggml("ggml_backend_dev_count", ctypes.c_size_t))]
    for kind in (_GPU, _INTEGRATED_GPU):
        found = [index for index, handle in enumerate(handles) if _kind(handle) == kind]
        backends = [_ggml("ggml_backend_dev_backend_reg", ctypes.c_void_p, handles[index]) for index in found]
        if found:
            return [
                _gpu(index, handles[index])
                for index, backend in zip(found, backends, strict=True)
                if backend == backends[0]
            ]
    return []


def _gpu(index: int, handle: ctypes.c_void_p) -> Gpu:
    name = _ggml("ggml_backend_dev_name", ctypes.c_char_p, handle).decode("utf-8", "replace")
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _ggml("ggml_backend_dev_memory", None, handle, ctypes.byref(free), ctypes.byref(total))
    if not total.value:  # it does not tell: llama.cpp takes the machine's for it
        free.value, total.value = (getattr(psutil.virtual_memory(), m) for m in ("available", "total"))
    is_host_memory = sys.platform == "darwin" or _kind(handle) == _INTEGRATED_GPU
    return Gpu(index, name, free.value, total.value, is_host_memory)


def _kind(handle: ctypes.c_void_p) -> int:
    return int(_ggml("ggml_backend_dev_type", ctypes.c_int, handle))


def _device(index: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(_ggml("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t(index)))


def _ggml(name: str, returns: Any, *arguments: Any) -> Any:
    """Call a function that the Python package loads and does not declare."""
    function = getattr(libggml, name)
    function.restype = returns
    return function(*arguments)


def default_threads() -> int:
    """Physical cores: more threads than these slow a decode down."""
    return psutil.cpu_count(logical=False) or 1


def _set_fields(params: Any, **values: Any) -> Any:
    """Set fields of a ctypes struct; a misspelt name, which ctypes would accept, is an error."""
    known = {name for name, *_ in params._fields_}
    for name, value in values.items():
        assert name in known, f"llama.cpp has no parameter {name}"
        setattr(params, name, value)
    return params


def _ggml_type(name: CacheType) -> int:
    from gguf.constants import GGMLQuantizationType

    return int(GGMLQuantizationType[name.upper()])


class LlamaTokeniser:
    """A vocabulary of llama.cpp; borrowed from its weights."""

    def __init__(self, weights: "LlamaWeights") -> None:
        self._weights = weights  # keeps the borrowed pointer alive
        self._vocab = llama_cpp.llama_model_get_vocab(weights.handle)
        self.size = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
        self.bos = self._token(llama_cpp.llama_vocab_bos)
        self.eos = self._token(llama_cpp.llama_vocab_eos)
        self.eot = self._token(llama_cpp.llama_vocab_eot)
        self.add_bos = bool(llama_cpp.llama_vocab_get_add_bos(self._vocab))

    def _token(self, getter: Any) -> int | None:
        token = int(getter(self._vocab))
        return token if token >= 0 else None

    @cached_property
    def _special_tokens(self) -> list[tuple[int, int]]:
        mask = (
            llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
            | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
            | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
        )
        attributes = ((t, llama_cpp.llama_vocab_get_attr(self._vocab, t)) for t in range(self.size))
        return [(token, attribute) for token, attribute in attributes if attribute & mask]

    @cached_property
    def control_tokens(self) -> frozenset[int]:
        mask = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
        return frozenset(token for token, attribute in self._special_tokens if attribute & mask)

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        candidates = {token for token, _ in self._special_tokens}
        candidates |= {token for token in (self.eos, self.eot) if token is not None}
        return frozenset(t for t in candidates if llama_cpp.llama_vocab_is_eog(self._vocab, t))

    def text(self, token: int) -> str:
        """How a token is spelt in the vocabulary, control tokens included."""
        return str(llama_cpp.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace"))

    def piece(self, token: int) -> bytes:
        size = 32
        while True:  # some pieces are longer than any fixed buffer
            buffer = ctypes.create_string_buffer(size)
            length = int(llama_cpp.llama_token_to_piece(self._vocab, token, buffer, size, 0, False))
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def encode(self, text: bytes, parse_special: bool) -> list[int]:
        size = len(text) + 8
        while True:
            ids = (llama_cpp.llama_token * size)()
            count = int(
                llama_cpp.llama_tokenize(self._vocab, text, len(text), ids, size, False, parse_special)
            )
            if count >= 0:
                return ids[:count]
            size = -count


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
        messages = _backend()
        messages.take()
        # Repacked weights are copies: beneath them a memory map would hold everything twice.
        copies = use_extra_bufts and offload.layers == 0 and not vocab_only
        devices = (ctypes.c_void_p * (len(offload.devices) + 1))(*map(_device, offload.devices))
        shares = (ctypes.c_float * llama_cpp.llama_max_devices())(*offload.shares)
        params = _set_fields(
            llama_cpp.llama_model_default_params(),
            n_gpu_layers=offload.layers,
            devices=ctypes.addressof(devices) if offload.devices else None,
            tensor_split=shares,
            load_mode=llama_cpp.LLAMA_LOAD_MODE_NONE if copies else llama_cpp.LLAMA_LOAD_MODE_MMAP,
            use_extra_bufts=use_extra_bufts,
            vocab_only=vocab_only,
            progress_callback=keep_loading,
        )
        self.path = path
        self.offload = offload
        self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            cancelled.check()
            raise ModelError(f"llama.cpp could not load {path}", messages.take() or "Is the file whole?")
        self.vocabulary = Vocabulary(LlamaTokeniser(self))
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
    def rewinds(self) -> bool:
        """Whether a sequence's end can be cut off in the cache."""
        handle = self.handle
        return not (llama_cpp.llama_model_is_recurrent(handle) or llama_cpp.llama_model_is_hybrid(handle))

    def _refuse_other_kinds(self) -> None:
        architecture = self.metadata("general.architecture")
        embeds = any(name in architecture for name in _EMBEDDING_ARCHITECTURES)
        embeds = embeds or bool(self.metadata(f"{architecture}.pooling_type"))
        if embeds or not llama_cpp.llama_model_has_decoder(self.handle):
            self.close()
            raise ModelError(f"{self.path} is an embedding model", "Take one that generates text.")

    def close(self) -> None:
        """Free the weights; contexts on them must be closed before."""
        if self.handle:
            llama_cpp.llama_model_free(self.handle)
            self.handle = None


def load_vocabulary(path: Path) -> tuple[Vocabulary, str | None]:
    """The vocabulary and the chat template of a GGUF file; without weights, and kept to the process's end."""
    weights = LlamaWeights(path, vocab_only=True)
    return weights.vocabulary, weights.info.chat_template


class _Batch:
    """A llama_batch on numpy arrays, so that a long prefill is filled without a Python loop."""

    def __init__(self, capacity: int) -> None:
        self.token = np.zeros(capacity, np.int32)
        self.position = np.zeros(capacity, np.int32)
        self.sequence = np.zeros(capacity, np.int32)
        self.wants_logits = np.zeros(capacity, np.int8)
        self._ones = np.ones(capacity, np.int32)
        self._sequence_pointers = self.sequence.ctypes.data + 4 * np.arange(capacity, dtype=np.uintp)
        self._struct = llama_cpp.llama_batch()
        kinds: dict[str, Any] = {field[0]: field[1] for field in llama_cpp.llama_batch._fields_}
        for name, array in (
            ("token", self.token),
            ("pos", self.position),
            ("n_seq_id", self._ones),
            ("seq_id", self._sequence_pointers),
            ("logits", self.wants_logits),
        ):
            setattr(self._struct, name, ctypes.cast(array.ctypes.data, kinds[name]))

    def fill(self, rows: npt.NDArray[np.int32]) -> Any:
        """Take rows of (token, position, sequence, wants_logits); returns the struct for llama_decode."""
        count = len(rows)
        self.token[:count], self.position[:count] = rows[:, 0], rows[:, 1]
        self.sequence[:count], self.wants_logits[:count] = rows[:, 2], rows[:, 3]
        self._struct.n_tokens = count
        return self._struct


def sampler_chain(settings: SamplerSettings, vocabulary_size: int) -> Any:
    """A chain in C: penalties, top_p, temperature, dist; greedy at temperature 0. Whoever asked frees it."""
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    for sampler in _samplers(settings, vocabulary_size):
        llama_cpp.llama_sampler_chain_add(chain, sampler)
    return chain


def _samplers(settings: SamplerSettings, vocabulary_size: int) -> Iterator[Any]:
    if settings.repeat_penalty != 1.0:
        yield llama_cpp.llama_sampler_init_penalties(
            vocabulary_size, settings.penalty_last_n, settings.repeat_penalty, 0.0, 0.0
        )
    if settings.temperature == 0:
        yield llama_cpp.llama_sampler_init_greedy()
        return
    if settings.top_p < 1.0:
        yield llama_cpp.llama_sampler_init_top_p(settings.top_p, 1)
    yield llama_cpp.llama_sampler_init_temp(settings.temperature)
    yield llama_cpp.llama_sampler_init_dist(settings.seed)


class LlamaSampler:
    """A chain that samples from a context's rows."""

    def __init__(self, model: "LlamaLM", settings: SamplerSettings) -> None:
        self._model = model
        self._chain = sampler_chain(settings, model.vocabulary.size)

    def accept(self, token: int) -> None:
        llama_cpp.llama_sampler_accept(self._chain, token)

    def sample(self, sequence: int) -> int:
        return self._model.sample(self._chain, sequence)

    def close(self) -> None:
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None


def _sample_row(chain: Any, row: Logits) -> int:
    """What `llama_sampler_sample` does with a row of a batch, for a copy of one."""
    candidates = np.zeros(len(row), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    candidates["id"], candidates["logit"] = np.arange(len(row)), row
    data = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
    array = llama_cpp.llama_token_data_array(data=data, size=len(row), selected=-1, sorted=False)
    llama_cpp.llama_sampler_apply(chain, ctypes.byref(array))
    token = int(array.data[array.selected].id)
    llama_cpp.llama_sampler_accept(chain, token)
    return token


class LlamaLM:
    """One context on some weights: `LanguageModel` on llama.cpp.

    `kv_strategy` is `seq` (forks share cells, rewinds cut them) or `state` (forks and rewinds are saved
    states), for models whose cache can't be cut.
    """

    def __init__(
        self,
        weights: LlamaWeights,
        *,
        sha256: str,
        num_sequences: int,
        num_cells: int,
        threads: int,
        kv_strategy: Literal["auto", "seq", "state"] = "auto",
        flash_attn: FlashAttention = "auto",
        cache_types: tuple[CacheType, CacheType] = ("f16", "f16"),
        cancellation: Cancellation | None = None,
    ) -> None:
        """Make the context.

        Args:
            cache_types: of the cached keys and values.

        Raises:
            ModelError: llama.cpp can't (most often: not enough memory), or `seq` is forced on a model
                whose cache can't be rewound, or the model's heads are no multiple of the cache type's block.
        """
        if kv_strategy == "seq" and not weights.rewinds:
            raise ModelError(f"{weights.path.name} can't rewind its cache", "Leave --kv at auto.")
        self.weights = weights
        self.vocabulary = weights.vocabulary
        self.kv_strategy: Literal["seq", "state"] = (
            kv_strategy if kv_strategy != "auto" else "seq" if weights.rewinds else "state"
        )
        self.decoded_tokens = self.decodes = 0
        self.compute_seconds = 0.0
        self._cancellation = cancellation or Cancellation()
        self.handle = self._open(
            n_ctx=num_cells,
            n_seq_max=num_sequences,
            n_outputs_max=num_sequences,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn_type=_FLASH_ATTENTION[flash_attn],
            type_k=_ggml_type(cache_types[0]),
            type_v=_ggml_type(cache_types[1]),
        )
        self._memory = llama_cpp.llama_get_memory(self.handle)
        self.num_sequences = int(llama_cpp.llama_n_seq_max(self.handle))
        self.num_cells = int(llama_cpp.llama_n_ctx(self.handle))
        cache = f"unified|{'/'.join(cache_types)}|flash {flash_attn}|{weights.offload.layers} layers on GPUs"
        self.state_key = f"{sha256}|{build()}|{cache}|{self.kv_strategy}|{self._rope_factors()}"
        self._batch_tokens = int(llama_cpp.llama_n_batch(self.handle))  # a small context has a smaller one
        self._batch = _Batch(self._batch_tokens)
        self._tokens: list[list[int]] = [[] for _ in range(self.num_sequences)]
        self._checkpoints: dict[int, SequenceState] = {}
        self._rows: dict[int, int] = {}
        self._copied_rows: dict[int, Logits] = {}

    def _open(self, **wanted: Any) -> Any:
        most = int(llama_cpp.llama_max_parallel_sequences())
        if wanted["n_seq_max"] > most:
            raise ModelError(
                f"{wanted['n_seq_max']} sequences are wanted, llama.cpp holds {most}",
                "Lower --parallel or --beams.",
            )
        params = _set_fields(
            llama_cpp.llama_context_default_params(),
            n_batch=BATCH_TOKENS,
            n_ubatch=BATCH_TOKENS,
            kv_unified=True,  # seq_cp then marks cells instead of copying them
            no_perf=True,
            **wanted,
        )
        messages = _backend()
        messages.take()
        handle = llama_cpp.llama_init_from_model(self.weights.handle, params)
        if not handle:
            raise ModelError(
                f"llama.cpp could not make a context of {params.n_ctx} tokens for {self.weights.path.name}",
                messages.take() or "Lower --context, --max-tokens or --beams.",
            )
        # strlen is true of a non-empty string: a callback in C, so that no graph node waits for Python.
        abort = ctypes.cast(ctypes.CDLL(None).strlen, llama_cpp.ggml_abort_callback)
        llama_cpp.llama_set_abort_callback(handle, abort, ctypes.c_void_p(self._cancellation.address))
        return handle

    def _rope_factors(self) -> str:
        """Some models place tokens otherwise in a context longer than they were first trained for."""
        architecture = self.weights.metadata("general.architecture")
        original = self.weights.metadata(f"{architecture}.rope.scaling.original_context_length")
        return "long" if original and self.num_cells > int(original) else "short"

    # --- decoding

    def tokens(self, sequence: int) -> Sequence[int]:
        return self._tokens[sequence]

    def extend(self, tails: Mapping[int, Sequence[int]]) -> None:
        self._cancellation.check()
        self._rows, self._copied_rows = {}, {}
        rows = np.concatenate([self._batch_rows(sequence, tail) for sequence, tail in tails.items()])
        try:
            for start in range(0, len(rows), self._batch_tokens):
                self._copied_rows |= {s: self.logits(s).copy() for s in self._rows}
                self._decode(rows[start : start + self._batch_tokens])
        except BaseException:
            for sequence in tails:
                self._cut(sequence, len(self._tokens[sequence]))
            raise
        for sequence, tail in tails.items():
            self._tokens[sequence].extend(tail)
        self.decoded_tokens += len(rows)

    def _batch_rows(self, sequence: int, tail: Sequence[int]) -> npt.NDArray[np.int32]:
        rows = np.zeros((len(tail), 4), np.int32)
        start = len(self._tokens[sequence])
        rows[:, 0] = tail
        rows[:, 1] = np.arange(start, start + len(tail))
        rows[:, 2] = sequence
        rows[-1, 3] = 1
        return rows

    def _decode(self, rows: npt.NDArray[np.int32]) -> None:
        self._rows = {}
        batch, start = self._batch.fill(rows), perf_counter()
        code = llama_cpp.llama_decode(self.handle, batch)
        self.compute_seconds += perf_counter() - start
        self.decodes += 1
        if code == _ABORTED or self._cancellation.is_set:
            raise Cancelled("cancelled")
        if code == _NO_SLOT:
            raise self._full()
        if code != 0:
            raise ModelError(f"llama.cpp failed to decode (code {code})", _backend().take())
        self._rows = {int(rows[i, 2]): int(i) for i in np.flatnonzero(rows[:, 3])}

    def _full(self) -> ContextFull:
        return ContextFull(
            f"the conversation does not fit: {self.num_cells} cells are full",
            "Raise --context, or lower --max-tokens or --beams.",
        )

    def set_tokens(self, targets: Mapping[int, Sequence[int]]) -> None:
        tails = {}
        for sequence, ids in targets.items():
            keep = min(common_prefix(self._tokens[sequence], ids), len(ids) - 1)
            tails[sequence] = ids[self._rewind(sequence, keep) :]
        self.extend(tails)

    def logits(self, sequence: int) -> Logits:
        if sequence in self._copied_rows:
            return self._copied_rows[sequence]
        pointer = llama_cpp.llama_get_logits_ith(self.handle, self._rows[sequence])
        assert pointer, "llama.cpp has no logits for this row"
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary.size,))

    def sample(self, chain: Any, sequence: int) -> int:
        """Draw from the sequence's latest row by a chain, which accepts the token drawn."""
        start, copied = perf_counter(), self._copied_rows.get(sequence)
        if copied is None:
            token = int(llama_cpp.llama_sampler_sample(chain, self.handle, self._rows[sequence]))
        else:
            token = _sample_row(chain, copied)
        self.compute_seconds += perf_counter() - start
        return token

    def sampler(self, settings: SamplerSettings) -> Sampler:
        return LlamaSampler(self, settings)

    # --- cache

    def fork(self, source: int, targets: Iterable[int]) -> None:
        state = self.save(source) if self.kv_strategy == "state" else None
        for target in targets:
            if state is not None:
                self.restore(target, state)
            else:
                self._cut(target, 0)
                llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)
                self._tokens[target] = list(self._tokens[source])
            if source in self._checkpoints:
                self._checkpoints[target] = self._checkpoints[source]

    def truncate(self, sequence: int, length: int) -> None:
        wanted = self._tokens[sequence][:length]
        kept = self._rewind(sequence, length)
        if kept < length:
            self.extend({sequence: wanted[kept:]})

    def checkpoint(self, sequence: int) -> None:
        if self.kv_strategy == "state":
            self._checkpoints[sequence] = self.save(sequence)

    def _rewind(self, sequence: int, length: int) -> int:
        """Drop what follows `length`, or more where the cache can't be cut there; returns what was kept."""
        if length >= len(self._tokens[sequence]):
            return length
        if self.kv_strategy == "seq":
            self._cut(sequence, length)
            return len(self._tokens[sequence])
        saved, wanted = self._checkpoints.get(sequence), tuple(self._tokens[sequence][:length])
        if saved is not None and saved.tokens == wanted[: len(saved.tokens)]:
            self.restore(sequence, saved)
        else:
            self._cut(sequence, 0)
        return len(self._tokens[sequence])

    def _cut(self, sequence: int, length: int) -> None:
        """Remove cells from `length` on; all of them where only part can't be removed."""
        if not llama_cpp.llama_memory_seq_rm(self._memory, sequence, length, -1):
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            length = 0
        del self._tokens[sequence][length:]
        self._rows.pop(sequence, None)
        self._copied_rows.pop(sequence, None)

    def save(self, sequence: int) -> SequenceState:
        size = int(llama_cpp.llama_state_seq_get_size(self.handle, sequence))
        buffer = (ctypes.c_uint8 * size)()
        written = int(llama_cpp.llama_state_seq_get_data(self.handle, buffer, size, sequence))
        if written != size:
            raise ModelError(f"llama.cpp saved {written} of {size} bytes of a sequence", _backend().take())
        at_hand = sequence in self._rows or sequence in self._copied_rows
        return SequenceState(
            key=self.state_key,
            tokens=tuple(self._tokens[sequence]),
            blob=bytes(buffer),
            logits=self.logits(sequence).copy() if at_hand else None,
        )

    def restore(self, sequence: int, state: SequenceState) -> None:
        if state.key != self.state_key:
            raise ModelError("a saved state belongs to another model or build", "Prefill again.")
        self._cut(sequence, 0)
        blob = (ctypes.c_uint8 * len(state.blob)).from_buffer_copy(state.blob)
        read = int(llama_cpp.llama_state_seq_set_data(self.handle, blob, len(state.blob), sequence))
        if not read or read != len(state.blob):
            self._cut(sequence, 0)
            if not read and sum(map(len, self._tokens)) + len(state.tokens) > self.num_cells:
                raise self._full()
            raise ModelError(f"llama.cpp restored {read} of {len(state.blob)} bytes", _backend().take())
        self._tokens[sequence] = list(state.tokens)
        if state.logits is not None:
            self._copied_rows[sequence] = state.logits

    def close(self) -> None:
        if self.handle:
            llama_cpp.llama_free(self.handle)
            self.handle = None
