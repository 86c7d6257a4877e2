"""A conversation as token ids, in each model's own format; contents never become control tokens."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, ClassVar, Literal, Protocol

from ..errors import ModelError, UsageError
from ..lm.language_model import common_prefix
from ..lm.vocabulary import Vocabulary
from .message import Message
from .placeholders import Part, filled, numbers_in, placeholder
from .template import HINT, ChatTemplate

Thinking = Literal["none", "silenced", "thinks"]

#: For a model that counts as one that reasons: its template cannot tell whether it does.
REASONS_HINT = "If it answers at once all the same, say so in models.toml: reasons = false."
#: Two texts that begin and end otherwise, for what prompts have in common.
PROBES = "One?", "Another!"
#: How reasoning begins and ends, by model family.
THINK_TAGS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
)

# Some GGUF files hold turn markers as user-defined tokens, which llama.cpp finds in any text.
_MARKER = re.compile(r"<[|｜][^<>]*[|｜]>|</?think>")
_BLANKS = " \t\n\v\f\r"


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
    """The conversation with each system prompt as first paragraph of the user turn after it."""
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
        return _encode(["\n\n".join(paragraphs)], vocabulary)

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
            parts = _filled(self.template, messages)
        except ModelError:
            if all(message.role != "system" for message in messages):
                raise
            parts = _filled(self.template, fold_system(messages))
        return self._ids(parts, vocabulary)

    def encode_exchange(self, messages: Sequence[Message], vocabulary: Vocabulary) -> list[int]:
        return self._ids(_filled(self.template, messages), vocabulary)

    def _ids(self, parts: Iterable[Part], vocabulary: Vocabulary) -> list[int]:
        return _encode(_runs(parts, self.special, vocabulary), vocabulary)


def _chat_format(source: str, vocabulary: Vocabulary, reasons: Literal[False] | None) -> ChatFormat:
    bos, eos = (vocabulary.text(t) if t is not None else "" for t in (vocabulary.bos, vocabulary.eos))
    template = ChatTemplate(source, bos, eos)
    _filled(template, [Message("user", "")])
    thinking, think_end = _thinking(template)
    if reasons is False and thinking == "thinks":
        _refuse_opened_reasoning(template)
        thinking, think_end = "none", ""
    # Behind a control token such a tokeniser puts a space, in answers as in prompts.
    strips = vocabulary.adds_space_prefix
    return ChatFormat(template, _special_pattern(vocabulary), thinking, think_end, strips)


def _special_pattern(vocabulary: Vocabulary) -> re.Pattern[str]:
    """Matches what spells a control or end token, the longest first, or looks like a turn marker."""
    spelt = {vocabulary.text(token) for token in vocabulary.control_tokens | vocabulary.end_tokens} - {""}
    words = sorted(spelt, key=lambda word: (-len(word), word))
    return re.compile("|".join([*map(re.escape, words), _MARKER.pattern]))


def _require_question(messages: Sequence[Message]) -> None:
    if not messages or messages[-1].role != "user":
        raise UsageError("a conversation must end with a user turn")


# --- rendering


class _ContentParts(list[dict[str, str]]):
    """A content as the parts that templates of multimodal models loop over; written whole it is nothing.

    So a template that writes contents as they are drops it, where Python's own notation would be a prompt.
    """

    def __str__(self) -> str:
        return ""


_Shape = Callable[[str], Any]


def _as_parts(content: str) -> _ContentParts:
    return _ContentParts([{"type": "text", "text": content}])


def _filled(template: ChatTemplate, messages: Sequence[Message]) -> list[Part]:
    """The rendered template, split where contents stand. Raises: ModelError: it refuses or drops one."""
    return filled(_rendered(template, messages), [message.content for message in messages])


def _rendered(template: ChatTemplate, messages: Sequence[Message], **flags: bool) -> str:
    """The template with placeholders: contents are strings, or parts where it takes no strings."""
    try:
        return _rendered_as(str, template, messages, **flags)
    except ModelError:
        with suppress(ModelError):
            return _rendered_as(_as_parts, template, messages, **flags)
        raise


def _rendered_as(shape: _Shape, template: ChatTemplate, messages: Sequence[Message], **flags: bool) -> str:
    marked = [{"role": m.role, "content": shape(placeholder(i))} for i, m in enumerate(messages)]
    text = template.render(marked, **flags)
    found = numbers_in(text)
    for index, message in enumerate(messages):
        if index not in found:
            raise ModelError(f"the chat template drops the {message.role} message", HINT)
    return text


def _thinking(template: ChatTemplate) -> tuple[Thinking, str]:
    """Whether a model with this template reasons although it is asked not to, and what ends it."""
    for start, end in THINK_TAGS:
        if start in template.source or end in template.source:
            return _silence(template, start, end), end
    return "none", ""


def _refuse_opened_reasoning(template: ChatTemplate) -> None:
    _, answer_start = _answer_start(template, enable_thinking=False)
    for start, end in THINK_TAGS:
        if answer_start.rfind(start) > answer_start.rfind(end):
            raise ModelError(
                f"the chat template begins every answer with {start}, yet models.toml says reasons = false",
                "Take that line out, or give the model a format that does not.",
            )


def _answer_start(template: ChatTemplate, *, enable_thinking: bool) -> tuple[str, str]:
    """A prompt of one question; and of it what the template puts behind the question."""
    prompt = _rendered(template, [Message("user", "")], enable_thinking=enable_thinking)
    return prompt, filled(prompt, [""])[-1].text


def _silence(template: ChatTemplate, start: str, end: str) -> Thinking:
    silent, answer_start = _answer_start(template, enable_thinking=False)
    loud, _ = _answer_start(template, enable_thinking=True)
    opened, closed = answer_start.rfind(start), answer_start.rfind(end)
    if opened == closed:  # neither is there: the switch, if there is one, works elsewhere in the prompt
        return "silenced" if silent != loud else "thinks"
    return "silenced" if closed > opened else "thinks"


# --- tokens


def _runs(parts: Iterable[Part], special: re.Pattern[str], vocabulary: Vocabulary) -> Iterator[str | int]:
    """Special tokens of the template, and the plain text between them, contents and the template's joined.

    Joined, because a tokeniser merges across their border (' Hello', '?\\n\\n') and models are used to it.
    """
    text = ""
    for part in parts:
        for item in [part.text] if part.is_content else _own_items(part.text, special, vocabulary):
            if isinstance(item, str):
                text += item
                continue
            if text:
                yield text
            yield item
            text = ""
    if text:
        yield text


def _own_items(text: str, special: re.Pattern[str], vocabulary: Vocabulary) -> Iterator[str | int]:
    """A template's own text as plain strings and the special tokens it spells."""
    position = 0
    for match in special.finditer(text):
        ids = vocabulary.encode_template(match[0])
        if len(ids) != 1 or match.start() < position:
            continue
        yield text[position : match.start()]
        yield ids[0]
        position = match.end()
        if vocabulary.encode_template(match[0] + "\n") == ids:  # Phi-3's markers swallow blanks
            position += len(text[position:]) - len(text[position:].lstrip(_BLANKS))
    yield text[position:]


