"""What a conversation leaves out when the context is full: its oldest exchanges, several at once."""

from bisect import bisect_left
from collections.abc import Sequence

from ..prompt.message import Message
from .prompters import Prompter


def left_out(prompters: Sequence[Prompter], turns: Sequence[Message], already: int) -> int:
    """How many leading turns no model reads any more, at least `already`; all models read the same.

    When something has to go, half of what the earlier turns may take is freed, so that the next turns find
    warm caches again. What stays begins with a user's turn.

    Raises:
        ContextFull: the last question does not fit by itself.
    """
    budgets = [_Budget(prompter, turns) for prompter in prompters]
    if all(budget.holds(already) for budget in budgets):
        return already
    starts = [at for at, turn in enumerate(turns) if turn.role == "user" and at >= already]
    for budget in budgets:
        budget.halve(starts[-1])
    return starts[bisect_left(starts, True, key=lambda start: all(b.holds(start) for b in budgets))]


class _Budget:
    """The tokens that one model has for a prompt, room for the answer set aside."""

    def __init__(self, prompter: Prompter, turns: Sequence[Message]) -> None:
        self._prompter = prompter
        self._turns = turns
        context, config = prompter.model.context, prompter.config
        draft_room = min(config.max_tokens, context // 4)
        self._limit = context - (draft_room if prompter.role == "draft" else config.mixed_depth)

    def holds(self, start: int) -> bool:
        """Whether the turns from `start` on fit."""
        return self._tokens(start) <= self._limit

    def halve(self, question: int) -> None:
        """Leave the last question and half of the room beside it. Raises: ContextFull: it does not fit."""
        alone = self._tokens(question)
        self._prompter.require_fit(alone)
        self._limit = alone + max(self._limit - alone, 0) // 2

    def _tokens(self, start: int) -> int:
        return len(self._prompter.encode(self._turns[start:]))
