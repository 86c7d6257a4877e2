"""Conversations kept on disk: one SQLite file, readable by the user alone.

It has a rollback journal, not a write-ahead log: at rest there is one file, and what is deleted stays in no
other. A killed process leaves a journal that the next opening rolls back. Search reads every text: no index
means none that still holds deleted words.
"""

import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from ..errors import AlignBeamError, UsageError, did_you_mean
from ..paths import data_dir, ensure_dir
from ..result import Result
from ..result_json import json_line

#: The statements that lead from each version of the schema to the next; the first ones make a new file.
_MIGRATIONS = (
    (
        "CREATE TABLE conversation (id TEXT PRIMARY KEY, name TEXT UNIQUE, started TEXT NOT NULL)",
        """
        CREATE TABLE exchange (
          id INTEGER PRIMARY KEY AUTOINCREMENT,
          conversation TEXT NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
          asked TEXT NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL, result TEXT NOT NULL
        )
        """,
        "CREATE INDEX exchange_conversation ON exchange (conversation)",
    ),
    (
        """
        CREATE TABLE replaced (
          id INTEGER PRIMARY KEY AUTOINCREMENT,
          exchange INTEGER NOT NULL REFERENCES exchange (id) ON DELETE CASCADE,
          asked TEXT NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL, result TEXT NOT NULL
        )
        """,
        "CREATE INDEX replaced_exchange ON replaced (exchange)",
    ),
)
_CONVERSATIONS = """
    SELECT c.id, c.name, c.started, coalesce(last.asked, c.started), coalesce(span.num, 0),
      first.question,
      CASE WHEN json_valid(last.result) THEN json_extract(last.result, '$.config.draft') END
    FROM conversation c
    LEFT JOIN (SELECT conversation, min(id) AS first, max(id) AS last, count(*) AS num
      FROM exchange GROUP BY conversation) span ON span.conversation = c.id
    LEFT JOIN exchange first ON first.id = span.first
    LEFT JOIN exchange last ON last.id = span.last
    ORDER BY coalesce(last.asked, c.started) DESC, last.id DESC
"""
_EXCHANGES = "SELECT id, conversation, asked, question, answer, result FROM exchange"
_REPLACED = """
    SELECT e.id, e.conversation, r.asked, r.question, r.answer, r.result
    FROM replaced r JOIN exchange e ON e.id = r.exchange WHERE e.conversation = ? ORDER BY r.id
"""
_BUSY_SECONDS = 10.0
_EPOCH, _LATEST = datetime.fromtimestamp(0, UTC), datetime(9998, 1, 1, tzinfo=UTC)
_HINTS = {
    sqlite3.SQLITE_BUSY: "Another process is writing to it: try again.",
    sqlite3.SQLITE_CORRUPT: "Nothing was changed. Move the file away; `sqlite3 FILE .recover` may read it.",
    sqlite3.SQLITE_NOTADB: "Nothing was changed. Move the file away, or put back a copy of it.",
}


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


