"""The draft alone on plain llama.cpp: what every answer is measured against."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

from ..errors import ModelError
from ..knobs.machine import CacheType, FlashAttention
from ..lm.language_model import SamplerSettings
from ..lm.sequences import BATCH_TOKENS
from .adapter import set_adapters
from .context import LlamaLM, cache_fields
from .library import backend, require_countable, set_fields
from .sampler import sampler_chain
from .threads import llama_cpp


class PlainAnswer(NamedTuple):
    """Tokens of one answer, and the milliseconds to the first and to the last."""

    tokens: list[int]
    first_token_ms: float
    total_ms: float


class PlainDraft:
    """One context on a model's weights, driven as the examples of llama.cpp do."""

    def __init__(
        self,
        model: LlamaLM,
        *,
        context: int,
        threads: int,
        num_sequences: int = 1,
        flash_attn: FlashAttention = "auto",
        cache_types: tuple[CacheType, CacheType] = ("f16", "f16"),
    ) -> None:
        """The weights stay the model's: close this before them; `context` is that of all sequences.

        Raises:
            ModelError: llama.cpp can't make the context.
        """
        require_countable(context)
        params = set_fields(
            llama_cpp.llama_context_default_params(),
            n_ctx=context,
            n_batch=BATCH_TOKENS,
            n_ubatch=BATCH_TOKENS,
            n_threads=threads,
            n_threads_batch=threads,
            n_seq_max=num_sequences,
            kv_unified=num_sequences > 1,
            **cache_fields(flash_attn, cache_types),
        )
        messages = backend()
        messages.take()
        self._vocabulary_size = model.vocabulary.size
        self._handle = llama_cpp.llama_init_from_model(model.weights.handle, params)
        if not self._handle:
            hint = messages.take() or "Lower --context."
            raise ModelError("llama.cpp could not make a context for the draft alone", hint)
        set_adapters(self._handle, model.adapters)
        self._memory = llama_cpp.llama_get_memory(self._handle)
        self._batch_tokens = int(llama_cpp.llama_n_batch(self._handle))  # a small context has a smaller one

    def complete(self, prompt: Sequence[int], settings: SamplerSettings, new_tokens: int) -> PlainAnswer:
        """Answer a prompt, read from its beginning, with exactly so many tokens, ends ignored.

        Raises:
            ModelError: llama.cpp failed to decode.
        """
        self.read([])
        return self.go_on(prompt, settings, new_tokens)

    def read(self, prompt: Sequence[int]) -> None:
        """Hold these tokens and nothing else. Raises: ModelError: as `complete`."""
        llama_cpp.llama_memory_clear(self._memory, True)
        self._prefill(prompt)

    def go_on(self, prompt: Sequence[int], settings: SamplerSettings, new_tokens: int) -> PlainAnswer:
        """A further turn: decode the prompt behind what is held, then the answer."""
        chain = sampler_chain(settings, self._vocabulary_size)
        try:
            return self._go_on(chain, prompt, new_tokens)
        finally:
            llama_cpp.llama_sampler_free(chain)

    def _go_on(self, chain: Any, prompt: Sequence[int], new_tokens: int) -> PlainAnswer:
        sample, decode, handle = llama_cpp.llama_sampler_sample, llama_cpp.llama_decode, self._handle
        one = (llama_cpp.llama_token * 1)()
        batch = llama_cpp.llama_batch_get_one(one, 1)
        start = perf_counter()
        self._prefill(prompt)
        tokens = [sample(chain, handle, -1)]
        first = perf_counter()
        while len(tokens) < new_tokens:
            one[0] = tokens[-1]
            if decode(handle, batch):
                raise _failed()
            tokens.append(sample(chain, handle, -1))
        end = perf_counter()
        return PlainAnswer(tokens, 1e3 * (first - start), 1e3 * (end - start))

    def complete_together(
        self, prompts: Sequence[Sequence[int]], settings: SamplerSettings, new_tokens: int
    ) -> list[list[int]]:
        """Answer a prompt in each sequence, one batch a step for all. Raises: ModelError: as `complete`."""
        llama_cpp.llama_memory_clear(self._memory, True)
        batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        chains = [sampler_chain(settings, self._vocabulary_size) for _ in prompts]
        try:
            return self._together(batch, chains, prompts, new_tokens)
        finally:
            for chain in chains:
                llama_cpp.llama_sampler_free(chain)
            llama_cpp.llama_batch_free(batch)

    def _together(
        self, batch: Any, chains: Sequence[Any], prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> list[list[int]]:
        answers = []
        for sequence, (prompt, chain) in enumerate(zip(prompts, chains, strict=True)):
            for start in range(0, len(prompt), self._batch_tokens):
                part = enumerate(prompt[start : start + self._batch_tokens], start)
                self._decode(batch, [(token, position, sequence) for position, token in part])
            answers.append([llama_cpp.llama_sampler_sample(chain, self._handle, -1)])
        for step in range(new_tokens - 1):
            pairs = zip(prompts, answers, strict=True)
            self._decode(batch, [(own[-1], len(ids) + step, s) for s, (ids, own) in enumerate(pairs)])
            for row, (own, chain) in enumerate(zip(answers, chains, strict=True)):
                own.append(llama_cpp.llama_sampler_sample(chain, self._handle, row))
        return answers

    def _decode(self, batch: Any, rows: Sequence[tuple[int, int, int]]) -> None:
        """Rows of token, position and sequence; each sequence's last one gets logits."""
        last = {sequence: index for index, (_, _, sequence) in enumerate(rows)}
        batch.n_tokens = len(rows)
        for index, (token, position, sequence) in enumerate(rows):
            batch.token[index], batch.pos[index] = token, position
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
            batch.logits[index] = last[sequence] == index
        if llama_cpp.llama_decode(self._handle, batch):
            raise _failed()

    def _prefill(self, prompt: Sequence[int]) -> None:
        for start in range(0, len(prompt), self._batch_tokens):
            part = prompt[start : start + self._batch_tokens]
            ids: Any = (llama_cpp.llama_token * len(part))(*part)
            if llama_cpp.llama_decode(self._handle, llama_cpp.llama_batch_get_one(ids, len(part))):
                raise _failed()

    def close(self) -> None:
        """Free the context."""
        if self._handle:
            llama_cpp.llama_free(self._handle)
            self._handle = None


def _failed() -> ModelError:
    return ModelError("llama.cpp failed to decode the draft alone", "Raise --context.")
