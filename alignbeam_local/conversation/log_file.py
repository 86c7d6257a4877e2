"""The log's file: its schema, how it is opened, and what its errors mean."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..errors import AlignBeamError
from ..paths import data_dir, ensure_dir

#: The statements that lead from each version of the schema to the next; the first ones make a new file.
MIGRATIONS = (
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
BUSY_SECONDS = 10.0
_HINTS = {
    sqlite3.SQLITE_BUSY: "Another process is writing to it: try again.",
    sqlite3.SQLITE_CORRUPT: "Nothing was changed. Move the file away; `sqlite3 FILE .recover` may read it.",
    sqlite3.SQLITE_NOTADB: "Nothing was changed. Move the file away, or put back a copy of it.",
}


def default_path() -> Path:
    """Where the conversations are kept, unless told otherwise."""
    return data_dir() / "logs" / "conversations.db"


def look_at(path: Path) -> int:
    """How many conversations a file holds; it is read as it is, and nothing is changed.

    Raises:
        AlignBeamError: it is damaged, a newer version's, cannot be read, or a write to them was interrupted.
    """
    with explained(path), closing(_opened_to_read(path)) as connection:
        _require_at_rest(path, connection)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        require_known(path, version)
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
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)


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


def require_known(path: Path, version: int) -> None:
    """Raises: AlignBeamError: a schema that is not known here."""
    if version > len(MIGRATIONS):
        raise AlignBeamError(f"{path} was written by a newer version", "Update AlignBeam Local.")


def identity_of(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of its name; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def make_private(path: Path) -> None:
    """SQLite gives its journal the mode of the file that it belongs to."""
    ensure_dir(path.parent).chmod(0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)


@contextmanager
def explained(path: Path) -> Iterator[None]:
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
