"""Doctor looks at what is kept: conversations and the record of pulls, without changing them."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from alignbeam_local.config import Config
from alignbeam_local.conversation.log import ConversationLog
from alignbeam_local.conversation.log_file import default_path
from alignbeam_local.doctor import machine_checks as machine
from alignbeam_local.models.hashes import known_hashes_file
from alignbeam_local.paths import write_atomic

from .fake_engine import fake_result
from .running import run

pytestmark = pytest.mark.usefixtures("llama_cpp_asked_once")


@pytest.fixture
def path() -> Path:
    """A file with a conversation."""
    with ConversationLog() as log:
        log.add("aa11", "x", fake_result("y", Config.of({})))
    return default_path()


def test_no_conversations_are_no_problem() -> None:
    assert machine.conversations().level == "ok"
    assert not default_path().exists(), "looking makes nothing"


def test_conversations_are_counted_and_left_as_they_are(path: Path) -> None:
    before = path.stat().st_mtime_ns, path.read_bytes()
    found = machine.conversations()
    assert (found.level, found.details["conversations"]) == ("ok", 1)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    path.write_bytes(b"")
    assert machine.conversations().message.startswith("0 kept")


def _is_no_database(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


def _has_other_bytes(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * 4096 + content[8192:])


def _is_cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def _is_newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _has_no_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE exchange")


def _is_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _leads_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "gone")


@pytest.mark.parametrize(
    "damage",
    [_is_no_database, _has_other_bytes, _is_cut, _is_newer, _has_no_tables, _is_a_folder, _leads_nowhere],
)
def test_conversations_that_cannot_be_read_are_a_problem(damage: object, path: Path) -> None:
    assert callable(damage)
    damage(path)
    ran = run("doctor", "--json")
    (found,) = (one for one in json.loads(ran.out)["findings"] if one["topic"] == "logs")
    assert (ran.code, found["level"]) == (1, "problem")
    assert str(path) in found["message"]
    assert found["hint"]


def test_a_write_that_was_cut_short_waits_for_the_next_chat(path: Path) -> None:
    """A journal that is to be rolled back can't be by who only reads; the next opening does it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE exchange SET question = hex(zeroblob(200000))")
        killed = [(file, file.read_bytes()) for file in path.parent.iterdir()]
        connection.execute("ROLLBACK")
    for file, content in killed:
        file.write_bytes(content)
    assert len(killed) == 2
    found = machine.conversations()
    assert found.level == "problem"
    assert "a write to them was interrupted" in found.message
    assert "alignbeam logs list" in found.hint
    assert run("logs", "list").code == 0
    assert machine.conversations().level == "ok"


def test_a_damaged_record_of_pulls_is_a_problem() -> None:
    assert not list(machine.trusted_hashes())
    write_atomic(known_hashes_file(), "{")
    assert [found.level for found in machine.trusted_hashes()] == ["problem"]
    assert "known_hashes.json is damaged" in run("doctor").out


def test_an_address_that_is_none_is_seen_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example")
    assert "HF_ENDPOINT is not an http address" in run("doctor").out
