"""Conversations kept on disk: one SQLite file, readable by the user alone.

It has a rollback journal, not a write-ahead log: at rest there is one file, and what is deleted stays in no
other. A killed process leaves a journal that the next opening rolls back. Search reads every text: no index
means none that still holds deleted words.
"""

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import UsageError, did_you_mean
from ..result import Result
from . import log_file
from .log_file import (
    BUSY_SECONDS,
    default_path,
    explained,
    identity_of,
    make_private,
    require_known,
)
from .stored import StoredConversation, StoredExchange, checked_name, exchange_of, now, texts_of, time_of

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
        with explained(self.path):
            make_private(self.path)
            self._connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            with explained(self.path):
                self._prepare()
            self._identity = identity_of(self.path)
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
        if self._identity is not None and identity_of(self.path) == self._identity:
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
                (conversation, asked or now(), *texts_of(question, result)),
            )
        assert row.lastrowid is not None
        return row.lastrowid

    def replace(self, exchange: int, question: str, result: Result | dict[str, Any]) -> None:
        """Put another question and answer in an exchange's place; what stood there is kept beside it.

        A result may be the object that `--json` prints.

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
                (now(), *texts_of(question, result), exchange),
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
        return [row._replace(started=time_of(row.started), updated=time_of(row.updated)) for row in rows]

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
        replaced = [exchange_of(row) for row in self._rows(_REPLACED, conversation)]
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
        require_known(self.path, version)
        if version == 0:
            run("PRAGMA auto_vacuum = FULL")  # what is deleted leaves the file
        if version < len(log_file.MIGRATIONS):
            self._migrate()

    def _migrate(self) -> None:
        with self._writing():
            for statements in log_file.MIGRATIONS[self._version() :]:  # another process may have been faster
                for statement in statements:
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {len(log_file.MIGRATIONS)}")

    def _version(self) -> int:
        (version,) = self._rows("PRAGMA user_version")[0]
        return int(version)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """All or nothing; the lock is taken first, so that no reader has to become a writer."""
        with explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:
                yield

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with explained(self.path):
            return self._connection.execute(query, values).fetchall()

    def _exchanges(self, rest: str, *values: object) -> list[StoredExchange]:
        return [exchange_of(row) for row in self._rows(f"{_EXCHANGES} {rest}", *values)]


def _holds(text: str, words: str) -> bool:
    """Whether a text holds each of the words, in any case."""
    folded = text.casefold()
    return all(word in folded for word in words.casefold().split())


@contextmanager
def _name_is_free(name: str | None) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError:
        raise UsageError(
            f"the name '{name}' is taken", "`alignbeam logs list` shows which conversation has it."
        ) from None