class ConversationLog:
    """The file, open. Several processes may have it open; each method is one transaction."""

    def __init__(self, path: Path | None = None) -> None:
        """Open it, made if it is not there, brought up to this version's schema if it is older.

        Raises:
            AlignBeamError: it is damaged, a newer version's, or cannot be read and written.
        """
        self.path = path or default_path()
        self._identity: tuple[int, int] | None = None
        self._open()

    def _open(self) -> None:
        with _explained(self.path):
            _make_private(self.path)
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            with _explained(self.path):
                self._prepare()
            self._identity = _identity(self.path)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def reopen_if_gone(self) -> bool:
        """Open the file anew if it was removed or replaced meanwhile; whether that was so.

        Raises:
            AlignBeamError: as when it was opened first.
        """
        if self._identity is not None and _identity(self.path) == self._identity:
            return False
        self.close()
        self._identity = None
        self._open()
        return True

    @property
    def claims_dir(self) -> Path:
        """Where chats say which conversations they have open."""
        return self.path.parent / "open"

    # --- writing

    def add(
        self,
        conversation: str,
        question: str,
        result: Result | dict[str, Any],
        *,
        name: str | None = None,
        asked: str | None = None,
    ) -> int:
        """Keep an exchange and return its id; a conversation that is not there yet begins, with this name.

        A result may be the object that `--json` prints. `asked` is when, if not now.

        Raises:
            UsageError: the name is taken or cannot be one.
        """
        with self._writing(), _name_is_free(name):
            self._connection.execute(
                "INSERT INTO conversation VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING",
                (conversation, name and checked_name(name), now()),
            )
            row = self._connection.execute(
                "INSERT INTO exchange (conversation, asked, question, answer, result) VALUES (?, ?, ?, ?, ?)",
                (conversation, asked or now(), *_texts(question, result)),
            )
        assert row.lastrowid is not None
        return row.lastrowid

    def replace(self, exchange: int, question: str, result: Result) -> None:
        """Put another question and answer in an exchange's place; what stood there is kept beside it.

        Raises:
            UsageError: it is not there; another process deleted it.
        """
        with self._writing():
            self._connection.execute(
                "INSERT INTO replaced (exchange, asked, question, answer, result)"
                " SELECT id, asked, question, answer, result FROM exchange WHERE id = ?",
                (exchange,),
            )
            row = self._connection.execute(
                "UPDATE exchange SET asked = ?, question = ?, answer = ?, result = ? WHERE id = ?",
                (now(), *_texts(question, result), exchange),
            )
            if row.rowcount == 0:
                raise UsageError("the answer to replace was deleted meanwhile", "Ask the question again.")

    def drop(self, exchange: int) -> None:
        """Forget an exchange; its conversation stays, even if it is empty now."""
        with self._writing():
            self._connection.execute("DELETE FROM exchange WHERE id = ?", (exchange,))

    def rename(self, conversation: str, name: str) -> None:
        """Name a conversation; one that is not there yet begins, without exchanges.

        Raises:
            UsageError: the name is taken or cannot be one.
        """
        with self._writing(), _name_is_free(name):
            self._connection.execute(
                "INSERT INTO conversation VALUES (?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET name = excluded.name",
                (conversation, checked_name(name), now()),
            )

    def delete(self, conversations: Sequence[str]) -> None:
        """Remove conversations and their kept states; their bytes in the file are overwritten."""
        with self._writing():
            for conversation in conversations:
                with suppress(FileNotFoundError):
                    shutil.rmtree(self.state_dir(conversation))
            self._connection.executemany(
                "DELETE FROM conversation WHERE id = ?", [(conversation,) for conversation in conversations]
            )

    # --- reading

    def conversations(self, limit: int = -1) -> list[StoredConversation]:
        """The last used first; a limit under 0 is none."""
        rows = map(StoredConversation._make, self._rows(f"{_CONVERSATIONS} LIMIT ?", limit))
        return [row._replace(started=_time(row.started), updated=_time(row.updated)) for row in rows]

    def last(self) -> StoredConversation | None:
        """The one that was used last."""
        return next(iter(self.conversations(1)), None)

    def find(self, word: str) -> StoredConversation:
        """By its name, or by how its id begins.

        Raises:
            UsageError: there is none, or more than one.
        """
        every = self.conversations()
        if named := [one for one in every if word in (one.name, one.id)]:
            return named[0]
        begun = [one for one in every if word and one.id.startswith(word)]
        if len(begun) == 1:
            return begun[0]
        if begun:
            raise UsageError(
                f"'{word}' is the beginning of {len(begun)} conversations", "Give more of the id."
            )
        names = [one.name for one in every if one.name]
        hint = did_you_mean(word, names, "`alignbeam logs list` shows them.")
        raise UsageError(f"no conversation '{word}'", hint)

    def exchanges(self, conversation: str) -> list[StoredExchange]:
        """All of a conversation, in order, each with what stood in its place before."""
        replaced = [_exchange(row) for row in self._rows(_REPLACED, conversation)]
        return [
            one._replace(earlier=tuple(old for old in replaced if old.id == one.id))
            for one in self._exchanges("WHERE conversation = ? ORDER BY id", conversation)
        ]

    def search(self, words: str, limit: int = -1) -> list[StoredExchange]:
        """The exchanges whose question and answer hold each of the words, in any case; the newest first."""
        test = "holds(question || char(10) || answer, ?)"
        return self._exchanges(f"WHERE {test} ORDER BY id DESC LIMIT ?", words, limit)

    def state_dir(self, conversation: str) -> Path:
        """Where a conversation's KV states are kept; not made here, removed with the conversation."""
        return self.path.parent / "states" / conversation

    # --- the file

    def _prepare(self) -> None:
        run = self._connection.execute
        self._connection.create_function("holds", 2, _holds, deterministic=True)
        run("PRAGMA secure_delete = ON")
        run("PRAGMA foreign_keys = ON")
        run("PRAGMA temp_store = MEMORY")
        version = self._version()
        _require_known(self.path, version)
        if version == 0:
            run("PRAGMA auto_vacuum = FULL")  # what is deleted leaves the file
        if version < len(_MIGRATIONS):
            self._migrate()

    def _migrate(self) -> None:
        with self._writing():
            for statements in _MIGRATIONS[self._version() :]:  # another process may have been faster
                for statement in statements:
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")

    def _version(self) -> int:
        (version,) = self._rows("PRAGMA user_version")[0]
        return int(version)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """All or nothing; the lock is taken first, so that no reader has to become a writer."""
        with _explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:
                yield

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with _explained(self.path):
            return self._connection.execute(query, values).fetchall()

    def _exchanges(self, rest: str, *values: object) -> list[StoredExchange]:
        return [_exchange(row) for row in self._rows(f"{_EXCHANGES} {rest}", *values)]


