"""A conversation as token ids, in each model's own format; contents never become control tokens."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import ClassVar, Literal, Protocol

from ..errors import ModelError, UsageError
from ..lm.language_model import common_prefix
from ..lm.vocabulary import Vocabulary
from .encoding import encode, runs, special_pattern
from .message import Message
from .placeholders import Part
from .reasoning import Thinking, refuse_opened_reasoning, thinking_of
from .rendering import rendered_parts
from .template import HINT, ChatTemplate

#: For a model that counts as one that reasons: its template cannot tell whether it does.
REASONS_HINT = "If it answers at once all the same, say so in models.toml: reasons = false."
#: Two texts that begin and end otherwise, for what prompts have in common.
PROBES = "One?", "Another!"


class PromptFormat(Protocol):
    """How a model reads a conversation and how its answer ends."""

    @property
    def source(self) -> str:
        """The template's text, or `base`: what a record of this format is keyed by."""

    @property
    def uses_template(self) -> bool: ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end an answer, besides the end tokens."""

    @property
    def strips_leading_space(self) -> bool:
        """Whether the space that an answer begins with belongs to the format."""

    @property
    def thinking(self) -> Thinking:
        """Whether the model reasons before it answers: no, switched off here, or always."""

    @property
    def think_end(self) -> str:
        """What ends the reasoning, control tokens spelt out; empty if `thinking` is none."""

    def encode(self, messages: Sequence[Message], vocabulary: Vocabulary) -> list[int]:
        """The conversation's ids up to where the answer begins, BOS included where the model wants one.

        Raises:
            UsageError: the conversation does not end with a user turn.
            ModelError: the template refuses it, or drops a message.
        """

    def encode_exchange(self, messages: Sequence[Message], vocabulary: Vocabulary) -> list[int]:
        """The ids of a conversation that ends with an answer, up to where what a classifier says begins.

        Raises:
            ModelError: no template, or it refuses the conversation or drops a message.
        """


def shared_prefix(encode: Callable[[str], Sequence[int]]) -> list[int]:
    """The ids that a prompt begins with whatever text is put into it."""
    one, other = map(encode, PROBES)
    return list(one[: common_prefix(one, other)])


def prompt_format(
    template: str | None,
    vocabulary: Vocabulary,
    override: str | None = None,
    reasons: Literal[False] | None = None,
) -> PromptFormat:
    """The format of a model with this chat template, or none.

    Args:
        override: base, chat or a Jinja text, in place of the template.
        reasons: False where a person says that the model answers at once; None: the template tells.

    Raises:
        ModelError: the template is broken or drops what the user says, `chat` is asked and there is none, or
            it opens a block of reasoning although `reasons` is False.
    """
    source = template if override in (None, "chat") else override
    if override == "base" or (override is None and not template):
        return BaseFormat()
    if not source:
        raise ModelError("the model has no chat template", HINT)
    return _chat_format(source, vocabulary, reasons)


def fold_system(messages: Iterable[Message]) -> list[Message]:
    """The conversation with each system prompt as first paragraph of the user turn after it.

    One behind the last user turn becomes that turn's last paragraph: nothing of a conversation is lost.
    """
    folded: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role == "system":
            waiting.append(message.content)
        elif message.role == "user":
            folded.append(Message("user", "\n\n".join([*waiting, message.content])))
            waiting = []
        else:
            folded.append(message)
    last = next((at for at in reversed(range(len(folded))) if folded[at].role == "user"), None)
    if waiting and last is not None:
        folded[last] = Message("user", "\n\n".join([folded[last].content, *waiting]))
    return folded


@dataclass(frozen=True)
class BaseFormat:
    """`Q: ...` and `A: ...` lines, for a model without a template (design: Prompts)."""

    source: ClassVar[str] = "base"
    uses_template: ClassVar[bool] = False
    stop_strings: ClassVar[tuple[str, ...]] = ("\nQ:",)
    strips_leading_space: ClassVar[bool] = True
    thinking: ClassVar[Thinking] = "none"
    think_end: ClassVar[str] = ""

    def encode(self, messages: Sequence[Message], vocabulary: Vocabulary) -> list[int]:
        _require_question(messages)
        system = list(takewhile(lambda message: message.role == "system", messages))
        turns = fold_system(messages[len(system) :])
        lines = [f"{'Q' if turn.role == 'user' else 'A'}: {turn.content}" for turn in turns]
        paragraphs = [*(message.content for message in system), "\n".join([*lines, "A:"])]
        return encode(["\n\n".join(paragraphs)], vocabulary)

    def encode_exchange(self, messages: Sequence[Message], vocabulary: Vocabulary) -> list[int]:
        raise ModelError("a classifier needs a chat template", "Choose another judge.")


@dataclass(frozen=True)
class ChatFormat:
    """A chat template, filled with placeholders; the contents are put in as plain text."""

    template: ChatTemplate = field(repr=False)
    special: re.Pattern[str] = field(repr=False)  # spellings of tokens that the template may write
    thinking: Thinking
    think_end: str
    strips_leading_space: bool
    uses_template: ClassVar[bool] = True
    stop_strings: ClassVar[tuple[str, ...]] = ()

    @property
    def source(self) -> str:
        return self.template.source

    def encode(self, messages: Sequence[Message], vocabulary: Vocabulary) -> list[int]:
        _require_question(messages)
        try:
            parts = rendered_parts(self.template, messages)
        except ModelError:
            if all(message.role != "system" for message in messages):
                raise
            parts = rendered_parts(self.template, fold_system(messages))
        return self._ids(parts, vocabulary)

    def encode_exchange(self, messages: Sequence[Message], vocabulary: Vocabulary) -> list[int]:
        return self._ids(rendered_parts(self.template, messages), vocabulary)

    def _ids(self, parts: Iterable[Part], vocabulary: Vocabulary) -> list[int]:
        return encode(runs(parts, self.special, vocabulary), vocabulary)


def _chat_format(source: str, vocabulary: Vocabulary, reasons: Literal[False] | None) -> ChatFormat:
    bos, eos = (vocabulary.text(t) if t is not None else "" for t in (vocabulary.bos, vocabulary.eos))
    template = ChatTemplate(source, bos, eos)
    rendered_parts(template, [Message("user", "")])
    thinking, think_end = thinking_of(template)
    if reasons is False and thinking == "thinks":
        refuse_opened_reasoning(template)
        thinking, think_end = "none", ""
    # Behind a control token such a tokeniser puts a space, in answers as in prompts.
    strips = vocabulary.adds_space_prefix
    return ChatFormat(template, special_pattern(vocabulary), thinking, think_end, strips)


def _require_question(messages: Sequence[Message]) -> None:
    if not messages or messages[-1].role != "user":
        raise UsageError("a conversation must end with a user turn")
