"""The conversations on disk: private, whole after a kill, shared between processes."""

import multiprocessing
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignbeam_local.config import Config
from alignbeam_local.conversation import log_file
from alignbeam_local.conversation.log import ConversationLog
from alignbeam_local.conversation.log_file import default_path
from alignbeam_local.conversation.stored import new_id
from alignbeam_local.errors import AlignBeamError, UsageError

from .fake_engine import REFUSED, fake_result
from .running import no_file_beyond, run

CONFIG = Config.of({"draft": "smollm2-135m-instruct"})


@pytest.fixture
def log() -> Iterator[ConversationLog]:
    with ConversationLog() as opened:
        yield opened


def add(log: ConversationLog, conversation: str, question: str, answer: str, name: str | None = None) -> int:
    return log.add(conversation, question, fake_result(answer, CONFIG), name=name)


def said(log: ConversationLog, conversation: str) -> list[str]:
    return [text for one in log.exchanges(conversation) for text in (one.question, one.answer)]


def test_an_exchange_comes_back_as_it_was(log: ConversationLog) -> None:
    first = add(log, "aa11", "Was ist Öl?\n\0\x1b[2J", "Fett 🛢", name="öl")
    second = log.add("aa11", "x", fake_result(REFUSED, CONFIG, "blocked"))
    assert said(log, "aa11") == ["Was ist Öl?\n\0\x1b[2J", "Fett 🛢", "x", REFUSED]
    one, two = log.exchanges("aa11")
    assert (one.id, two.id, two.result["finish_reason"]) == (first, second, "blocked")
    assert Config.of(one.result["config"]) == CONFIG
    kept = log.find("öl")
    assert (kept.id, kept.num_exchanges, kept.updated) == ("aa11", 2, two.asked)
    assert (kept.first_question, kept.draft) == ("Was ist Öl?\n\0\x1b[2J", "smollm2-135m-instruct")


def test_an_exchange_is_replaced_in_its_place_and_dropped(log: ConversationLog) -> None:
    first, second = add(log, "c", "a", "1"), add(log, "c", "b", "2")
    log.replace(first, "A", fake_result("one", CONFIG))
    assert said(log, "c") == ["A", "one", "b", "2"]
    log.drop(second)
    assert add(log, "c", "d", "4") > second  # another process may still hold the dropped one's id
    assert said(log, "c") == ["A", "one", "d", "4"]
    with pytest.raises(UsageError, match="deleted meanwhile"):
        log.replace(second, "b", fake_result("2", CONFIG))


def test_the_last_used_comes_first(log: ConversationLog) -> None:
    assert log.last() is None
    for conversation in ("one", "two", "one"):
        add(log, conversation, "q", "a")
    assert [one.id for one in log.conversations()] == ["one", "two"]
    last = log.last()
    assert last is not None
    assert (last.id, last.num_exchanges) == ("one", 2)
    assert len(log.conversations(limit=1)) == 1