def default_path() -> Path:
    """Where the conversations are kept, unless told otherwise."""
    return data_dir() / "logs" / "conversations.db"


def look_at(path: Path) -> int:
    """How many conversations a file holds; it is read as it is, and nothing is changed.

    Raises:
        AlignBeamError: it is damaged, a newer version's, cannot be read, or a write to them was interrupted.
    """
    with _explained(path), closing(_opened_to_read(path)) as connection:
        _require_at_rest(path, connection)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        _require_known(path, version)
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            hint = _HINTS[sqlite3.SQLITE_CORRUPT]
            raise AlignBeamError(f"the conversations in {path} are damaged: {found}", hint)
        query = (
            "SELECT count(*) FROM conversation WHERE (SELECT count(*) FROM exchange) >= 0"  # both are there
        )
        return int(connection.execute(query).fetchone()[0]) if version else 0


def _opened_to_read(path: Path) -> sqlite3.Connection:
    path.open("rb").close()  # what is no file, or may not be read, is told by the system's own word for it
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)


def _require_at_rest(path: Path, connection: sqlite3.Connection) -> None:
    """Raises: AlignBeamError: a killed process left a journal, which only who writes can roll back."""
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
            raise
        raise AlignBeamError(
            f"the conversations in {path}: a write to them was interrupted",
            "Earlier conversations are intact: `alignbeam logs list` undoes the partial write.",
        ) from None


def _require_known(path: Path, version: int) -> None:
    """Raises: AlignBeamError: a schema that is not known here."""
    if version > len(_MIGRATIONS):
        raise AlignBeamError(f"{path} was written by a newer version", "Update AlignBeam Local.")


def new_id() -> str:
    """An id for a conversation that begins."""
    return secrets.token_hex(6)


def checked_name(name: str) -> str:
    """Raises: UsageError: what cannot be a conversation's name."""
    if not name.strip() or not name.isprintable() or name.startswith("-"):
        raise UsageError(f"{name!r} cannot be a name", "Give one line of text that does not begin with '-'.")
    return name


def _exchange(row: tuple[Any, ...]) -> StoredExchange:
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


def _texts(question: str, result: Result | dict[str, Any]) -> tuple[str, str, str]:
    kept = result if isinstance(result, dict) else result.as_dict()
    return question, kept["text"], json_line(kept)


def _holds(text: str, words: str) -> bool:
    """Whether a text holds each of the words, in any case."""
    folded = text.casefold()
    return all(word in folded for word in words.casefold().split())


def _time(text: str) -> str:
    """A time as it was kept; a damaged one is the epoch."""
    with suppress(ValueError, TypeError, OverflowError):
        if _EPOCH <= datetime.fromisoformat(text) <= _LATEST:
            return text
    return _EPOCH.isoformat(timespec="milliseconds")


def now() -> str:
    """The time as the log keeps it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of its name; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _make_private(path: Path) -> None:
    """SQLite gives its journal the mode of the file that it belongs to."""
    ensure_dir(path.parent).chmod(0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)


@contextmanager
def _name_is_free(name: str | None) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError:
        raise UsageError(
            f"the name '{name}' is taken", "`alignbeam logs list` shows which conversation has it."
        ) from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raises: AlignBeamError: whatever SQLite or the file system says, and what to do about it."""
    try:
        yield
    except sqlite3.Error as error:
        hint = _HINTS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        raise AlignBeamError(
            f"the conversations in {path}: {error}", hint or "Check permissions and disk space."
        ) from None
    except UnicodeDecodeError as error:  # in the text of an error of SQLite's
        hint = _HINTS[sqlite3.SQLITE_CORRUPT]
        raise AlignBeamError(f"the conversations in {path} are damaged: {error}", hint) from None
    except OSError as error:
        raise AlignBeamError(f"cannot open {path}: {error.strerror}", "Check its permissions.") from None
