"""The seam between the method and a backend: what the search asks of a language model, no more.

`llama.lm` implements it on llama.cpp; the tests implement it on a table of probabilities.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from ..config import Config
from .vocabulary import Vocabulary

Logits = npt.NDArray[np.float32]  # (n_vocab,)
Hidden = npt.NDArray[np.float32]  # (n_embd,)


@dataclass(frozen=True)
class SamplerSettings:
    """How one beam samples: penalties, top_k, top_p, min_p, temperature, dist, in this order.

    Temperature 0 is greedy. A `grammar` (GBNF; empty: none) has its say before all of them.
    """

    temperature: float
    top_p: float
    repeat_penalty: float
    penalty_last_n: int
    seed: int
    top_k: int = 0
    min_p: float = 0.0
    grammar: str = ""

    @classmethod
    def of(cls, config: Config, longest: int, beam: int = 0) -> Self:
        """How a beam of at most `longest` tokens samples with these knobs."""
        return cls(
            temperature=config.temperature,
            top_p=config.top_p,
            repeat_penalty=config.repeat_penalty,
            penalty_last_n=longest,
            seed=config.seed + beam,
            top_k=config.top_k,
            min_p=config.min_p,
        )


@dataclass(frozen=True)
class SequenceState:
    """A saved sequence: its tokens, the backend's bytes, its last row of logits if it was at hand.

    `key` names all that the bytes depend on (model, context parameters, KV types, build):
    a state restores only into a context with the same key.
    """

    key: str
    tokens: tuple[int, ...]
    blob: bytes
    logits: Logits | None


class Sampler(Protocol):
    """A sampling chain with the history of one beam."""

    def accept(self, token: int) -> None:
        """Tell the chain of a token chosen elsewhere, so that its penalty sees it."""

    def allowed(self, row: Logits) -> Logits:
        """The row with -inf for what the grammar does not accept next; without one, the row itself.

        Raises:
            UsageError: it accepts no token at all.
        """

    def sample(self, sequence: int) -> int:
        """Draw from the sequence's latest logits and accept the token drawn."""

    def close(self) -> None:
        """Free the chain."""


class LanguageModel(Protocol):
    """One model with a KV cache of `num_sequences` sequences, each a list of token ids.

    Sequences are named 0 .. num_sequences - 1 and start empty. All methods leave the cache consistent
    when they raise: a sequence then holds what it held before the call, or a prefix of it.
    """

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def num_sequences(self) -> int: ...

    @property
    def num_cells(self) -> int:
        """KV cells, shared by all sequences."""

    @property
    def num_layers(self) -> int:
        """The model's layers, or blocks."""

    @property
    def kv_strategy(self) -> Literal["seq", "state"]:
        """How `fork` works here."""

    @property
    def saves(self) -> bool:
        """Whether `save` and `restore` work here: not where another machine holds the cache."""

    @property
    def state_key(self) -> str:
        """The key of every state saved here."""

    @property
    def decoded_tokens(self) -> int:
        """Tokens decoded since the model was opened: what a cache saved is seen by its not growing."""

    @property
    def decodes(self) -> int:
        """Batches decoded since then: each reads the weights once."""

    @property
    def compute_seconds(self) -> float:
        """Time spent since then in the backend's decoding and sampling."""

    def tokens(self, sequence: int) -> Sequence[int]:
        """What the sequence holds."""

    def extend(self, tails: Mapping[int, Sequence[int]]) -> None:
        """Decode non-empty tails onto their sequences, all in one batch where they fit.

        Raises:
            ContextFull: there are not enough free cells.
            Cancelled: the user stopped it.
            ModelError: the backend failed.
        """

    def set_tokens(self, targets: Mapping[int, Sequence[int]]) -> None:
        """Make each sequence hold exactly the given non-empty ids, with logits for the last.

        Keeps the longest common prefix of what it holds, drops the rest, decodes the new tail; all in one
        batch. Where nothing is new the last token is decoded again, for its logits. Raises as `extend`.
        """

    def read(self, targets: Mapping[int, Sequence[int]]) -> dict[int, Hidden]:
        """As `set_tokens`, and the hidden state (n_embd,) at each last token, after the final norm: a copy.

        The last tokens are a batch of their own, whatever comes before them: no other token is read out.
        """

    def read_at(self, layers: Iterable[int]) -> None:
        """From now on `read` gives what these layers put out, one behind the other, and computes no further.

        They count from 0; with none of them it gives what it gives without. Only a context that was opened
        to read can, and it has no logits. What it held may be dropped.

        Raises:
            ModelError: the model has no such layer, or nothing behind it.
        """

    def logits(self, sequence: int) -> Logits:
        """The row after the sequence's last token: a view, valid until the next decode.

        Whoever changes it changes what samplers draw from.
        """

    def fork(self, source: int, targets: Iterable[int]) -> None:
        """Make each target hold what the source holds; nothing is decoded."""

    def truncate(self, sequence: int, length: int) -> None:
        """Drop what follows the first `length` tokens."""

    def checkpoint(self, sequence: int) -> None:
        """Mark the sequence's end as a place that later rewinds will come back to.

        Costs nothing where the cache can be rewound; elsewhere the state is saved here, and forks share it.
        """

    def save(self, sequence: int) -> SequenceState:
        """Copy a sequence's state out of the cache.

        Raises:
            ModelError: the backend failed, or saves no states.
        """

    def restore(self, sequence: int, state: SequenceState) -> None:
        """Put a saved state into a sequence.

        Raises:
            ContextFull: there are not enough free cells.
            ModelError: the state belongs to another model, context or build, or is damaged.
        """

    def sampler(self, settings: SamplerSettings) -> Sampler:
        """A new sampling chain on this model's logits."""

    def close(self) -> None:
        """Free the context; the weights are their owner's to free."""


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading ids two sequences share."""
    shared = min(len(left), len(right))
    for index in range(shared):
        if left[index] != right[index]:
            return index
    return shared
