"""What comes in: texts of flags, records of stdin, rows of JSON."""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from select import select
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeVar

from alignbeam_local.config import KNOBS
from alignbeam_local.errors import UsageError
from alignbeam_local.paths import user_path
from alignbeam_local.reading import Utf8Stream, decoded, read_text
from alignbeam_local.result_json import json_line, one_of_each

from .console.terminal import say

if TYPE_CHECKING:
    from alignbeam_local.heads.labelled_requests import LabelledRequest
    from alignbeam_local.judge.check import Pair
    from alignbeam_local.prompt.message import Message

_CHUNK = 1 << 16


Row = TypeVar("Row", "Pair", "LabelledRequest")


def unseen(rows: Sequence[Row], what: str) -> list[Row]:
    """The rows that nothing is fitted on: all but those of split `fit`; if there are no others, these."""
    found = [row for row in rows if row.split != "fit"]
    if not found:
        say(f"note: these {what} are all of split `fit`: what was fitted on them is flattered")
        return list(rows)
    if len(found) < len(rows):
        say(f"note: {len(rows) - len(found)} {what} of split `fit` are left out")
    return found


def checked(text: str, what: str) -> str:
    """Raises: UsageError: lone surrogates: bytes of an argument, or escapes in JSON, that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{what} is not Unicode text",
            "Give it as UTF-8; a file whose name is other bytes must be renamed.",
        ) from None
    return text


def text_of(given: str, flag: str, *, waits: bool = True) -> str:
    """A text as it is; of `@FILE` what the file holds, without its last newline.

    `waits`: as `read_text`.

    Raises:
        UsageError: the file can't be read, or is no text; named with the flag or command that gave it.
    """
    if not given.startswith("@"):
        return given
    try:
        hint = "Its text must be in a file that you may read, in UTF-8."
        text = read_text(user_path(given[1:]), hint, waits=waits)
    except UsageError as error:
        raise UsageError(f"{flag}: {error.message}", error.hint) from None
    return text.removesuffix("\n")


class Arriving:
    """What the separators end, in UTF-8, as soon as it is there; an unended last record counts too."""

    def __init__(self, stream: IO[bytes], separator: bytes) -> None:
        self._stream = stream
        self._separator = separator
        self._utf8 = Utf8Stream()
        self._records: deque[bytes] = deque()
        self._pending: list[bytes] = []  # joined once: a long record comes in many chunks
        self._is_ended = False

    def take(self, *, wait: bool = True) -> bytes | None:
        """The next record; None at the end, or where it is not there and is not waited for."""
        while not self._records and not self._is_ended and (wait or is_ready(self._stream)):
            self._read()
        return self._records.popleft() if self._records else None

    def _read(self) -> None:
        chunk = self._stream.read1(_CHUNK)  # type: ignore[attr-defined]
        *ended, rest = self._utf8.push(chunk).split(self._separator)
        for record in ended:
            self._records.append(b"".join([*self._pending, record]))
            self._pending.clear()
        self._pending.append(rest)
        if not chunk:
            self._is_ended = True
            if last := b"".join(self._pending):
                self._records.append(last)


def is_ready(stream: IO[bytes]) -> bool:
    """Whether reading returns at once; true of what can't be asked."""
    try:
        return bool(select([stream], [], [], 0)[0])
    except (OSError, ValueError):
        return True


def records(stream: IO[bytes], separator: bytes) -> Iterator[bytes]:
    """All of them, waited for."""
    arriving = Arriving(stream, separator)
    while (record := arriving.take()) is not None:
        yield record


def is_blank(record: bytes) -> bool:
    """Whether there is nothing to answer in it."""
    return not record.strip()


def count_records(stream: IO[bytes], separator: bytes) -> int | None:
    """How many records that are not blank are still to come; None if reading them would use them up."""
    if not stream.seekable():
        return None
    start = stream.tell()
    count = sum(not is_blank(record) for record in records(stream, separator))
    stream.seek(start)
    return count


def parse_row(raw: bytes) -> dict[str, Any]:
    """Raises: UsageError: not one JSON object."""
    try:
        text = decoded(raw, "the line")
        row = json.loads(text, parse_constant=_no_number, object_pairs_hook=one_of_each)
        json_line(row)  # what is too deep to be written back fails here, as this row's error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {error}", "Write one object a line.") from None
    if not isinstance(row, dict):
        raise UsageError("not a JSON object", 'Write {"prompt": "..."}.')
    return row


def row_messages(row: Mapping[str, Any]) -> "list[Message]":
    """The conversation of a row: its `prompt`, or its `messages`, the last of them the user's.

    Raises:
        UsageError: neither or both, or not texts.
    """
    from pydantic import TypeAdapter, ValidationError

    from alignbeam_local.prompt.message import Message

    if ("prompt" in row) == ("messages" in row):
        raise UsageError("give either prompt or messages", 'Write {"prompt": "..."}.')
    turns = row["messages"] if "messages" in row else [{"role": "user", "content": row["prompt"]}]
    try:
        messages = TypeAdapter(list[Message]).validate_python(turns)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("messages", *first["loc"]))) if "messages" in row else "prompt"
        raise UsageError(
            f"{where}: {first['msg'].lower()}", "A message is a role (system, user, assistant) and a content."
        ) from None
    for message in messages:
        checked(message.content, "the prompt")
    if not messages or messages[-1].role != "user" or not messages[-1].content.strip():
        raise UsageError("there is nothing to answer", "The last message must be the user's, and not empty.")
    return messages


def row_knobs(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a row that are knobs, by their whole names: A, B and N may be anything."""
    return {name: value for name, value in row.items() if name in KNOBS}


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
