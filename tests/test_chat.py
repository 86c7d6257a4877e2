"""The chat from a pipe: its commands, what they change, what is kept."""

import json
import os
import re
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from alignbeam_local.cli.chat.commands import COMMANDS
from alignbeam_local.cli.chat.completion import ChatCompleter
from alignbeam_local.cli.chat.transcript import Transcript
from alignbeam_local.cli.commands import chat as chat_command
from alignbeam_local.cli.line.input import LineEditor, is_open, typed_lines, unquoted
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent, DummyCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from alignbeam_local.config import KNOBS
from alignbeam_local.conversation.claims import Claims, claimed_by
from alignbeam_local.conversation.log import ConversationLog
from alignbeam_local.conversation.log_file import default_path
from alignbeam_local.errors import AlignBeamError, UsageError
from alignbeam_local.knobs.judging import CHAT_JUDGE_AT
from alignbeam_local.models.toml_files import user_file

from .fake_engine import BEAMS, REFUSED, FakeEngine
from .running import Ran, run

pytestmark = pytest.mark.usefixtures("engines")


def chat(*lines: str, args: tuple[str, ...] = ()) -> Ran:
    return run("chat", *args, given="".join(f"{line}\n" for line in lines))


def said(engine: FakeEngine) -> list[str]:
    """What the last answer was asked with."""
    return [message.content for message in engine.asked[-1][0]]


# --- messages


@pytest.mark.parametrize(
    ("text", "message", "unfinished"),
    [
        ("plain", "plain", False),
        ('"""', "", True),
        ('"""one', "one", True),
        ('"""one\ntwo"""', "one\ntwo", False),
        ('"""\none\n"""', "one", False),
        ('""""""', "", False),
        ('"""/etc"""', " /etc", False),
        ('say """x"""', 'say """x"""', False),
    ],
)
def test_triple_quotes_hold_lines_together(text: str, message: str, unfinished: bool) -> None:
    assert (is_open(text), unquoted(text)) == (unfinished, message)


def test_a_message_of_several_lines_comes_through_a_pipe(engines: list[FakeEngine]) -> None:
    chat('"""first', "second", '/third"""', "echo: on")
    assert [messages[-1].content for messages, _ in engines[0].asked] == ["first\nsecond\n/third", "echo: on"]
    chat('"""never closed', "more")
    assert said(engines[1]) == ["never closed\nmore"]


def test_a_space_before_a_slash_makes_it_a_question(engines: list[FakeEngine]) -> None:
    chat(" /etc/hosts: what is it?")
    assert said(engines[0]) == ["/etc/hosts: what is it?"]


# --- help and knobs


def test_help_lists_every_command_and_explains_knobs() -> None:
    ran = chat("/help", "/?", "/help N", "/help retry", "/help nothing")
    assert all(command.usage in ran.out for command in COMMANDS.values())
    assert "depth = 6 (default)\nN: how many tokens" in ran.out
    assert "values: 0≤INT≤512; default: 6" in ran.out
    assert "/retry alpha=0.8" in ran.out
    assert "unknown command '/nothing'" in ran.err


@pytest.mark.parametrize(
    ("line", "hint"),
    [("/hlep", "/help"), ("/quti", "/quit"), ("/retyr alpha=1", "/retry"), ("/xyzzy", "/help lists them")],
)
def test_unknown_commands_suggest_the_closest(line: str, hint: str) -> None:
    assert hint in chat(line).err


@pytest.mark.parametrize("leave", ["/bye", "/exit", "/quit"])
def test_leaving(leave: str, engines: list[FakeEngine]) -> None:
    assert chat(leave, "echo: not asked").code == 0
    assert engines[0].asked == []
    assert engines[0].closed


def test_set_changes_the_answers_that_come(engines: list[FakeEngine]) -> None:
    ran = chat("a", "/set alpha 0.8", "/set K=5", "/set", "/set alpha", "/set system Be brief.", "b")
    (_, before), (_, after) = engines[0].asked
    assert (before.alpha, before.beams) == (0.5, 3)
    assert (after.alpha, after.beams, after.system) == (0.8, 5, "Be brief.")
    assert "alpha           0.8" in ran.out, "/set alone shows them all"
    assert "alpha = 0.8 (chat)\n" in ran.out


def test_a_model_can_be_changed(engines: list[FakeEngine]) -> None:
    ran = chat(
        "a", "/model", "/model anchor smollm2-135m-instruct", "/model qwen2.5-coder-0.5b-instruct", "b"
    )
    assert "draft    smollm2-135m-instruct" in ran.out
    before, after = (config for _, config in engines[0].asked)
    assert before.anchor == after.draft == "qwen2.5-coder-0.5b-instruct"
    assert after.anchor == "smollm2-135m-instruct"
    assert said(engines[0]) == ["a", "a", "b"]


