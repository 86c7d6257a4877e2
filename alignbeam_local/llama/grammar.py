"""Grammars (GBNF) by llama.cpp's own sampler: what may be said next."""

import os
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import llama_cpp
import numpy as np

from ..errors import UsageError
from ..lm.language_model import Logits, SamplerSettings
from .library import backend
from .sampler import applied, drawn, sampler_chain

_ROOT = b"root"
#: llama.cpp reads brackets, and the rules that rules begin with, by recursion in C.
_DEEPEST = 500
_LONGEST = 1 << 18
_STDERR = 2
_HINT = 'Write GBNF with a rule `root`, such as: root ::= "yes" | "no"'
_PRINTED = "parse: error parsing grammar: "


@lru_cache(maxsize=8)
def check_grammar(text: str) -> None:
    """Raises: UsageError: it is no grammar, with what llama.cpp has to say of it."""
    if len(text) > _LONGEST or _depth(text) > _DEEPEST:
        raise UsageError(
            "the grammar is too large",
            f"At most {_LONGEST} characters are read, and brackets {_DEEPEST} deep.",
        )
    grammar, said = _parsed(text)
    if not grammar:
        raise UsageError(f"the grammar is none that llama.cpp reads: {said}", _HINT)
    llama_cpp.llama_sampler_free(grammar)


def _depth(text: str) -> int:
    """How deep its round brackets are nested, those in quotes counted too."""
    steps = np.array([(letter == "(") - (letter == ")") for letter in text if letter in "()"], np.int64)
    return int(steps.cumsum().max(initial=0))


def _parsed(text: str) -> tuple[Any, str]:
    """A grammar without a vocabulary, or none; and what was wrong with it, which llama.cpp prints."""
    messages = backend()
    messages.take()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as printed:
        kept = os.dup(_STDERR)
        try:
            os.dup2(printed.fileno(), _STDERR)
            grammar = llama_cpp.llama_sampler_init_grammar(None, text.encode(), _ROOT)
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
        printed.seek(0)
        first, *_ = printed.read().decode("utf-8", "replace").splitlines() or [""]
    logged = messages.take()
    return grammar, first.removeprefix(_PRINTED) if first.startswith(_PRINTED) else first or logged


class GrammarSampler:
    """A chain that draws what a grammar accepts.

    Most draws are accepted as they are; only where one is not is the whole vocabulary held against the
    grammar, as llama.cpp's own programs do it.
    """

    def __init__(
        self, settings: SamplerSettings, model: Any, vocabulary_size: int, row_of: Callable[[int], Logits]
    ) -> None:
        """`model` is the handle of the weights; `row_of` gives a sequence's latest row.

        Raises:
            UsageError: as `check_grammar`.
        """
        check_grammar(settings.grammar)
        self._row_of = row_of
        self._tokens = np.arange(vocabulary_size, dtype=np.int32)
        vocabulary = llama_cpp.llama_model_get_vocab(model)
        self._grammar = llama_cpp.llama_sampler_init_grammar(vocabulary, settings.grammar.encode(), _ROOT)
        assert self._grammar, "a grammar that parses without a vocabulary parses with one"
        self._chain = sampler_chain(settings, vocabulary_size)

    def accept(self, token: int) -> None:
        """Only what is allowed: at anything else llama.cpp ends the process."""
        llama_cpp.llama_sampler_accept(self._grammar, token)
        llama_cpp.llama_sampler_accept(self._chain, token)

    def allowed(self, row: Logits) -> Logits:
        _, candidates = applied(self._grammar, self._tokens, row)
        allowed = np.empty_like(row)
        allowed[candidates["id"]] = candidates["logit"]
        if not np.isfinite(allowed).any():
            raise UsageError(
                "the grammar accepts none of the draft's tokens here", "Loosen it: the draft can't go on."
            )
        return allowed

    def sample(self, sequence: int) -> int:
        row = self._row_of(sequence)
        token = drawn(self._chain, row)
        if not self._accepts(token):
            token = drawn(self._chain, self.allowed(row))
        self.accept(token)
        return token

    def _accepts(self, token: int) -> bool:
        _, candidates = applied(self._grammar, np.array([token], np.int32), np.zeros(1, np.float32))
        return bool(np.isfinite(candidates["logit"][0]))

    def close(self) -> None:
        for sampler in (self._grammar, self._chain):
            if sampler:
                llama_cpp.llama_sampler_free(sampler)
        self._grammar = self._chain = None
