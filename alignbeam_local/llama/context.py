"""One context of many sequences: `LanguageModel` on llama.cpp."""

import ctypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..cancellation import Cancellation
from ..errors import Cancelled, ContextFull, ModelError
from ..knobs.machine import CacheType, FlashAttention
from ..lm.language_model import Hidden, Logits, Sampler, SamplerSettings, SequenceState, common_prefix
from ..lm.sequences import BATCH_TOKENS
from ..lm.starvation import Starvation
from .adapter import LoadedAdapter, set_adapters
from .batch import Batch
from .grammar import GrammarSampler
from .layer_tap import LayerTap
from .library import backend, build, c_library, require_countable, set_fields
from .sampler import LlamaSampler, sample_row
from .threads import llama_cpp
from .weights import LlamaWeights

_ABORTED, _NO_SLOT = 2, 1
_FLASH_ATTENTION: dict[FlashAttention, int] = {
    "auto": llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


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
        adapters: Sequence[LoadedAdapter] = (),
        cancellation: Cancellation | None = None,
        starvation: Starvation | None = None,
        reads_layers: bool = False,
    ) -> None:
        """Make the context.

        Args:
            adapters: of these weights: they change what this context computes, and no other's.
            cache_types: of the cached keys and values.
            starvation: is told of every decode that the processor makes alone.
            reads_layers: for `read_at`; it makes no answers then.

        Raises:
            ModelError: llama.cpp can't (most often: not enough memory), or `seq` is forced on a model
                whose cache can't be rewound, or the model's heads are no multiple of the cache type's block.
        """
        if kv_strategy == "seq" and not weights.rewinds:
            raise ModelError(f"{weights.path.name} can't rewind its cache", "Leave --kv at auto.")
        if not weights.saves and not weights.rewinds:
            raise ModelError(
                f"{weights.path.name} can't rewind its cache, and llama.cpp saves no states over RPC",
                "Keep its layers on this machine: name other roles in --rpc ROLE=HOST:PORT.",
            )
        self.weights = weights
        self.vocabulary = weights.vocabulary
        self.kv_strategy: Literal["seq", "state"] = (
            kv_strategy if kv_strategy != "auto" else "seq" if weights.rewinds else "state"
        )
        self.decoded_tokens = self.decodes = 0
        self.compute_seconds = 0.0
        self._cancellation = cancellation or Cancellation()
        self._starvation = starvation if starvation and not weights.offload.layers else Starvation()
        self._threads = threads
        self._tap = LayerTap() if reads_layers else None
        self.handle = self._open(
            n_ctx=num_cells,
            n_seq_max=num_sequences,
            n_outputs_max=num_sequences,
            n_threads=threads,
            n_threads_batch=threads,
            **cache_fields(flash_attn, cache_types),
            **({"cb_eval": self._tap.callback} if self._tap else {}),
        )
        self.adapters = tuple(adapters)
        try:
            set_adapters(self.handle, self.adapters)
        except ModelError:
            self.close()
            raise
        self._width = int(llama_cpp.llama_model_n_embd_out(weights.handle))
        self._memory = llama_cpp.llama_get_memory(self.handle)
        self.num_sequences = int(llama_cpp.llama_n_seq_max(self.handle))
        self.num_cells = int(llama_cpp.llama_n_ctx(self.handle))
        self.num_layers = int(llama_cpp.llama_model_n_layer(weights.handle))
        cache = f"unified|{'/'.join(cache_types)}|flash {flash_attn}|{weights.offload.layers} layers on GPUs"
        self.saves = weights.saves
        parts = (sha256, build(), cache, self.kv_strategy, self._rope_factors())
        self.state_key = "|".join([*parts, *(adapter.key for adapter in self.adapters)])
        self._batch_tokens = int(llama_cpp.llama_n_batch(self.handle))  # a small context has a smaller one
        self._batch = Batch(self._batch_tokens)
        self._tokens: list[list[int]] = [[] for _ in range(self.num_sequences)]
        self._checkpoints: dict[int, SequenceState] = {}
        self._rows: dict[int, int] = {}
        self._copied_rows: dict[int, Logits] = {}

    def _open(self, **wanted: Any) -> Any:
        require_countable(wanted["n_ctx"])
        most = int(llama_cpp.llama_max_parallel_sequences())
        if wanted["n_seq_max"] > most:
            raise ModelError(
                f"{wanted['n_seq_max']} sequences are wanted, llama.cpp holds {most}",
                "Lower --parallel or --beams.",
            )
        params = set_fields(
            llama_cpp.llama_context_default_params(),
            n_batch=BATCH_TOKENS,
            n_ubatch=BATCH_TOKENS,
            kv_unified=True,  # seq_cp then marks cells instead of copying them
            no_perf=True,
            **wanted,
        )
        messages = backend()
        messages.take()
        handle = llama_cpp.llama_init_from_model(self.weights.handle, params)
        if not handle:
            raise ModelError(
                f"llama.cpp could not make a context of {params.n_ctx} tokens for {self.weights.path.name}",
                messages.take() or "Lower --context, --max-tokens or --beams.",
            )
        # strlen is true of a non-empty string: a callback in C, so that no graph node waits for Python.
        abort = ctypes.cast(c_library().strlen, llama_cpp.ggml_abort_callback)
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
        with self._decoding(tails) as rows:
            self._decode_all(rows)

    @contextmanager
    def _decoding(self, tails: Mapping[int, Sequence[int]]) -> Iterator[npt.NDArray[np.int32]]:
        """The batch rows of the tails, which are held at the end, or not at all if it fails."""
        self._cancellation.check()
        self._rows, self._copied_rows = {}, {}
        rows = np.concatenate([self._batch_rows(sequence, tail) for sequence, tail in tails.items()])
        try:
            yield rows
        except BaseException:
            for sequence in tails:
                self._cut(sequence, len(self._tokens[sequence]))
            raise
        for sequence, tail in tails.items():
            self._tokens[sequence].extend(tail)
        self.decoded_tokens += len(rows)

    def _decode_all(self, rows: npt.NDArray[np.int32]) -> None:
        for start in range(0, len(rows), self._batch_tokens):
            self._copied_rows |= {s: self.logits(s).copy() for s in self._rows}
            self._decode(rows[start : start + self._batch_tokens])

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
        with self._starvation.measured(self._threads):
            code = llama_cpp.llama_decode(self.handle, batch)
        self.compute_seconds += perf_counter() - start
        self.decodes += 1
        if code == _ABORTED or self._cancellation.is_set:
            raise Cancelled("cancelled")
        if code == _NO_SLOT:
            raise self._full()
        if code != 0:
            raise ModelError(f"llama.cpp failed to decode (code {code})", backend().take())
        self._rows = {int(rows[i, 2]): int(i) for i in np.flatnonzero(rows[:, 3])}

    def _full(self) -> ContextFull:
        return ContextFull(
            f"the conversation does not fit: {self.num_cells} cells are full",
            "Raise --context, or lower --max-tokens or --beams.",
        )

    def set_tokens(self, targets: Mapping[int, Sequence[int]]) -> None:
        self.extend(self._new_tails(targets))

    def _new_tails(self, targets: Mapping[int, Sequence[int]]) -> dict[int, Sequence[int]]:
        tails = {}
        for sequence, ids in targets.items():
            keep = min(common_prefix(self._tokens[sequence], ids), len(ids) - 1)
            tails[sequence] = ids[self._rewind(sequence, keep) :]
        return tails

    def read_at(self, layers: Iterable[int]) -> None:
        assert self._tap, "this context makes answers"
        wanted = tuple(sorted(layers))
        if wrong := [layer for layer in wanted if not 0 <= layer < self.num_layers - 1]:
            raise ModelError(
                f"{self.weights.path.name} has {self.num_layers} layers: none is behind a layer {wrong[0]}",
                "alignbeam heads fit",
            )
        if wanted != self._tap.layers:  # what is held was read no further than to the layers before
            for sequence in range(self.num_sequences):
                self._cut(sequence, 0)
            self._checkpoints = {}
        self._tap.layers = wanted

    def read(self, targets: Mapping[int, Sequence[int]]) -> dict[int, Hidden]:
        if self._tap and self._tap.layers:
            return self._read_layers(targets, self._tap)
        with self._decoding(self._new_tails(targets)) as rows:
            is_last = rows[:, 3] == 1
            self._decode_all(rows[~is_last])
            # While it is on every token of a batch is put out: the others have been decoded before.
            llama_cpp.llama_set_embeddings(self.handle, True)
            try:
                self._decode(rows[is_last])
                return {sequence: self._hidden(row) for sequence, row in self._rows.items()}
            finally:
                llama_cpp.llama_set_embeddings(self.handle, False)

    def _read_layers(self, targets: Mapping[int, Sequence[int]], tap: LayerTap) -> dict[int, Hidden]:
        """Several sequences in one batch only where llama.cpp keeps the order of their tokens."""
        alone = [{sequence: ids} for sequence, ids in targets.items()]
        states: dict[int, Hidden] = {}
        for batch in [targets] if self.kv_strategy == "seq" else alone:
            with self._decoding(self._new_tails(batch)) as rows:
                for start in range(0, len(rows), self._batch_tokens):
                    states |= self._layer_states(rows[start : start + self._batch_tokens], tap)
        return states

    def _layer_states(self, rows: npt.NDArray[np.int32], tap: LayerTap) -> dict[int, Hidden]:
        """Decode them, with nothing put out at the graph's end, which is not reached."""
        tap.taken = {}
        self._decode(rows * np.array([1, 1, 1, 0], np.int32))
        if missing := set(tap.layers) - set(tap.taken):
            raise ModelError(
                f"llama.cpp names no output of layer {min(missing)} of {self.weights.path.name}",
                "alignbeam heads fit --layer -1",
            )
        outputs = np.hstack([tap.taken[layer].reshape(len(rows), -1) for layer in tap.layers])
        return {int(rows[at, 2]): outputs[at].copy() for at in np.flatnonzero(rows[:, 3])}

    def _hidden(self, row: int) -> Hidden:
        pointer = llama_cpp.llama_get_embeddings_ith(self.handle, row)
        assert pointer, "llama.cpp has no hidden state for this row"
        return np.ctypeslib.as_array(pointer, shape=(self._width,)).copy()

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
            token = sample_row(chain, copied)
        self.compute_seconds += perf_counter() - start
        return token

    def sampler(self, settings: SamplerSettings) -> Sampler:
        if settings.grammar:
            return GrammarSampler(settings, self.weights.handle, self.vocabulary.size, self.logits)
        return LlamaSampler(settings, self.vocabulary.size, self.sample)

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
        if not self.saves:
            raise ModelError("llama.cpp saves no states over RPC", "Prefill again.")
        size = int(llama_cpp.llama_state_seq_get_size(self.handle, sequence))
        buffer = (ctypes.c_uint8 * size)()
        written = int(llama_cpp.llama_state_seq_get_data(self.handle, buffer, size, sequence))
        if written != size:
            raise ModelError(f"llama.cpp saved {written} of {size} bytes of a sequence", backend().take())
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
            raise ModelError(f"llama.cpp restored {read} of {len(state.blob)} bytes", backend().take())
        self._tokens[sequence] = list(state.tokens)
        if state.logits is not None:
            self._copied_rows[sequence] = state.logits

    def close(self) -> None:
        if self.handle:
            llama_cpp.llama_free(self.handle)
            self.handle = None


def cache_fields(flash_attn: FlashAttention, cache_types: tuple[CacheType, CacheType]) -> dict[str, int]:
    """The fields of a context's parameters for how its keys and values are kept, and attended to."""
    type_k, type_v = map(_ggml_type, cache_types)
    return {"flash_attn_type": _FLASH_ATTENTION[flash_attn], "type_k": type_k, "type_v": type_v}


def _ggml_type(name: CacheType) -> int:
    from gguf.constants import GGMLQuantizationType

    return int(GGMLQuantizationType[name.upper()])