def test_several_anchors_are_named_in_one_line(engines: list[FakeEngine]) -> None:
    both = "qwen2.5-coder-0.5b-instruct + smollm2-135m-instruct"
    ran = chat("a", f"/model anchor {both}", "/model", "b")
    (_, after) = (config for _, config in engines[0].asked)
    assert after.anchor == tuple(both.split(" + "))
    assert f"anchor   {both}" in ran.out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/model gemma-3-270m", "model 'gemma-3-270m' is not here yet"),
        ("/model qwen9", "unknown model 'qwen9'"),
        ("/model anchor", "/model anchor needs a name"),
        ("/model profile nope", "unknown profile 'nope'"),
        ("/set draft /no/such.gguf", "no such file: /no/such.gguf"),
        ("/set parallel 4", "a chat answers one prompt at a time"),
    ],
)
def test_a_model_that_cannot_be_changes_nothing(line: str, message: str, engines: list[FakeEngine]) -> None:
    ran = chat(line, "b")
    assert message in ran.err
    assert engines[0].asked[0][1] == engines[0].config
    assert engines[0].config.draft == "smollm2-135m-instruct"


def test_a_profile_brings_its_models_and_knobs(engines: list[FakeEngine]) -> None:
    chat("/set K 2", "/model profile starter", "b")
    _, config = engines[0].asked[0]
    assert (config.profile, config.draft, config.beams) == ("starter", "smollm2-135m-instruct", 2)


def test_another_profile_takes_the_knobs_of_the_one_before_away(engines: list[FakeEngine]) -> None:
    file = user_file()
    file.parent.mkdir(parents=True)
    file.write_text("[profiles.bold]\nalpha = 0.1\nmax_tokens = 4\n", encoding="utf-8")
    ran = chat("/model profile bold", "a", "/model profile starter", "b", "/show")
    (_, bold), (_, starter) = engines[0].asked
    assert (bold.alpha, bold.max_tokens) == (0.1, 4)
    assert (starter.alpha, starter.max_tokens) == (0.5, 512)
    assert re.search(r"^draft .* profile starter$", ran.out, re.M)


def test_set_profile_is_the_models_command_and_none_unsets_when_to_judge(engines: list[FakeEngine]) -> None:
    ran = chat(
        "/set profile nope", "/set judge_at 48", "a", "/set judge_at none", "/set profile starter", "b"
    )
    assert "unknown profile 'nope'" in ran.err
    (_, before), (_, after) = engines[0].asked
    assert (before.judge_at, after.judge_at, after.profile) == (48, None, "starter")


def test_a_chat_judges_early_unless_told_otherwise(engines: list[FakeEngine]) -> None:
    chat("a", "/retry K=1", "/set K 1", "b", "/set K 2", "c", "/set judge_at none", "d")
    assert [config.judge_at for _, config in engines[0].asked] == [
        CHAT_JUDGE_AT,
        None,
        None,
        CHAT_JUDGE_AT,
        None,
    ]
    chat("a", args=("--judge-at", "none"))
    assert engines[1].asked[0][1].judge_at is None


# --- turns


def test_retry_answers_the_last_question_again_with_other_knobs_once(engines: list[FakeEngine]) -> None:
    ran = chat("a", "b", "/retry alpha=0.8 N=12 K=5", "c")
    retried, after = engines[0].asked[2:]
    assert [message.content for message in retried[0]] == ["a", "a", "b"]
    assert (retried[1].alpha, retried[1].depth, retried[1].beams) == (0.8, 12, 5)
    assert (after[1].alpha, after[1].depth, after[1].beams) == (0.5, 6, 3)
    assert [message.content for message in after[0]] == ["a", "a", "b", "b", "c"]
    assert ran.err == "note: the judge is not calibrated\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/retry alpha", "'alpha' is not KNOB=VALUE"),
        ("/retry alpha=2", "/retry: alpha = '2'"),
        ("/retry alhpa=1", "unknown knob 'alhpa'"),
        ("/retry draft=x", "draft can't change"),
        ('/retry system="x', "No closing quotation"),
    ],
)
def test_retry_says_what_is_wrong(line: str, message: str, engines: list[FakeEngine]) -> None:
    assert message in chat("a", line).err
    assert len(engines[0].asked) == 1


