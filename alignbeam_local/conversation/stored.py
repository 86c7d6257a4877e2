"""What is kept of a conversation, as rows of the log."""

import json
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..errors import AlignBeamError, UsageError
from ..result import Result
from ..result_json import json_line

_EPOCH, _LATEST = datetime.fromtimestamp(0, UTC), datetime(9998, 1, 1, tzinfo=UTC)


class StoredConversation(NamedTuple):
    """A conversation without its exchanges. Times are UTC, ISO 8601; `updated` is the last question's."""

    id: str
    name: str | None
    started: str
    updated: str
    num_exchanges: int
    first_question: str | None
    draft: str | None


class StoredExchange(NamedTuple):
    """A question and its answer; `result` is the object that `--json` prints.

    `earlier` are those that stood in its place before, the oldest first; they were answered anew.
    """

    id: int
    conversation: str
    asked: str
    question: str
    answer: str
    result: dict[str, Any]
    earlier: "tuple[StoredExchange, ...]" = ()


def new_id() -> str:
    """An id for a conversation that begins."""
    return secrets.token_hex(6)


def checked_name(name: str) -> str:
    """Raises: UsageError: what cannot be a conversation's name."""
    if not name.strip() or not name.isprintable() or name.startswith("-"):
        raise UsageError(f"{name!r} cannot be a name", "Give one line of text that does not begin with '-'.")
    return name


def exchange_of(row: tuple[Any, ...]) -> StoredExchange:
    """Raises: AlignBeamError: what SQLite can't see: other bytes in a result."""
    *texts, raw = row
    try:
        result = json.loads(raw)
        _ = result["finish_reason"], result["config"]["system"], result["config"]["draft"]
        if not all(isinstance(text, str) for text in texts[1:]):
            raise TypeError
    except (ValueError, RecursionError, TypeError, KeyError):
        conversation = row[1]
        raise AlignBeamError(
            f"an answer kept in conversation {conversation} is damaged",
            f"`alignbeam logs prune {conversation}` deletes that conversation.",
        ) from None
    number, conversation, asked, question, answer = texts
    return StoredExchange(number, conversation, asked, question, answer, result)


def texts_of(question: str, result: Result | dict[str, Any]) -> tuple[str, str, str]:
    kept = result if isinstance(result, dict) else result.as_dict()
    return question, kept["text"], json_line(kept)


def time_of(text: str) -> str:
    """A time as it was kept; a damaged one is the epoch."""
    with suppress(ValueError, TypeError, OverflowError):
        if _EPOCH <= datetime.fromisoformat(text) <= _LATEST:
            return text
    return _EPOCH.isoformat(timespec="milliseconds")


def now() -> str:
    """The time as the log keeps it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
