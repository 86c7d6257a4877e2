"""What is kept where it is asked for: `--log` of ask and filter, answers that were made anew."""

import json
from pathlib import Path

import pytest

from alignbeam_local.conversation.export import Exported, as_object, markdown
from alignbeam_local.conversation.log import ConversationLog
from alignbeam_local.conversation.log_file import default_path
from alignbeam_local.conversation.stored import StoredExchange
from alignbeam_local.errors import AlignBeamError
from tests.fake_engine import REFUSED
from tests.running import run

pytestmark = pytest.mark.usefixtures("engines")


def kept() -> list[list[StoredExchange]]:
    with ConversationLog() as log:
        return [log.exchanges(one.id) for one in log.conversations()]


def test_ask_keeps_what_it_is_told_to_keep_and_else_nothing() -> None:
    assert run("ask", "echo: one").code == 0
    assert not default_path().exists()
    assert run("ask", "--log", "echo: two").out == "two\n"
    assert run("ask", "--log", "refuse").out == f"{REFUSED}\n"
    refused, two = kept()
    assert [(one.question, one.answer) for one in (*refused, *two)] == [
        ("refuse", REFUSED),
        ("echo: two", "two"),
    ]
    assert refused[0].result["finish_reason"] == "blocked"
    went_on = run("chat", "--continue", given="echo: three\n")
    assert "three" in went_on.out
    assert [one.question for one in kept()[0]] == ["refuse", "echo: three"]


def test_a_run_of_filter_is_one_conversation() -> None:
    of_messages = '{"messages": [{"role": "user", "content": "echo: x"}]}'
    given = f'{{"prompt": "echo: one"}}\n{{"prompt": "full"}}\n{of_messages}\n'
    assert run("filter", "--jsonl", "--log", given=given).code == 1
    assert [[one.question for one in exchanges] for exchanges in kept()] == [["echo: one", "echo: x"]]
    assert run("filter", given="echo: one\n").code == 0
    assert len(kept()) == 1


def test_the_templates_text_is_what_was_asked() -> None:
    assert run("filter", "--log", "--template", "echo: <{prompt}>", given="a\n").out == "<a>\n"
    assert kept()[0][0].question == "echo: <a>"


def test_a_log_that_cannot_be_opened_is_said_before_anything_is_answered() -> None:
    default_path().parent.mkdir(parents=True)
    default_path().write_bytes(b"no database" * 100)
    ran = run("ask", "--log", "echo: hi")
    assert (ran.code, ran.out) == (1, "")
    assert "conversations" in ran.err


def test_a_retried_refusal_is_not_lost() -> None:
    lines = "refuse\n/retry\n/retry alpha=0.8\n/undo\nrefuse\n/retry N=1\n"
    run("chat", given=lines)
    ((last,),) = kept()
    assert [one.answer for one in last.earlier] == [REFUSED]
    assert last.earlier[0].result["config"]["depth"] == 6
    assert last.result["config"]["depth"] == 1


def test_an_earlier_answer_is_shown_exported_and_deleted_with_its_place() -> None:
    run("chat", given="echo: one\n/retry alpha=0.8\n/save talk\n")
    shown = run("logs", "show", "talk").out
    assert shown.count("echo: one") == 2
    assert "answered anew below" in shown
    exported = json.loads(run("logs", "export", "talk", "--format", "json").out)
    assert exported[0]["exchanges"][0]["earlier"][0]["result"]["config"]["alpha"] == 0.5
    run("chat", "--session", "talk", given="/undo\n")
    assert kept() == [[]]
    with ConversationLog() as log:
        assert log._rows("SELECT count(*) FROM replaced") == [(0,)]


def test_without_a_log_the_chat_itself_keeps_it(tmp_path: Path) -> None:
    target = tmp_path / "talk.md"
    run("chat", "--no-log", given=f"echo: one\n/retry\n/export {target}\n")
    assert target.read_text().count("## You") == 2


def test_a_file_of_the_version_before_is_brought_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alignbeam_local.conversation import log_file

    with monkeypatch.context() as patched:
        patched.setattr(log_file, "MIGRATIONS", log_file.MIGRATIONS[:1])
        ConversationLog(tmp_path / "old.db").close()
    with ConversationLog(tmp_path / "old.db") as log:
        assert log.exchanges("none") == []


def test_exchanges_without_earlier_ones_look_as_before() -> None:
    run("ask", "--log", "echo: hi")
    with ConversationLog() as log:
        (one,) = log.conversations()
        whole = Exported(one, log.exchanges(one.id))
    assert as_object(whole)["exchanges"][0]["earlier"] == []
    assert markdown(whole).count("## ") == 2


def test_answers_that_can_not_be_kept_are_given_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise AlignBeamError("the disk is full")

    monkeypatch.setattr(ConversationLog, "add", full)
    ran = run("filter", "--log", given="echo: one\necho: two\necho: three\n")
    assert (ran.code, ran.out) == (1, "one\ntwo\nthree\n")
    assert ran.err.count("answers are not kept: the disk is full") == 1
    assert "3 of 3 answers were not kept in the log" in ran.err