def test_what_needs_an_answer_says_so() -> None:
    ran = chat("/retry", "/undo", "/why", "/trace", "/copy", "/export x.md")
    assert ran.err.count("error: ") == 6
    assert not Path("x.md").exists()


def test_undo_forgets_a_turn(engines: list[FakeEngine]) -> None:
    ran = chat("a", "b", "/undo", "c")
    assert said(engines[0]) == ["a", "a", "c"]
    assert "taken out of the conversation: b" in ran.err


def test_edit_needs_a_terminal() -> None:
    assert "/edit needs a terminal" in chat("a", "/edit").err


def test_an_answer_that_fails_leaves_the_conversation(engines: list[FakeEngine]) -> None:
    ran = chat("a", "full", "/retry", "b")
    assert said(engines[0]) == ["a", "a", "b"]
    assert ran.err.count("error: the prompt is too long") == 1


def test_a_message_that_is_no_text_is_said_and_the_next_one_is_asked(engines: list[FakeEngine]) -> None:
    ran = run("chat", given=b'"""\xff\nstill it"""\necho: on\n')
    assert (ran.code, ran.out) == (1, "on\n")
    assert ran.err.count("error: the message is not Unicode text") == 1


@pytest.mark.parametrize("line", ["full", "/set alhpa 1", "/nothing"])
def test_a_line_that_failed_makes_a_piped_chat_fail(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = chat(line, "echo: on")
    assert (ran.code, ran.out, ran.err.count("error: ")) == (1, "on\n", 1)
    assert chat("refuse", "echo: on").code == 0
    monkeypatch.setattr(chat_command, "is_terminal", lambda _: True)
    assert chat(line).code == 0


# --- why


def test_why_explains_the_last_answer() -> None:
    ran = chat("beams", "/why", "/why 2", "/why 9", "/trace", "/trace on", "echo: x")
    assert ran.out.startswith(BEAMS[0])
    assert "Mixed tokens of beam 1" in ran.out
    assert "Mixed tokens of beam 2" in ran.out
    assert "there is no beam '9'" in ran.err
    assert ran.out.count("candidates of the mixture") == 2
    assert "\x1b" not in ran.out


def test_what_was_undone_is_not_explained() -> None:
    ran = chat("a", "beams", "/undo", "/trace")
    assert "日本" not in ran.out.partition(BEAMS[0])[2]
    assert "Yo" not in ran.out


def test_the_answer_before_an_undone_one_is_explained_by_its_own_steps() -> None:
    once, back = chat("beams", "/why"), chat("beams", "a", "/undo", "/why")
    assert "none: nothing was mixed" not in once.out
    assert back.out.endswith(once.out.partition(BEAMS[0])[2])


# --- what is kept


def kept() -> list[list[str]]:
    """The questions of every conversation in the log, the last used first."""
    with ConversationLog() as log:
        return [[one.question for one in log.exchanges(c.id)] for c in log.conversations()]


def test_a_conversation_is_kept_as_it_is_at_its_end() -> None:
    chat("a", "refuse", "b", "/undo", "/clear", "c", "/retry N=2", "full")
    assert kept() == [["c"], ["a", "refuse"]]
    with ConversationLog() as log:
        newest, older = log.conversations()
        assert log.exchanges(newest.id)[0].result["config"]["depth"] == 2
        assert log.exchanges(older.id)[1].answer == REFUSED
    assert stat.S_IMODE(default_path().stat().st_mode) == 0o600


def test_nothing_is_kept_that_should_not_be() -> None:
    ran = chat("a", "/save x", "/sessions", "/load x", args=("--no-log",))
    assert ran.err.count("this chat keeps nothing") == 3
    assert [path for path in data_files() if path.suffix != ".gguf"] == []


@pytest.mark.parametrize("failing_from", ["the start", "the first prompt", "the second prompt"])
def test_a_history_that_cannot_be_kept_ends_no_chat(
    failing_from: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        typed_lines().unlink(missing_ok=True)
        typed_lines().mkdir(parents=True)

    if failing_from == "the start":
        fail()
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        editor = LineEditor(DummyCompleter(), str)
        if failing_from == "the first prompt":
            fail()
        keys.send_text("one\r")
        assert editor.next_message() == "one"
        if failing_from == "the second prompt":
            fail()
        keys.send_text("two\rthree\r")
        assert [editor.next_message(), editor.next_message()] == ["two", "three"]
    assert capsys.readouterr().err.count("note: your input history is no") == 1


def data_files() -> list[Path]:
    home = Path(os.environ["ALIGNBEAM_DATA_DIR"])
    return [path for path in home.rglob("*") if path.is_file()]


def test_a_conversation_can_be_gone_on_with(engines: list[FakeEngine]) -> None:
    saved = chat("a", "/set system S", "b", "/save tea time")
    assert "alignbeam chat --session 'tea time' goes on with it" in saved.err
    ran = chat("c", args=("--continue",))
    assert said(engines[1]) == ["a", "a", "b", "b", "c"]
    assert engines[1].asked[0][1].system == "S"
    assert "going on with tea time: 2 answers so far" in ran.err
    chat("d", args=("--session", "tea time", "--system", "T"))
    assert said(engines[2])[-3:] == ["c", "c", "d"]
    assert engines[2].asked[0][1].system == "T"
    chat("e", "/undo", "/undo", "/retry", args=("-c",))
    assert said(engines[3]) == ["a", "a", "b", "b", "c"]
    assert kept() == [["a", "b", "c"]]


def test_what_was_blocked_is_not_read_when_a_conversation_is_gone_on_with(engines: list[FakeEngine]) -> None:
    chat("a", "refuse", "b", args=("--session", "x"))
    chat("c", "/retry", args=("--session", "x"))
    assert [said(engine) for engine in engines] == [["a", "a", "b"], ["a", "a", "b", "b", "c"]]
    assert kept() == [["a", "refuse", "b", "c"]]


def test_a_new_conversation_has_the_configured_system_prompt_again(engines: list[FakeEngine]) -> None:
    chat("a", args=("--session", "x", "--system", "S"))
    chat("b", "/clear", "c", "/load x", "d", "/clear", "/system T", "/load x", "/clear", "e", args=("-c",))
    assert [config.system for _, config in engines[1].asked] == ["S", None, "S", "T"]


def test_load_keeps_a_system_prompt_that_was_given(engines: list[FakeEngine]) -> None:
    chat("a", args=("--session", "x", "--system", "S"))
    chat("/load x", "b", args=("--system", "T"))
    chat("/load x", "c")
    assert [engine.asked[0][1].system for engine in engines] == ["S", "T", "T"]


def test_sessions_are_named_listed_and_loaded(engines: list[FakeEngine]) -> None:
    chat("one", args=("--session", "first"))
    ran = chat("two", "/save second", "/sessions", "/load first", "three", "/load fist", "/save second")
    assert [line.split()[:2] for line in ran.out.splitlines()[2:4]] == [["*", "second"], ["first", "1"]]
    assert said(engines[1]) == ["one", "one", "three"]
    assert "Did you mean first?" in ran.err
    assert "the name 'second' is taken" in ran.err
    assert kept() == [["one", "three"], ["two"]]


def test_a_log_that_cannot_be_read_completes_nothing() -> None:
    class Broken:
        def conversations(self) -> list[Any]:
            raise AlignBeamError("the file is damaged")

    chat = SimpleNamespace(transcript=SimpleNamespace(log=Broken()))
    completer = ChatCompleter(chat)
    assert list(completer.get_completions(Document("/load "), CompleteEvent())) == []


def test_a_session_that_cannot_be_read_is_not_gone_over_to(engines: list[FakeEngine]) -> None:
    chat("one", args=("--session", "first"))
    chat("two", args=("--session", "second"))
    with closing(sqlite3.connect(default_path())) as database, database:
        database.execute("UPDATE exchange SET result = 'no JSON' WHERE question = 'two'")
    ran = chat("/load second", "three", args=("--session", "first"))
    assert ran.code == 1
    with ConversationLog() as log:
        first = next(one for one in log.conversations() if one.name == "first")
        assert [one.question for one in log.exchanges(first.id)] == ["one", "three"]


@pytest.mark.parametrize(
    "args", [("--continue",), ("--continue", "--session", "x"), ("--no-log", "-c"), ("--session", "-x")]
)
def test_what_cannot_be_gone_on_with_is_a_usage_error(args: tuple[str, ...]) -> None:
    ran = chat("a", args=args)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")


def test_a_name_is_given_before_the_first_answer_and_after_the_last_was_undone() -> None:
    ran = chat("one", "/save taken", "/clear", "/save taken", "two", "/undo", "/save free")
    assert ran.err.count("the name 'taken' is taken") == 1
    with ConversationLog() as log:
        assert [(one.name, one.num_exchanges) for one in log.conversations()] == [("free", 0), ("taken", 1)]


def test_what_could_not_be_stored_is_stored_with_the_next_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    add, failures = ConversationLog.add, iter([True])

    def fail_once(*args: Any, **named: Any) -> int:
        if next(failures, False):
            raise AlignBeamError("locked")
        return add(*args, **named)

    monkeypatch.setattr(ConversationLog, "add", fail_once)
    assert "error: locked" in chat("a", "b").err
    assert kept() == [["a", "b"]]


@pytest.mark.parametrize("failing", ["replace", "add", "drop"])
def test_an_answer_that_was_replaced_or_undone_is_so_in_the_log_as_soon_as_it_can_be_written(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, failures = getattr(ConversationLog, failing), iter([True])

    def fail_once(*args: Any, **named: Any) -> Any:
        if next(failures, False):
            raise AlignBeamError("locked")
        return written(*args, **named)

    monkeypatch.setattr(ConversationLog, failing, fail_once)
    ran = chat("echo: a", "/undo" if failing == "drop" else "/retry", "echo: b")
    assert "error: locked" in ran.err
    assert kept() == [["echo: b"] if failing == "drop" else ["echo: a", "echo: b"]]
    with ConversationLog() as log:
        (first, *_) = log.exchanges(log.conversations()[0].id)
    assert len(first.earlier) == (failing != "drop")


def test_an_answer_that_was_deleted_meanwhile_is_not_written_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def deleted(*_: Any) -> None:
        raise UsageError("the answer to replace was deleted meanwhile")

    monkeypatch.setattr(ConversationLog, "replace", deleted)
    ran = chat("echo: a", "/retry", "echo: b", "echo: c")
    assert ran.err.count("deleted meanwhile") == 1


def test_a_name_that_is_taken_does_not_stay_locked() -> None:
    chat("one", args=("--session", "taken"))
    ran = chat("two", "/save taken", "/load taken", "three")
    assert "is taken" in ran.err
    with ConversationLog() as log:
        claims = Claims(log.claims_dir)
        transcript = Transcript(log)
        with pytest.raises(UsageError, match="is taken"):
            transcript.rename("taken")
        found = next(one for one in log.conversations() if one.name == "taken")
        assert claims.take(*claimed_by(found.id, found.name)), "nobody has it open"
        claims.close()
        transcript.close()


def test_a_file_without_an_end_does_not_hold_the_chat(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    ran = chat(f"/file {tmp_path / 'pipe'}", f"/system @{tmp_path / 'pipe'}", "echo: x")
    assert ran.out == "x\n"
    assert ran.err.count("is a pipe, a socket or a device") == 2


def test_a_damaged_log_does_not_keep_a_chat_from_answering() -> None:
    default_path().parent.mkdir(parents=True)
    default_path().write_bytes(b"this is no database, but long enough to be read as one" * 20)
    ran = chat("echo: x")
    assert (ran.code, ran.out) == (0, "x\n")
    assert "note: this chat is not kept" in ran.err
    assert chat("echo: x", args=("-c",)).code == 1


# --- files


@pytest.mark.parametrize("args", [(), ("--no-log",)])
def test_export_writes_what_was_said(tmp_path: Path, args: tuple[str, ...]) -> None:
    files = {form: tmp_path / f"talk.{form}" for form in ("md", "json", "jsonl")}
    ran = chat("echo: one", "refuse", *(f"/export {path}" for path in files.values()), args=args)
    assert ran.err.count("written: ") == 3
    assert "## You\n\necho: one\n\n## Assistant\n\none\n" in files["md"].read_text()
    (whole,) = json.loads(files["json"].read_text())
    assert [one["question"] for one in whole["exchanges"]] == ["echo: one", "refuse"]
    rows = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    assert [(row["prompt"], row["text"]) for row in rows] == [("echo: one", "one"), ("refuse", REFUSED)]
    assert set(KNOBS) == set(rows[0]["config"])


def test_export_overwrites_only_if_told_to(tmp_path: Path) -> None:
    path = tmp_path / "my talk.md"
    path.write_text("precious")
    ran = chat("echo: one", f"/export {path}")
    assert f"hint: /export {path} ! overwrites it." in ran.err
    assert path.read_text() == "precious"
    chat("echo: one", f"/export {path} !")
    assert "echo: one" in path.read_text()


@pytest.mark.parametrize(
    "name", ["", "talk", "talk.txt", "no/such/\0/x.md", "~nosuchuser/x.md", f"{'x' * 300}.md"]
)
def test_export_says_what_is_wrong(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = chat("echo: one", f"/export {name}", "echo: on")
    assert "error: " in ran.err
    assert ran.out == "one\non\n"


def test_copy_needs_a_terminal() -> None:
    assert "no terminal clipboard" in chat("a", "/copy").err
