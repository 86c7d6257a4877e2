"""A model's prompt kept in sequence 0 between answers, so that a turn decodes only what is new."""

from collections.abc import Sequence

from .lm import LanguageModel, Logits, common_prefix

PROMPT = 0


class PromptCache:
    """Owns sequence 0 of a model; the others are the beams of the last answer."""

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
            self._drop_beams()
            return self._row
        self._row = None
        warmest = max(range(lm.num_sequences), key=lambda s: (common_prefix(lm.tokens(s), ids), -s))
        if warmest != PROMPT:
            lm.fork(warmest, [PROMPT])
        self._drop_beams()
        lm.set_tokens({PROMPT: ids})
        lm.checkpoint(PROMPT)
        self._row = lm.logits(PROMPT).copy()
        return self._row

    def _drop_beams(self) -> None:
        for sequence in range(1, self._lm.num_sequences):
            self._lm.truncate(sequence, 0)
