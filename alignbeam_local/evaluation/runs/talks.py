"""Conversations of a run: their earlier turns as they are given, or asked one by one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ...config import Config
from ...errors import AlignBeamError, Cancelled, ContextFull
from ...prompt.message import Message
from ...result import REPLACED, Result
from ...result_json import error_object
from ..methods.method import Answerer
from ..methods.prompt import Prompt
from ..suites.suites import Item
from .run_directory import Json

#: Whose answers stand before the last question: those that the suite gives, or the model's own.
Turns = Literal["given", "own"]


@dataclass
class Talk:
    """A conversation as it goes: what was read so far, and what became of the last question."""

    item: Item
    config: Config
    read: list[Message] = field(default_factory=list)
    told: list[Json] = field(default_factory=list)
    found: Result | AlignBeamError | None = None

    def asked(self, question: str) -> tuple[Prompt, Config]:
        """A question as a method is asked it; one without turns before it stays a text."""
        return ([*self.read, Message("user", question)] if self.read else question), self.config

    def asked_last(self) -> tuple[Prompt, Config]:
        """The last question, with what its answer has begun with."""
        turns, config = self.asked(self.item.prompt)
        return turns, config.with_values({"prefill": self.item.prefill} if self.item.prefill else {})

    def take(self, question: str, answer: Result) -> None:
        """An earlier answer: blocked ones are kept, and not read by the models again, as in a chat."""
        kept = {"role": "assistant", "content": answer.text, "finish_reason": answer.finish_reason}
        self.told += [{"role": "user", "content": question}, kept]
        if answer.finish_reason not in REPLACED:
            self.read += [Message("user", question), Message("assistant", answer.text)]


@dataclass(frozen=True)
class Talked:
    """The last answer of a conversation, and the turns before it as a sample keeps them."""

    found: Result | AlignBeamError
    earlier: Json

    def sampled(self) -> Json:
        """What a sample says of it: a result, or why there is none.

        Raises:
            Cancelled: the user stopped it.
            AlignBeamError: another error than that it does not fit.
        """
        if isinstance(self.found, ContextFull):
            return {**self.earlier, "error": error_object(self.found)}
        if isinstance(self.found, AlignBeamError):
            raise self.found
        if self.found.finish_reason == "cancelled":
            raise Cancelled("cancelled")
        return {**self.earlier, "result": self.found.as_dict()}


def talk(answers: Answerer, asked: Sequence[tuple[Item, Config]], *, own: bool) -> list[Talked]:
    """The last answer of each conversation; what can't be answered on the way is what becomes of it.

    Args:
        answers: answers as many at once as are asked.
        asked: items with the knobs of each.
        own: ask the earlier questions too, and read on with what was answered.
    """
    talks = [Talk(item, config) for item, config in asked]
    for one in talks:
        if not own:
            one.read += one.item.earlier
            one.told += [{"role": turn.role, "content": turn.content} for turn in one.item.earlier]
    for turn in range(max(_questions(item) for item, _ in asked) if own else 0):
        _ask_earlier(
            answers, [one for one in talks if one.found is None and turn < _questions(one.item)], turn
        )
    left = [one for one in talks if one.found is None]
    if left:
        for one, found in zip(left, answers([one.asked_last() for one in left]), strict=True):
            one.found = found
    return [_talked(one) for one in talks]


def _questions(item: Item) -> int:
    """How many questions come before the last."""
    return len(item.earlier) // 2


def _ask_earlier(answers: Answerer, talks: Sequence[Talk], turn: int) -> None:
    if not talks:
        return
    questions = [one.item.earlier[2 * turn].content for one in talks]
    found = answers([one.asked(question) for one, question in zip(talks, questions, strict=True)])
    for one, question, answer in zip(talks, questions, found, strict=True):
        if isinstance(answer, Result) and answer.finish_reason != "cancelled":
            one.take(question, answer)
        else:
            one.found = answer


def _talked(one: Talk) -> Talked:
    assert one.found is not None
    return Talked(one.found, {"earlier": one.told} if one.told else {})
