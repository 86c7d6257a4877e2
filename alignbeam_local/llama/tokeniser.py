"""A vocabulary as llama.cpp reads it from a GGUF file."""

import ctypes
from functools import cached_property
from typing import Any

from .threads import llama_cpp


class LlamaTokeniser:
    """A vocabulary of llama.cpp; borrowed from its weights."""

    def __init__(self, model: Any, owner: object) -> None:
        """`model` is the handle of a loaded file, which lives as long as its `owner`."""
        self._owner = owner  # keeps the borrowed pointer alive
        self._vocab = llama_cpp.llama_model_get_vocab(model)
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
