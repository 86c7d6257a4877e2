"""What is trained on: conversations of a JSON Lines file, and the same as ids, with the answer marked."""

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import ModelError, UsageError
from ..lm.vocabulary import Vocabulary
from ..prompt.answers import answer_ids
from ..prompt.formats import PromptFormat
from ..prompt.message import Message
from ..reading import decoded, whole_text
from ..result_json import parsed_row

_FORM = 'Each line: {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}.'
_ENCODING = "Convert the file to UTF-8."


class Conversation(NamedTuple):
    """A line of the file: turns that lead to an answer, and the answer."""

    line: int
    turns: tuple[Message, ...]
    answer: str


@dataclass(frozen=True)
class Sample:
    """A conversation as ids.

    Attributes:
        line: its line of the file, from 1.
        prompt: all up to where the answer begins.
        answer: what is learnt, the end of the turn included.
    """

    line: int
    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt + self.answer


class _Turn(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: str


class _Row(BaseModel):
    """One line of the file; datasets have further columns, which are not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    messages: tuple[_Turn, ...]


def read_conversations(path: Path) -> list[Conversation]:
    """The conversations of a file, one JSON object a line; of several answers only the last is learnt.

    Raises:
        UsageError: the file can't be read or holds none; a line is in another encoding, is no conversation,
            has no answer or no question before it, names a key twice, or its turns do not alternate.
    """
    rows = [_conversation(path, number, line) for number, line in _lines(path) if line.strip()]
    if not rows:
        raise UsageError(f"{path} is empty", _FORM)
    return rows


def encoded(
    path: Path,
    conversations: Iterable[Conversation],
    layout: PromptFormat,
    vocabulary: Vocabulary,
    context: int,
) -> list[Sample]:
    """Conversations as ids, in the model's own format; `path` is named by errors.

    Raises:
        UsageError: one is longer than `context` tokens.
        ModelError: the model's template refuses one, or the model reasons before every answer.
    """
    if layout.thinking == "thinks":
        raise ModelError(
            "the model reasons before every answer, and the data hold none of its reasoning",
            "Take a model that answers at once.",
        )
    return [_sample(path, one, layout, vocabulary, context) for one in conversations]


def _lines(path: Path) -> Sequence[tuple[int, str]]:
    """Lines by their number, each decoded by itself so that an error can name it."""
    if path.exists() and not (path.is_file() or path.is_dir()):  # the run's record hashes it once more
        raise UsageError(f"{path} is a pipe, a socket or a device", "Save what it holds to a file.")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", _FORM) from None
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return list(enumerate(whole_text(raw, str(path), _ENCODING).split("\n"), 1))
    if b"\0" in raw:  # JSON has none: it writes \u0000
        raise UsageError(f"{path} is not UTF-8: it holds zero bytes, like UTF-16 without a mark", _ENCODING)
    if raw.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        raise UsageError(f"{path} begins a JSON array; what is read is JSON Lines: one object a line", _FORM)
    lines = raw.removeprefix(codecs.BOM_UTF8).split(b"\n")
    return [(n, decoded(line, f"{path}, line {n}", hint=_ENCODING)) for n, line in enumerate(lines, 1)]


def _conversation(path: Path, number: int, line: str) -> Conversation:
    try:
        row = _Row.model_validate_json(line)
        parsed_row(line)  # a key that is there twice
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path}, line {number}: {where and f'{where}: '}{first['msg']}", _FORM) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}, line {number}: {error}", _FORM) from None
    *before, last = row.messages or (_Turn(role="user", content=""),)
    if last.role != "assistant" or not last.content.strip():
        raise UsageError(f"{path}, line {number} has no answer", _FORM)
    if not before or before[-1].role != "user":
        raise UsageError(f"{path}, line {number} has no question before its answer", _FORM)
    _require_order(f"{path}, line {number}", before)
    return Conversation(number, tuple(Message(t.role, t.content) for t in before), last.content)


def _require_order(where: str, turns: Sequence[_Turn]) -> None:
    """See that what stands before an answer is a talk. Raises: UsageError: naming what is not."""
    talk = turns[1:] if turns[0].role == "system" else turns
    for number, turn in enumerate(talk):
        expected = ("user", "assistant")[number % 2]
        if turn.role != expected:
            raise UsageError(
                f"{where}: a turn of {turn.role} stands where one of {expected} belongs",
                "A system turn may come first; then user and assistant take turns, the user first.",
            )
        if not turn.content.strip():
            raise UsageError(f"{where} has an empty turn of {turn.role}", _FORM)


def _sample(
    path: Path, one: Conversation, layout: PromptFormat, vocabulary: Vocabulary, context: int
) -> Sample:
    try:
        prompt = layout.encode(one.turns, vocabulary)
    except ModelError as error:
        raise ModelError(f"{path}, line {one.line}: {error.message}", error.hint) from None
    sample = Sample(one.line, tuple(prompt), tuple(answer_ids(one.answer, layout, vocabulary)))
    if len(sample.ids) > context:
        raise UsageError(
            f"{path}, line {one.line} has {len(sample.ids)} tokens, more than --context {context}",
            "Shorten it, or raise --context; memory grows with it.",
        )
    return sample
