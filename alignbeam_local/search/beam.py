"""One beam: an answer in the making, and how it grows by a token."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..events import BeamText
from ..lm.language_model import Sampler
from ..lm.sequences import beam_sequence
from ..prompt.text_stream import TextStream


@dataclass
class Beam:
    """One answer in the making. `tokens` excludes the end token; the last one may not be decoded yet."""

    index: int
    stream: TextStream
    tokens: list[int] = field(default_factory=list)
    raw: bytes = b""
    mixed: int = 0
    prefix_logprobs: list[float] = field(default_factory=list)
    #: of the same tokens, where they were mixed: by the mixture, and by what of the anchor crossed onto them
    mixture_logprobs: list[float] = field(default_factory=list)
    anchor_logprobs: list[float] = field(default_factory=list)
    p_first: float | None = None
    #: where, in characters, the first token begins that the draft alone would not take
    steered_at: int | None = None
    finish: Literal["stop", "length", "cancelled"] | None = None
    sampler: Sampler | None = None

    @property
    def sequence(self) -> int:
        return beam_sequence(self.index)

    @property
    def text(self) -> str:
        return self.stream.text

    @property
    def logprob(self) -> float:
        """Mean log-probability that the draft alone gave the mixed prefix."""
        return float(np.mean(self.prefix_logprobs)) if self.prefix_logprobs else 0.0

    @property
    def mixture_logprob(self) -> float | None:
        """The same by the mixture; None where nothing was mixed."""
        return float(np.mean(self.mixture_logprobs)) if self.mixture_logprobs else None

    @property
    def anchor_logprob(self) -> float | None:
        """The same by the anchor."""
        return float(np.mean(self.anchor_logprobs)) if self.anchor_logprobs else None

    def append(self, token: int, piece: bytes, *, mixed: bool, longest: int) -> Iterator[BeamText]:
        """Take a token that is no end token; the beam ends at a stop string or with `longest` tokens."""
        self.tokens.append(token)
        self.mixed += mixed
        self.raw += piece
        if text := self.stream.push(piece):
            yield BeamText(self.index, text, mixed)
        if self.stream.stopped:
            self.finish = "stop"
        elif len(self.tokens) >= longest:
            yield from self.end("length")

    def end(self, reason: Literal["stop", "length"]) -> Iterator[BeamText]:
        """End here; what the text still held back is its last part."""
        self.finish = reason
        if text := self.stream.finish():
            yield BeamText(self.index, text, mixed=False)

    def cut(self, length: int, piece: Callable[[int], bytes], stream: TextStream) -> None:
        """Keep the first `length` tokens alone; their text comes anew from the stream. No sampler is left."""
        self.close()
        self.tokens, self.finish = self.tokens[:length], None
        self.raw, self.stream = b"".join(map(piece, self.tokens)), stream
        for token in self.tokens:
            stream.push(piece(token))

    def close(self) -> None:
        """Free the sampler."""
        if self.sampler is not None:
            self.sampler.close()
            self.sampler = None
