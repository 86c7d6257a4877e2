"""Sampling in C."""

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..lm.language_model import Logits, SamplerSettings
from .threads import llama_cpp

#: Draws from a sequence's latest row by a chain, which accepts the token drawn.
Draw = Callable[[Any, int], int]
#: (n,) of id, logit, p
Candidates = npt.NDArray[np.void]


def sampler_chain(settings: SamplerSettings, vocabulary_size: int) -> Any:
    """A chain in C: penalties, top_k, top_p, min_p, temperature, dist; greedy at temperature 0.

    Whoever asked frees it.
    """
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
    if settings.top_k:
        yield llama_cpp.llama_sampler_init_top_k(settings.top_k)
    if settings.top_p < 1.0:
        yield llama_cpp.llama_sampler_init_top_p(settings.top_p, 1)
    if settings.min_p:
        yield llama_cpp.llama_sampler_init_min_p(settings.min_p, 1)
    yield llama_cpp.llama_sampler_init_temp(settings.temperature)
    yield llama_cpp.llama_sampler_init_dist(settings.seed)


def sample_row(chain: Any, row: Logits) -> int:
    """What `llama_sampler_sample` does with a row of a batch, for a copy of one."""
    token = drawn(chain, row)
    llama_cpp.llama_sampler_accept(chain, token)
    return token


def drawn(chain: Any, row: Logits) -> int:
    """The token that a chain draws from a row, not accepted yet."""
    array, _ = applied(chain, np.arange(len(row), dtype=np.int32), row)
    return int(array.data[array.selected].id)


def applied(sampler: Any, tokens: npt.NDArray[np.int32], logits: Logits) -> tuple[Any, Candidates]:
    """What a sampler makes of tokens (n,) and logits (n,): llama.cpp's array of them, and its memory."""
    candidates = np.zeros(len(tokens), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    candidates["id"], candidates["logit"] = tokens, logits
    data = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
    array = llama_cpp.llama_token_data_array(data=data, size=len(tokens), selected=-1, sorted=False)
    llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
    return array, candidates


class LlamaSampler:
    """A chain that samples from a context's rows."""

    def __init__(self, settings: SamplerSettings, vocabulary_size: int, draw: Draw) -> None:
        self._draw = draw
        self._chain = sampler_chain(settings, vocabulary_size)

    def accept(self, token: int) -> None:
        llama_cpp.llama_sampler_accept(self._chain, token)

    def allowed(self, row: Logits) -> Logits:
        return row

    def sample(self, sequence: int) -> int:
        return self._draw(self._chain, sequence)

    def close(self) -> None:
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None