def test_an_answer_that_was_replaced_counts_as_use(
    log: ConversationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(f"2026-05-01T00:00:0{second}.000+00:00" for second in range(9))
    monkeypatch.setattr("alignbeam_local.conversation.log.now", lambda: next(times))
    first = add(log, "one", "q", "a")
    add(log, "two", "q", "a")
    log.replace(first, "q", fake_result("b", CONFIG))
    assert [one.id for one in log.conversations()] == ["one", "two"]


def test_finding_by_name_and_by_the_beginning_of_an_id(log: ConversationLog) -> None:
    for conversation, name in (("ab12", "tea"), ("ab34", None), ("cd56", "ab")):
        add(log, conversation, "q", "a", name)
    assert [log.find(word).id for word in ("tea", "ab", "ab3", "cd56")] == ["ab12", "cd56", "ab34", "cd56"]
    log.rename("cd56", "coffee")
    with pytest.raises(UsageError, match="the beginning of 2"):
        log.find("ab")
    with pytest.raises(UsageError) as failed:
        log.find("teaa")
    assert failed.value.hint == "Did you mean tea?"
    with pytest.raises(UsageError, match="no conversation ''"):
        log.find("")


def test_a_name_is_given_once_and_is_one_line(log: ConversationLog) -> None:
    add(log, "one", "q", "a", "tea")
    with pytest.raises(UsageError, match="taken"):
        add(log, "two", "q", "a", "tea")
    assert [one.id for one in log.conversations()] == ["one"]  # nothing of the other one was kept
    add(log, "two", "q", "a")
    with pytest.raises(UsageError, match="taken"):
        log.rename("two", "tea")
    for name in ("", " ", "a\nb", "-x", "\x1b[2J"):
        with pytest.raises(UsageError, match="cannot be a name"):
            log.rename("two", name)


def test_a_name_can_be_given_before_the_first_exchange_and_after_the_last(log: ConversationLog) -> None:
    log.rename("one", "tea")
    with pytest.raises(UsageError, match="taken"):
        log.rename("two", "tea")
    log.drop(add(log, "one", "q", "a"))
    log.rename("one", "coffee")
    assert (log.find("coffee").id, log.find("coffee").num_exchanges) == ("one", 0)


def test_search_finds_all_words_in_any_case_and_script(log: ConversationLog) -> None:
    add(log, "one", "Wie heißt die STRASSE?", "Ölweg 100%")
    add(log, "two", "路在哪里", "前面")
    assert [found.conversation for found in log.search("straße ölweg")] == ["one"]
    assert [found.conversation for found in log.search("在哪")] == ["two"]
    assert [found.conversation for found in log.search("100%")] == ["one"]
    assert log.search("straße 前面") == []
    assert log.search("路 " * 40_000)[0].conversation == "two"
    assert log.search(" ".join(map(str, range(40_000)))) == []
    assert len(log.search("", limit=1)) == 1


def test_what_is_deleted_is_gone_from_the_file(log: ConversationLog) -> None:
    add(log, "secret", "my password is hunter2", "noted " * 5000)
    add(log, "other", "q", "a")
    log.state_dir("secret").mkdir(parents=True)
    (log.state_dir("secret") / "draft.bin").write_bytes(b"state")
    size = log.path.stat().st_size
    log.delete(["secret", "never there"])
    assert [one.id for one in log.conversations()] == ["other"]
    assert log.exchanges("secret") == []
    assert not log.state_dir("secret").exists()
    assert log.path.stat().st_size < size
    assert b"hunter2" not in log.path.read_bytes()
    assert [file.name for file in log.path.parent.iterdir() if file.is_file()] == [log.path.name]


def test_the_files_are_the_users_alone() -> None:
    default_path().parent.mkdir(parents=True, mode=0o755)
    default_path().touch(0o644)
    with ConversationLog() as log, log._writing():
        log._connection.execute("INSERT INTO conversation VALUES ('x', NULL, '')")
        modes = {path.name: path.stat().st_mode & 0o777 for path in log.path.parent.iterdir()}
    assert modes == {"conversations.db": 0o600, "conversations.db-journal": 0o600}
    assert log.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_newer_versions_file_is_left_alone(log: ConversationLog) -> None:
    log._connection.execute("PRAGMA user_version = 99")
    before = log.path.read_bytes()
    with pytest.raises(AlignBeamError, match="newer version"):
        ConversationLog()
    assert log.path.read_bytes() == before


def test_an_older_versions_file_is_brought_up(log: ConversationLog, monkeypatch: pytest.MonkeyPatch) -> None:
    add(log, "one", "q", "a")
    later = (*log_file.MIGRATIONS, ("ALTER TABLE conversation ADD COLUMN pinned INTEGER",))
    monkeypatch.setattr(log_file, "MIGRATIONS", later)
    with ConversationLog() as newer:
        assert newer._rows("SELECT id, pinned FROM conversation") == [("one", None)]
        assert newer._version() == len(later)


def test_a_migration_that_fails_changes_nothing(
    log: ConversationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ("ALTER TABLE conversation ADD COLUMN pinned INTEGER", "no SQL")
    before = log_file.MIGRATIONS
    monkeypatch.setattr(log_file, "MIGRATIONS", (*before, broken))
    with pytest.raises(AlignBeamError, match="syntax error"):
        ConversationLog()
    assert log._version() == len(before)
    assert log._rows("SELECT * FROM conversation") == []


@pytest.mark.parametrize("damage", ["garbage", "cut"])
def test_a_damaged_file_is_an_error_and_stays(log: ConversationLog, damage: str) -> None:
    for number in range(4):
        add(log, "one", f"q{number}", "a" * 20_000)
    log.close()
    whole = log.path.read_bytes()
    log.path.write_bytes(b"no database " * 500 if damage == "garbage" else whole[: len(whole) // 2])
    before = log.path.read_bytes()
    with pytest.raises(AlignBeamError) as failed, ConversationLog() as opened:
        opened.exchanges("one")
    assert str(log.path) in failed.value.message
    assert "Move the file away" in failed.value.hint
    assert log.path.read_bytes() == before


def put(log: ConversationLog, column: str, value: str | bytes) -> None:
    """Stands for other bytes in the file, which SQLite has no checksums against."""
    table = "conversation" if column == "started" else "exchange"
    log._connection.execute(f"UPDATE {table} SET {column} = ?", (value,))


@pytest.mark.parametrize(
    "result", ["{", "[" * 100_000, "[]", '{"text": "a", "finish_reason": "stop", "konfig": {}}']
)
@pytest.mark.parametrize("words", [("show",), ("export",), ("search", "q")])
def test_a_damaged_answer_is_an_error_and_can_be_deleted(
    log: ConversationLog, result: str, words: tuple[str, ...]
) -> None:
    add(log, "c0ffee", "q", "a")
    put(log, "result", result)
    ran = run("logs", *words)
    assert (ran.code, ran.out) == (1, "")
    assert "hint: `alignbeam logs prune c0ffee`" in ran.err
    assert run("logs", "list").code == 0
    assert run("logs", "prune", "c0ffee", "--yes").code == 0
    assert log.conversations() == []


@pytest.mark.parametrize(
    ("column", "time"), [("asked", "2026-x"), ("started", "noon"), ("asked", b"\0"), ("asked", "0001-01-01")]
)
def test_a_damaged_time_is_the_epoch(log: ConversationLog, column: str, time: str | bytes) -> None:
    add(log, "c", "q", "a")
    put(log, column, time)
    assert "1970-01-01" in run("logs", "list", "--json").out
    assert run("logs", "prune", "--older-than", "1w", "--yes").err == (
        "deleted 1 conversation\n" if column == "asked" else "there is nothing to delete\n"
    )


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AlignBeamError, match="cannot open"):
        ConversationLog(tmp_path / "file" / "log.db")


def test_two_writers_wait_for_each_other() -> None:
    def write(name: str) -> None:
        with ConversationLog() as log:
            for number in range(25):
                add(log, name, f"{name} {number}", "a")

    ConversationLog().close()
    writers = [threading.Thread(target=write, args=(name,)) for name in ("one", "two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with ConversationLog() as log:
        for name in ("one", "two"):
            assert [one.question for one in log.exchanges(name)] == [f"{name} {n}" for n in range(25)]


def test_a_lock_that_stays_is_an_error_with_a_hint(
    log: ConversationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignbeam_local.conversation.log.BUSY_SECONDS", 0.05)
    with ConversationLog() as other, log._writing(), pytest.raises(AlignBeamError, match="locked") as failed:
        add(other, "one", "q", "a")
    assert "Another process" in failed.value.hint


def write_until_killed(told: Connection) -> None:
    """Begin conversations of two exchanges, the second one replaced, and tell of what is kept."""
    with ConversationLog() as log:
        while True:
            conversation = new_id()
            told.send((conversation, [add(log, conversation, "first", "a" * 20_000)]))
            second = add(log, conversation, "second", "b")
            log.replace(second, "second", fake_result("c" * 20_000, CONFIG))
            told.send((conversation, [second]))


def test_a_kill_while_saving_loses_nothing_and_leaves_no_half(log: ConversationLog) -> None:
    processes = multiprocessing.get_context("fork")
    kept: dict[str, list[int]] = {}
    for round_number in range(20):
        ours, theirs = processes.Pipe(duplex=False)
        writer = processes.Process(target=write_until_killed, args=(theirs,))
        writer.start()
        theirs.close()
        assert ours.poll(60)  # it writes
        time.sleep(0.013 * (round_number % 5) + 0.001 * round_number)
        writer.kill()
        writer.join()
        while True:
            try:
                conversation, ids = ours.recv()
            except EOFError:
                break
            kept.setdefault(conversation, []).extend(ids)
    assert len(kept) >= 20  # at least one a round, however slow the machine is
    assert log._rows("PRAGMA integrity_check") == [("ok",)]
    for conversation, ids in kept.items():
        found = [one.id for one in log.exchanges(conversation)]
        assert found[: len(ids)] == ids  # a second one may be there that could not be told of any more
    assert all(one.num_exchanges in (1, 2) for one in log.conversations())
    whole = [one for one in log.search("") if one.answer == one.result["text"]]
    assert len(whole) == sum(one.num_exchanges for one in log.conversations())


def test_the_file_can_be_read_by_others(log: ConversationLog) -> None:
    add(log, "one", "q", "a")
    with sqlite3.connect(log.path) as plain:
        assert plain.execute("SELECT question, answer FROM exchange").fetchall() == [("q", "a")]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0), byte=st.integers(0, 255), is_cut=st.booleans())
def test_any_other_byte_is_read_or_an_error(place: int, byte: int, is_cut: bool) -> None:
    """Whatever else is raised fails the test; SQLite notices by far not every one."""
    path = default_path()
    path.unlink(missing_ok=True)
    with ConversationLog() as log:
        add(log, "c", "q", "a", "name")
        add(log, "c", "r", "b")
    whole = bytearray(path.read_bytes())
    written = [index for index, value in enumerate(whole) if value]
    at = written[place % len(written)]
    whole[at] = byte
    path.write_bytes(whole[:at] if is_cut else whole)
    with suppress(AlignBeamError), ConversationLog() as log:
        log.search("q")
        log.conversations()
        log.exchanges("c")
    with suppress(AlignBeamError), ConversationLog() as log:
        log.delete(["c"])


def test_a_disk_that_fills_loses_no_exchange(log: ConversationLog) -> None:
    add(log, "c", "a", "1")
    with no_file_beyond(default_path().stat().st_size), pytest.raises(AlignBeamError, match=r"full|I/O"):
        add(log, "c", "b", "2" * 100_000)
    assert said(log, "c") == ["a", "1"]
    add(log, "c", "b", "2")
    with ConversationLog() as other:
        assert said(other, "c") == ["a", "1", "b", "2"]
