"""A model's prompt kept in sequence 0 between answers, so that a turn decodes only what is new."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from ..errors import ContextFull
from .language_model import Hidden, LanguageModel, Logits, SequenceState, common_prefix
from .prefix_store import PrefixStore
from .sequences import AHEAD, PROMPT, batches

#: Tokens read ahead in one decode: what is lost when it is stopped.
_AHEAD_TOKENS = 64


class SavedPrompt(NamedTuple):
    """A prompt cache outside its context.

    `states`: the longest of what goes on from it, then the prompt where it can't be cut out of that.
    """

    prompt: tuple[int, ...]
    row: Logits | None
    states: tuple[SequenceState, ...]


class PromptCache:
    """Owns sequence 0 of a model; the others are the beams of the last answer, or what goes on from it."""

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm
        self._row: Logits | None = None
        self._row_ids: tuple[int, ...] = ()  # what it follows: slots hold the same sequences
        self._state: Hidden | None = None  # behind the prompt that was read last
        self._state_ids: tuple[int, ...] = ()  # that prompt

    def row(self, ids: Sequence[int]) -> Logits:
        """The logits after a prompt, which sequence 0 then holds; beams of the last answer are gone.

        Whatever sequence shares most with the prompt is where decoding goes on: after an answer that is the
        chosen beam. A prompt that is held already costs nothing.
        """
        known = self._known_row()
        if known is not None and self._row_ids == tuple(ids):
            self._drop(AHEAD)
            return known
        self._begin_at_warmest(ids)
        self._lm.set_tokens({PROMPT: ids})
        self._lm.checkpoint(PROMPT)
        row = self._row = self._lm.logits(PROMPT).copy()
        self._row_ids = tuple(ids)
        return row

    def read(self, ids: Sequence[int]) -> Hidden:
        """The hidden state at a prompt's last token, for a model that reads and never answers."""
        wanted = tuple(ids)
        if self._state is not None and self._state_ids == wanted == tuple(self._lm.tokens(PROMPT)):
            return self._state
        self._begin_at_warmest(ids)
        self._state = self._lm.read({PROMPT: ids})[PROMPT]
        self._state_ids = wanted
        self._lm.checkpoint(PROMPT)
        return self._state

    def read_beside(self, prompts: Sequence[Sequence[int]]) -> list[Hidden]:
        """The hidden states at the ends of other prompts, each read as if it were the first.

        They take the sequences of beams, and leave nothing there. Raises as the model's `extend`.
        """
        lm, states = self._lm, []
        try:
            for batch in batches(prompts, lm.num_sequences - AHEAD):
                targets = dict(enumerate(batch, AHEAD))
                if lm.kv_strategy == "seq":  # what all of them begin with is there: it costs nothing
                    lm.fork(PROMPT, targets)
                found = lm.read(targets)
                states += [found[sequence] for sequence in targets]
        finally:
            self._drop(AHEAD)
        return states

    def _begin_at_warmest(self, ids: Sequence[int]) -> None:
        self._row = self._state = None
        warmest = self._warmest(ids)
        if warmest != PROMPT:
            self._lm.fork(warmest, [PROMPT])
        self._drop(AHEAD)

    def _known_row(self) -> Logits | None:
        return self._row if tuple(self._lm.tokens(PROMPT)) == self._row_ids else None

    def begin(self, ids: Sequence[int], store: PrefixStore) -> None:
        """Where nothing is held, hold what prompts begin with: restored, or decoded by itself and kept.

        Either way what follows comes in another batch, so that logits are the same.

        Raises:
            Cancelled, ContextFull, ModelError: as the model's `extend`.
        """
        if self._lm.tokens(PROMPT):
            return
        if not store.restore(self._lm, {PROMPT: ids}):
            self._lm.set_tokens({PROMPT: ids})
            store.keep(self._lm, {PROMPT: ids})
        self._lm.checkpoint(PROMPT)

    def read_ahead(self, ids: Sequence[int], prompt: Sequence[int]) -> None:
        """Decode what the next prompt will begin with, beside the last prompt, which a retry still finds.

        `prompt` is what that must be: of another one, whose question was undone, the rest is dropped.

        Raises:
            Cancelled, ContextFull, ModelError: as the model's `extend`; what was read until then is held.
        """
        lm, warmest = self._lm, self._warmest(ids)
        if warmest != AHEAD and lm.tokens(warmest):
            lm.fork(warmest, [AHEAD])
        self._drop(AHEAD + 1)
        self._keep_only(prompt)
        known = common_prefix(lm.tokens(AHEAD), ids)
        lm.truncate(AHEAD, known)
        for end in range(known + _AHEAD_TOKENS, len(ids) + _AHEAD_TOKENS, _AHEAD_TOKENS):
            lm.set_tokens({AHEAD: ids[:end]})

    def clear(self) -> None:
        """Hold nothing: the next prompt is decoded whole, in one shape whatever came before."""
        self._row = self._state = None
        self._drop(PROMPT)

    def save(self) -> SavedPrompt | None:
        """Copy the prompt and what goes on from it; None if nothing is held, or the model saves no states."""
        if not self._lm.saves:
            return None
        lm, prompt = self._lm, tuple(self._lm.tokens(PROMPT))
        ahead = max(range(AHEAD, lm.num_sequences), key=lambda s: len(lm.tokens(s)))
        held = [sequence for sequence in (ahead, PROMPT) if lm.tokens(sequence)]
        if lm.kv_strategy == "seq" and tuple(lm.tokens(ahead)[: len(prompt)]) == prompt:
            held = held[:1]
        return SavedPrompt(prompt, self._known_row(), tuple(map(lm.save, held))) if held else None

    def load(self, saved: SavedPrompt) -> None:
        """Hold what was saved, in a context of the same key.

        Raises:
            ModelError, ContextFull: it does not fit this model; nothing is held then.
        """
        self.clear()
        try:
            self._restore(saved)
        except BaseException:
            self._drop(PROMPT)
            raise
        self._row, self._row_ids = saved.row, saved.prompt

    def _restore(self, saved: SavedPrompt) -> None:
        lm, (*ahead, last) = self._lm, saved.states
        if last.tokens == saved.prompt:
            for state in ahead:
                lm.restore(AHEAD, state)
            with suppress(ContextFull):  # copies take more cells than the shared ones did
                lm.restore(PROMPT, last)
        else:
            lm.restore(AHEAD, last)
            lm.fork(AHEAD, [PROMPT])
            lm.truncate(PROMPT, len(saved.prompt))
        if lm.tokens(PROMPT):
            lm.checkpoint(PROMPT)

    def _keep_only(self, prompt: Sequence[int]) -> None:
        known = common_prefix(self._lm.tokens(PROMPT), prompt)
        if known < len(self._lm.tokens(PROMPT)):
            self._row = None
            self._lm.truncate(PROMPT, known)

    def _warmest(self, ids: Sequence[int]) -> int:
        lm = self._lm
        return max(range(lm.num_sequences), key=lambda s: (common_prefix(lm.tokens(s), ids), -s))

    def _drop(self, first: int) -> None:
        for sequence in range(first, self._lm.num_sequences):
            self._lm.truncate(sequence, 0)
