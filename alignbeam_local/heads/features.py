"""What a model makes of requests: its hidden state at the end of the prompt, where its answer would begin."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from ..lm.language_model import Hidden, LanguageModel
from ..lm.sequences import batches
from ..lm.vocabulary import Vocabulary
from ..prompt.formats import PROBES, PromptFormat, shared_prefix
from ..prompt.message import Message
from .parts import parts

#: (n, n_embd): the whole request, then its parts.
States = npt.NDArray[np.float32]

_PREFIX = 0
_FIRST = 1


class RequestReader:
    """Reads requests with one model, each as if it were the first: what was read before changes nothing."""

    def __init__(self, lm: LanguageModel, prompt_format: PromptFormat) -> None:
        """`lm` is the reader's own: one sequence holds what all prompts begin with, each other a part."""
        self._lm = lm
        self._format = prompt_format
        self._prefix = shared_prefix(lambda text: self._encode([Message("user", text)]))

    @property
    def num_layers(self) -> int:
        """The model's layers."""
        return self._lm.num_layers

    def read_at(self, layers: Iterable[int]) -> None:
        """Give the states of these layers from now on, from 0, one behind the other; of none: the final ones.

        Raises:
            ModelError: the model has no such layer, or nothing behind it.
        """
        self._lm.read_at(layers)

    @cached_property
    def key(self) -> str:
        """A hash of what the model reads around a request and between turns: its template, as rendered."""
        return template_key(self._format, self._lm.vocabulary)

    def read(self, conversation: Sequence[Message]) -> States:
        """The states of the whole conversation and of the parts of its last turn.

        Raises:
            ContextFull: a prompt is longer than the context.
            Cancelled, ModelError: as the model's `extend`.
        """
        found = parts(conversation, self._lm.vocabulary.num_tokens)
        return self._read_all([self._encode(part) for part in found])

    def read_whole(self, conversation: Sequence[Message]) -> Hidden:
        """The state of the whole conversation. Raises: as `read`."""
        (state,) = self._read_all([self._encode(conversation)])
        return np.asarray(state)

    def read_answers(self, pairs: Sequence[tuple[str, str]]) -> States:
        """The states (n, n_embd) at the ends of answers, of (question, answer) pairs. Raises: as `read`."""
        return self._read_all([self._encode_answer(question, answer) for question, answer in pairs])

    def _encode_answer(self, question: str, answer: str) -> list[int]:
        vocabulary, layout = self._lm.vocabulary, self._format
        said = vocabulary.encode(f" {answer}" if layout.strips_leading_space else answer)
        return [*self._encode([Message("user", question)]), *said, *turn_end(layout, vocabulary)]

    def _read_all(self, prompts: Sequence[list[int]]) -> States:
        states: list[Hidden] = []
        for batch in batches(prompts, self._lm.num_sequences - _FIRST):
            self._hold_prefix(len(batch))
            found = self._lm.read(dict(enumerate(batch, _FIRST)))
            states += [found[sequence] for sequence in sorted(found)]
        return np.stack(states)

    def _hold_prefix(self, num_prompts: int) -> None:
        """What all prompts begin with is read once, always in a batch by itself, so that states repeat."""
        lm = self._lm
        for sequence in range(_FIRST, lm.num_sequences):
            lm.truncate(sequence, 0)
        if not self._prefix:
            return
        if list(lm.tokens(_PREFIX)) != self._prefix:
            lm.truncate(_PREFIX, 0)
            lm.set_tokens({_PREFIX: self._prefix})
            lm.checkpoint(_PREFIX)
        lm.fork(_PREFIX, range(_FIRST, _FIRST + num_prompts))

    def _encode(self, conversation: Sequence[Message]) -> list[int]:
        return self._format.encode(conversation, self._lm.vocabulary)


def template_key(prompt_format: PromptFormat, vocabulary: Vocabulary) -> str:
    """A hash of what a model reads around a request and between turns: its template, as rendered."""
    ask, reply = Message("user", PROBES[0]), Message("assistant", PROBES[1])
    read = [prompt_format.encode(turns, vocabulary) for turns in ([ask], [ask, reply, ask])]
    return sha256(repr(read).encode()).hexdigest()


def turn_end(prompt_format: PromptFormat, vocabulary: Vocabulary) -> list[int]:
    """What ends an answer's turn: where its state is read. Empty if the vocabulary has no such token."""
    end = vocabulary.turn_end(prompt_format.uses_template)
    return [] if end is None else [end]
