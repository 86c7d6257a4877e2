"""Tokens as bytes: pieces, encoding behind a sentinel, stray bytes, ends, unfinished characters."""

import codecs
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from typing import Protocol

#: What tokenisers with the same pieces may cut otherwise: words, numbers, marks, spaces, scripts.
_SAMPLE = (
    "I'm sorry, but they're unable to help; it's NOT-allowed (see §3.14, p. 1234567890)!\r\n\n\t  "
    "  def tokenise(text): return [x**2 for x in text]  # https://example.org/?q=1&r=2\n"
    "internationalisation misunderstandings cardiovascular Größe café naïve привет здравствуйте "
    "你好，世界 こんにちは 안녕하세요 مرحبا 👩‍👩‍👧 e\u0301 … ‘quoted’ 0.5e-10 CamelCaseName snake_case_name"
)


class Tokeniser(Protocol):
    """What a backend tells of its vocabulary."""

    @property
    def size(self) -> int: ...

    @property
    def bos(self) -> int | None: ...

    @property
    def eos(self) -> int | None: ...

    @property
    def eot(self) -> int | None: ...

    @property
    def add_bos(self) -> bool: ...

    @property
    def end_tokens(self) -> frozenset[int]:
        """Every token that ends a generation."""

    @property
    def control_tokens(self) -> frozenset[int]:
        """Every token whose piece is empty by its kind: control and unknown."""

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; empty for control tokens."""

    def text(self, token: int) -> str:
        """How a token is spelt in the vocabulary, control tokens included."""

    def encode(self, text: bytes, parse_special: bool) -> list[int]:
        """Tokenise UTF-8 text, never adding BOS or EOS; a tokeniser's own space prefix is not undone."""


class Vocabulary:
    """A tokeniser that speaks bytes and adds nothing of its own."""

    SENTINEL = b"\n"

    def __init__(self, tokeniser: Tokeniser) -> None:
        self._tokeniser = tokeniser
        self._pieces: dict[int, bytes] = {}
        self.size = tokeniser.size
        self.bos, self.eos, self.eot = tokeniser.bos, tokeniser.eos, tokeniser.eot
        self.add_bos = tokeniser.add_bos

    @property
    def end_tokens(self) -> frozenset[int]:
        """Every token that ends a generation."""
        return self._tokeniser.end_tokens

    @property
    def control_tokens(self) -> frozenset[int]:
        """Every token that stands for no text."""
        return self._tokeniser.control_tokens

    def piece(self, token: int) -> bytes:
        """The bytes of a token; empty for control tokens."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._tokeniser.piece(token)
        return piece

    def text(self, token: int) -> str:
        """How a token is spelt in the vocabulary, control tokens included."""
        return self._tokeniser.text(token)

    def pieces(self, tokens: Sequence[int]) -> bytes:
        """The joined bytes of some tokens."""
        return b"".join(map(self.piece, tokens))

    @cached_property
    def adds_space_prefix(self) -> bool:
        """Whether the tokeniser puts a space before text that begins a string (SentencePiece style)."""
        return self.pieces(self._tokeniser.encode(b"a", False)) == b" a"

    @cached_property
    def _sentinel_ids(self) -> list[int]:
        return self._tokeniser.encode(self.SENTINEL, False)

    @cached_property
    def longest_piece(self) -> int:
        """Bytes of the longest text that is one token."""
        return max(1, *(len(self.piece(token)) for token in range(self.size)))

    @cached_property
    def byte_tokens(self) -> dict[bytes, int]:
        """Tokens by the bytes of their piece, for pieces that are not text; the lowest id wins."""
        table: dict[bytes, int] = {}
        for token in range(self.size):
            piece = self.piece(token)
            if piece and not is_text(piece):
                table.setdefault(piece, token)
        return table

    def encode(self, text: str | bytes) -> list[int]:
        """Tokenise text as plain characters: no control token, no BOS, no added space.

        Bytes that are not UTF-8 are looked up whole among the pieces, and give no token at all if absent.
        """
        raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
        if not raw:
            return []
        if not is_text(raw):
            token = self.byte_tokens.get(raw)
            return [] if token is None else [token]
        if not self.adds_space_prefix:
            return self._tokeniser.encode(raw, False)
        ids = self._tokeniser.encode(self.SENTINEL + raw, False)
        head = self._sentinel_ids
        if ids[: len(head)] == head:
            return ids[len(head) :]
        return self._tokeniser.encode(raw, False)

    def num_tokens(self, text: str) -> int:
        """How many tokens it takes, as plain characters."""
        return len(self.encode(text))

    def encode_template(self, text: str) -> list[int]:
        """Tokenise a template's own text, in which control tokens are spelt out."""
        return self._tokeniser.encode(text.encode(), True)

    def turn_end(self, uses_template: bool) -> int | None:
        """The token that ends a turn: `eot` behind a template that has one, else `eos`."""
        return self.eot if uses_template and self.eot is not None else self.eos

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all pieces, ends and controls, and of how a sample is cut: merges show there alone."""
        digest = sha256()
        for token in range(self.size):
            piece = self.piece(token)
            digest.update(len(piece).to_bytes(4, "little") + piece)
        ends = sorted(self.end_tokens), sorted(self.control_tokens), self.eos, self.eot
        digest.update(repr((*ends, self.encode(_SAMPLE))).encode())
        return digest.hexdigest()


def is_text(raw: bytes) -> bool:
    """Whether the bytes are valid UTF-8."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_unfinished(raw: bytes) -> bool:
    """Whether the bytes end inside a UTF-8 character that more bytes could complete."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(raw)
    return bool(decoder.getstate()[0])
