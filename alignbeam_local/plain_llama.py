"""The draft alone on plain llama.cpp: what every answer is measured against."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

import llama_cpp

from .errors import ModelError
from .llama_lm import BATCH_TOKENS, LlamaLM, sampler_chain
from .lm import SamplerSettings


class PlainAnswer(NamedTuple):
    """Tokens of one answer, and the milliseconds to the first and to the last."""

    tokens: list[int]
    first_token_ms: float
    total_ms: float


class PlainDraft:
    """One context and one sampler chain on a model's weights, driven as an example of llama.cpp does."""

    def __init__(self, model: LlamaLM, *, context: int, threads: int) -> None:
        """The weights stay the model's: close this before them.

        Raises:
            ModelError: llama.cpp can't make the context.
        """
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, BATCH_TOKENS, BATCH_TOKENS
        params.n_threads = params.n_threads_batch = threads
        self._vocabulary_size = model.vocabulary.size
        self._handle = llama_cpp.llama_init_from_model(model.weights.handle, params)
        if not self._handle:
            raise ModelError("llama.cpp could not make a context for the draft alone", "Lower --context.")
        self._memory = llama_cpp.llama_get_memory(self._handle)

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
        """The same behind what is held."""
        sample, decode, handle = llama_cpp.llama_sampler_sample, llama_cpp.llama_decode, self._handle
        one = (llama_cpp.llama_token * 1)()
        batch = llama_cpp.llama_batch_get_one(one, 1)
        chain = sampler_chain(settings, self._vocabulary_size)
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
        llama_cpp.llama_sampler_free(chain)
        return PlainAnswer(tokens, 1e3 * (first - start), 1e3 * (end - start))

    def _prefill(self, prompt: Sequence[int]) -> None:
        for start in range(0, len(prompt), BATCH_TOKENS):
            part = prompt[start : start + BATCH_TOKENS]
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
