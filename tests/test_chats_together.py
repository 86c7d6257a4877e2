"""Two chats with one conversation, and a log whose file goes away while a chat keeps its answers in it."""

import multiprocessing
import os
import shutil
import signal
import stat
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from alignbeam_local.cli.chat.transcript import OpenElsewhere, Transcript, opened
from alignbeam_local.cli.line.history import LineHistory
from alignbeam_local.cli.line.input import typed_lines

from alignbeam_local.config import Config
from alignbeam_local.conversation.claims import Claims
from alignbeam_local.conversation.log import ConversationLog
from alignbeam_local.conversation.log_file import default_path
from alignbeam_local.errors import AlignBeamError
from alignbeam_local.evaluation.runs.run_directory import Log
from alignbeam_local.result import Result

from .fake_engine import FakeEngine, fake_result
from .running import run

CONFIG = Config.of({"draft": "smollm2-135m-instruct"})


def answer(text: str) -> Result:
    return fake_result(text, CONFIG)


def kept() -> dict[str | None, list[str]]:
    """The questions of each conversation, by its name."""
    with ConversationLog() as log:
        return {
            one.name: [exchange.question for exchange in log.exchanges(one.id)] for one in log.conversations()
        }


# --- two chats


@pytest.mark.parametrize("is_old", [False, True])
def test_the_second_chat_of_a_name_is_told_at_once_and_takes_another(
    is_old: bool, engines: list[FakeEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    if is_old:
        run("chat", "--session", "taxes", given="before\n")
    with opened(is_kept=True, name="taxes", continued=False) as first:
        ran = run("chat", "--session", "taxes", given="second\n")
        assert ran.code == 0
        assert ran.err.startswith("note: another chat has 'taxes' open: this one is called 'taxes-2'\n")
        run("chat", "--session", "taxes", given="third\n")
        first.add("first", answer("x"))
    before = ["before"] if is_old else []
    assert kept() == {"taxes": [*before, "first"], "taxes-2": ["second"], "taxes-3": ["third"]}
    assert "taxes-2" not in run("chat", "--session", "taxes", given="later\n").err, "it is free again"
    assert not capsys.readouterr().err


def test_the_last_conversation_open_elsewhere_is_not_gone_on_with(engines: list[FakeEngine]) -> None:
    with opened(is_kept=True, name="taxes", continued=False) as first:
        first.add("first", answer("x"))
        ran = run("chat", "--continue", given="second\n")
    assert "note: another chat has 'taxes' open: a new one begins\n" in ran.err
    assert kept() == {"taxes": ["first"], None: ["second"]}


def test_a_conversation_open_elsewhere_is_not_loaded_and_its_name_not_taken(
    engines: list[FakeEngine],
) -> None:
    with opened(is_kept=True, name="taxes", continued=False) as first:
        refused = run("chat", given="a\n/save taxes\nb\n")  # nothing is kept of it yet
        first.add("first", answer("x"))
        ran = run("chat", given="/load taxes\nc\n")
    for one in (refused, ran):
        assert one.code == 1
        assert one.err.count("error: another chat has 'taxes' open\nhint: ") == 1
    with ConversationLog() as log:
        others = [one for one in log.conversations() if one.name is None]
        assert sorted(one.num_exchanges for one in others) == [1, 2]
    assert kept()["taxes"] == ["first"]


def test_what_a_chat_leaves_is_free(engines: list[FakeEngine]) -> None:
    with opened(is_kept=True, name="one", continued=False) as chat:
        chat.add("x", answer("x"))
        chat.rename("two")
        with opened(is_kept=True, name="one", continued=False) as other:
            assert other.name == "one"
        chat.begin()
        with opened(is_kept=True, name="two", continued=False) as other:
            assert other.name == "two"
            with ConversationLog() as log, pytest.raises(OpenElsewhere):
                chat.take_up(log.find("two"))
    assert not list((default_path().parent / "open").iterdir()), "no lock is left behind"


def test_a_chat_that_was_killed_has_nothing_open() -> None:
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_claim, args=(theirs,))
    child.start()
    with ConversationLog() as log:
        claims = Claims(log.claims_dir)
        assert ours.recv()
        assert not claims.take("name taxes")
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join(30)
        assert claims.take("name taxes")
        claims.close()


def _claim(told: Connection) -> None:
    with ConversationLog() as log:
        claims = Claims(log.claims_dir)
        told.send(claims.take("name taxes"))
        signal.pause()


def test_no_claim_is_half_taken(tmp_path: Path) -> None:
    one, other = Claims(tmp_path), Claims(tmp_path)
    assert one.take("b")
    assert not other.take("a", "b")
    assert one.take("a")
    one.keep_only("a")
    assert other.take("b")


# --- files that go away


def _remove_file() -> None:
    default_path().unlink()


def _remove_folder() -> None:
    shutil.rmtree(default_path().parent)


def _replace() -> None:
    default_path().unlink()
    with ConversationLog() as log:
        log.add("ff00", "other", answer("y"), name="other")


@pytest.mark.parametrize("gone", [_remove_file, _remove_folder, _replace])
@pytest.mark.parametrize("act", ["add", "replace_last", "drop_last", "rename"])
def test_a_log_that_was_removed_is_made_anew_with_what_is_kept(
    gone: Callable[[], None], act: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(is_kept=True, name="taxes", continued=False) as chat:
        for question in ("a", "b"):
            chat.add(question, answer(question))
        asked = [one.asked for one in chat.exchanges]
        gone()
        _act(chat, act)
        chat.add("c", answer("c"))
        chat.add("d", answer("d"))
        assert [one.asked for one in chat.exchanges][:1] == asked[:1]
    wanted = {
        "add": ["a", "b", "new"],
        "replace_last": ["a", "new"],
        "drop_last": ["a"],
        "rename": ["a", "b"],
    }
    found = kept()
    assert found.pop("other", ["other"]) == ["other"]
    assert found == {"house" if act == "rename" else "taxes": [*wanted[act], "c", "d"]}
    assert capsys.readouterr().err.count("was removed or replaced") == 1
    assert stat.S_IMODE(default_path().stat().st_mode) == 0o600


def _act(chat: Transcript, act: str) -> None:
    if act == "drop_last":
        chat.drop_last()
    elif act == "rename":
        chat.rename("house")
    else:
        getattr(chat, act)("new", answer("new"))


def test_a_log_that_cannot_be_made_anew_is_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    with opened(is_kept=True, name="taxes", continued=False) as chat:
        chat.add("a", answer("a"))
        default_path().write_bytes(b"")  # the same file: not removed
        default_path().unlink()
        default_path().mkdir()
        with pytest.raises(AlignBeamError):
            chat.add("b", answer("b"))
        default_path().rmdir()
        chat.add("c", answer("c"))
    assert kept() == {"taxes": ["a", "b", "c"]}


def test_lines_typed_are_kept_privately_where_their_file_was_removed() -> None:
    typed_lines().parent.mkdir(parents=True)
    notes: list[str] = []
    LineHistory(typed_lines(), notes.append).store_string("x")
    assert stat.S_IMODE(typed_lines().stat().st_mode) == 0o600
    assert not notes


def test_a_run_whose_samples_are_removed_does_not_go_on_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with Log(path) as log:
        path.unlink()
        with pytest.raises(AlignBeamError, match="was removed while the run went on"):
            log.append({"suite": "s", "id": "1", "method": "m", "seed": 1})
