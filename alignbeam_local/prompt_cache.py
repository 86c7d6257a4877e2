"""A model's prompt kept in sequence 0 between answers, so that a turn decodes only what is new."""

from collections.abc import Sequence
from typing import NamedTuple

from .lm import LanguageModel, Logits, SequenceState, common_prefix

PROMPT, AHEAD = 0, 1
#: Tokens read ahead in one decode: what is lost when it is stopped.
_AHEAD_TOKENS = 64


class SavedPrompt(NamedTuple):
    """A prompt cache outside its context.

    `states`: what goes on longest from the prompt, then the prompt where it can't be cut out of that.
    """

    prompt: tuple[int, ...]
    row: Logits | None
    states: tuple[SequenceState, ...]


class PromptCache:
    """Owns sequence 0 of a model; the others are the beams of the last answer, or what goes on from it."""

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm
        self._row: Logits | None = None

    def row(self, ids: Sequence[int]) -> Logits:
        """The logits after a prompt, which sequence 0 then holds; beams of the last answer are gone.

        Whatever sequence shares most with the prompt is where decoding goes on: after an answer that is the
        chosen beam. A prompt that is held already costs nothing.
        """
        lm = self._lm
        if self._row is not None and list(lm.tokens(PROMPT)) == list(ids):
            self._drop(AHEAD)
            return self._row
        self._row = None
        warmest = self._warmest(ids)
        if warmest != PROMPT:
            lm.fork(warmest, [PROMPT])
        self._drop(AHEAD)
        lm.set_tokens({PROMPT: ids})
        lm.checkpoint(PROMPT)
        self._row = lm.logits(PROMPT).copy()
        return self._row

    def read_ahead(self, ids: Sequence[int]) -> None:
        """Decode what the next prompt will begin with, beside the prompt, which a retry still finds.

        Raises:
            Cancelled, ContextFull, ModelError: as the model's `extend`; what was read until then is held.
        """
        lm, warmest = self._lm, self._warmest(ids)
        if warmest != AHEAD and lm.tokens(warmest):
            lm.fork(warmest, [AHEAD])
        self._drop(AHEAD + 1)
        known = common_prefix(lm.tokens(AHEAD), ids)
        for end in range(known + _AHEAD_TOKENS, len(ids) + _AHEAD_TOKENS, _AHEAD_TOKENS):
            lm.set_tokens({AHEAD: ids[:end]})

    def save(self) -> SavedPrompt | None:
        """Copy the prompt and what goes on from it; None if there is no prompt."""
        lm, prompt = self._lm, tuple(self._lm.tokens(PROMPT))
        if not prompt:
            return None
        held = [s for s in range(lm.num_sequences) if tuple(lm.tokens(s)[: len(prompt)]) == prompt]
        longest = max(held, key=lambda s: (len(lm.tokens(s)), -s))
        needed = {longest} if lm.kv_strategy == "seq" else {longest, PROMPT}
        return SavedPrompt(prompt, self._row, tuple(lm.save(s) for s in sorted(needed, reverse=True)))

    def load(self, saved: SavedPrompt) -> None:
        """Hold what was saved, in a context of the same key.

        Raises:
            ModelError, ContextFull: it does not fit this model; nothing is held then.
        """
        self._row = None
        self._drop(PROMPT)
        try:
            self._restore(saved)
        except BaseException:
            self._drop(PROMPT)
            raise
        self._row = saved.row

    def _restore(self, saved: SavedPrompt) -> None:
        lm = self._lm
        *ahead, last = saved.states
        for state in ahead:
            lm.restore(AHEAD, state)
        if last.tokens == saved.prompt:
            lm.restore(PROMPT, last)
        else:
            lm.restore(AHEAD, last)
            lm.fork(AHEAD, [PROMPT])
            lm.truncate(PROMPT, len(saved.prompt))
        lm.checkpoint(PROMPT)

    def _warmest(self, ids: Sequence[int]) -> int:
        lm = self._lm
        return max(range(lm.num_sequences), key=lambda s: (common_prefix(lm.tokens(s), ids), -s))

    def _drop(self, first: int) -> None:
        for sequence in range(first, self._lm.num_sequences):
            self._lm.truncate(sequence, 0)
