"""What one answer's models read before it begins: the draft's prompt, its reasoning, the anchors' prompts."""

from collections.abc import Sequence
from dataclasses import replace

from ...config import Config
from ...heads.reading import read_request
from ...lm.language_model import Logits
from ...prompt.message import Message
from ...result import Steering
from ...search.steering import reading_of, steering_of
from ...search.thinking import Thought, think
from ..open_models import Anchor, OpenModels
from ..prompters import Prompter, prompters
from ..stopwatch import Stopwatch


class AnswerPrompts:
    """The prompts of one answer, each read once."""

    def __init__(self, models: OpenModels, config: Config, watch: Stopwatch) -> None:
        """Read nothing yet."""
        self._models = models
        self._config = config
        self._watch = watch
        self._draft, *self._anchors = prompters(models, config)
        self.prompt_tokens = 0
        self.prompt: list[int] = []  # what beams follow: a draft's reasoning included
        self.thought = Thought()
        self.anchor_prompts: list[list[int]] = []
        self.steering: Steering | None = None  # what the anchors' heads made of the request

    def read_draft(self, turns: Sequence[Message]) -> None:
        """Read the draft's prompt.

        Raises:
            ContextFull: it leaves no place for an answer.
        """
        self.prompt = self._draft.encode(turns)
        self.prompt_tokens = len(self.prompt)
        self._draft.require_fit(self.prompt_tokens)
        self.draft_row()

    def reason(self) -> None:
        """Let a draft that reasons do so; without an end (`thought.finished`) there is no answer."""
        draft = self._models.draft
        limit = min(self._config.max_tokens, draft.context - self.prompt_tokens - 1)
        row, think_end = self.draft_row(), draft.format.think_end
        self.thought = think(draft.lm, self._config, row, think_end=think_end, limit=limit)
        self.prompt = [*self.prompt, *self.thought.tokens]

    def draft_row(self) -> Logits:
        """The draft's logits behind the prompt, shape (draft's vocabulary,)."""
        with self._watch.part("draft_prefill_ms"):
            return self._draft.cache.row(self.prompt)

    def encode_anchors(self, turns: Sequence[Message]) -> None:
        """Work out each anchor's prompt.

        Raises:
            ContextFull: one leaves no place for an answer.
        """
        self.anchor_prompts = [anchor.encode(turns) for anchor in self._anchors]
        for anchor, ids in zip(self._anchors, self.anchor_prompts, strict=True):
            anchor.require_fit(len(ids))

    def read_request(self, turns: Sequence[Message]) -> Steering | None:
        """What the anchors' heads make of the request; None where none of them is to read it."""
        if not self._config.reads_request or not self._anchors:
            return None
        with self._watch.part("anchor_prefill_ms"):
            readings = [self._reading(a, turns) for a in self._models.anchors if a.reader]
        self.steering = reading_of(self._config, readings)
        return self.steering

    def read_anchors(self) -> list[Logits]:
        """Each anchor's logits behind its prompt."""
        with self._watch.part("anchor_prefill_ms"):
            return [
                anchor.cache.row(ids) for anchor, ids in zip(self._anchors, self.anchor_prompts, strict=True)
            ]

    def _reading(self, anchor: Anchor, turns: Sequence[Message]) -> Steering | None:
        """What one head makes of it; None: it could not read it."""
        assert anchor.reader is not None
        assert anchor.head is not None
        own = Prompter("anchor", anchor.reader, self._config)
        ids, num_tokens = own.encode_asked(turns), anchor.reader.lm.vocabulary.num_tokens
        found = read_request(own.cache, anchor.head, ids, turns, own.encode_alone, num_tokens=num_tokens)
        if found is None:
            return None
        limits = anchor.head.thresholds
        read = steering_of(self._config, found.worst, found.whole, low=limits.low, high=limits.high)
        return replace(read, partial=found.is_partial)