def _encode(runs: Iterable[str | int], vocabulary: Vocabulary) -> list[int]:
    """Ids of plain texts and special tokens; each text begins as llama.cpp would begin it there."""
    prefix = " " if vocabulary.adds_space_prefix else ""
    ids: list[int] = []
    for run in runs:
        ids += [run] if isinstance(run, int) else _plain(prefix + run, vocabulary)
    return _with_one_bos(ids, vocabulary)


def _plain(text: str, vocabulary: Vocabulary) -> list[int]:
    """Ids of text, none of them special: where one comes out all the same the text is cut through it."""
    ids = vocabulary.encode(text)
    if not any(_is_special(token, vocabulary) for token in ids):
        return ids
    middle = len(text) // 2
    return _plain(text[:middle], vocabulary) + _plain(text[middle:], vocabulary) if middle else []


def _is_special(token: int, vocabulary: Vocabulary) -> bool:
    if token in vocabulary.control_tokens or token in vocabulary.end_tokens:
        return True
    piece = vocabulary.piece(token)
    return piece.startswith(b"<") and _MARKER.fullmatch(piece.decode("utf-8", "replace")) is not None


def _with_one_bos(ids: list[int], vocabulary: Vocabulary) -> list[int]:
    """Templates may write BOS, and llama.cpp may want it: once is right."""
    bos = vocabulary.bos
    if bos is None or not vocabulary.add_bos:
        return ids
    told = next((index for index, token in enumerate(ids) if token != bos), len(ids))
    return [bos, *ids[told:]]
