"""Text that wants to harm: on stdin, in answers on their way to a terminal, in files that keep prompts."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from alignbeam_local.cli import main as main_module
from alignbeam_local.cli import session
from alignbeam_local.cli.console.terminal import printable
from alignbeam_local.cli.views.live import LiveView
from alignbeam_local.cli.views.story import StoryView
from alignbeam_local.cli.views.view import JsonView, PlainView, SilentView, TraceView
from alignbeam_local.cli.views.why import candidates, explained
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from alignbeam_local.events import AnswerText, BeamText, Done, Event, Notice, Phase, Step, TopToken, Withdrawn
from alignbeam_local.result_json import json_line
from tests.fake_engine import FakeEngine, fake_result
from tests.forked import run_forked
from tests.running import STARTER, touch_models
from tests.screen import Screen
from tests.test_cli import CONFIG

ROOT = Path(__file__).parents[1]
relaxed = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "open_engine", FakeEngine)
    touch_models()


def run(*args: str, given: bytes = b"") -> tuple[int, str, str]:
    with CliRunner().isolation(input=given) as (out, err, _):
        code = main_module.main(args)
        sys.stdout.flush()
        sys.stderr.flush()
        return code, out.getvalue().decode(), err.getvalue().decode()


# --- what comes in


@pytest.mark.usefixtures("fake")
@relaxed
@given(raw=st.binary(max_size=80) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")))
@pytest.mark.parametrize("separator", [b"\n", b"\0"])
def test_any_bytes_give_one_record_each(raw: bytes, separator: bytes) -> None:
    """A record for every record, whatever it holds; never a traceback."""
    code, out, err = run("filter", *(["--null"] if separator == b"\0" else []), given=raw)
    records = raw.split(separator)
    assert out.encode().count(separator) == len(records) - (records[-1] == b"")
    assert code in (0, 1)
    assert "internal:" not in err


rows = st.dictionaries(
    st.sampled_from(["id", "prompt", "messages", "temperature", "depth", "draft", "system", "x"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.lists(st.text(max_size=3)),
    max_size=5,
)


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029", "\x1c", "\n"])
def test_an_object_is_one_line_to_every_reader(mark: str) -> None:
    line = json_line({"id": mark})
    assert line.splitlines() == [line]
    assert json.loads(line) == {"id": mark}


@pytest.mark.usefixtures("fake")
@relaxed
@given(values=st.lists(rows.map(json.dumps) | st.text(max_size=20), max_size=4))
def test_any_rows_give_one_object_each(values: list[str]) -> None:
    lines = [value.replace("\n", " ").encode("utf-8", "replace") for value in values]
    code, out, err = run("filter", "--jsonl", given=b"\n".join(lines))
    assert len(list(map(json.loads, out.splitlines()))) == len([line for line in lines if line.strip()])
    assert code in (0, 1)
    assert "internal:" not in err


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    "text",
    [
        *("[" * 100_000, '{"a":' * 100_000, '{"prompt": "\\ud800"}', '{"prompt": 1e999}'),
        '{"prompt": "a", "prompt": "b"}',
    ],
)
def test_json_that_is_no_row(text: str) -> None:
    code, out, _ = run("filter", "--jsonl", given=text.encode())
    assert (code, json.loads(out)["error"]["type"]) == (1, "usage")


@pytest.mark.usefixtures("fake")
def test_a_line_of_10_megabytes_is_one_prompt() -> None:
    line = b"echo: " + b"x" * 10_000_000
    started = time.process_time()
    code, out, _ = run("filter", given=line + b"\necho: next\n")
    assert (code, len(out)) == (0, len(line) - 6 + 1 + 5)
    assert time.process_time() - started < 30


# --- what goes to a terminal

HOSTILE = (
    "\x1b]0;owned\x07 \x1b[2J\x1b[1;1H \x9b31m \x1bP0;1|17/ab\x9c \x08\x08\x7f \r hidden"
    " \u202eevil\u202c \u2066x\u2069 \x00\x0b\x0c"
)
STEERING = "\x1b\x9b\x07\x08\x7f\r\x00\x0b\x0c\x9c\u202e\u202c\u2066\u2069"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(view_of: Any, events: list[Event]) -> str:
    out = Terminal()
    view = view_of(out)
    for event in events:
        view.show(event)
    view.close()
    return out.getvalue()


STEP = Step(
    position=0,
    beam=0,
    token=7,
    draft_token=5,
    anchor_token=3,
    piece=HOSTILE,
    draft_piece=HOSTILE,
    anchor_piece=HOSTILE,
    won_by="anchor",
    p_mixed=0.5,
    p_draft=0.2,
    p_anchor=0.8,
    covered_mass=0.9,
    top=(TopToken(7, HOSTILE, 0.5),),
)


@pytest.mark.parametrize(
    "view_of", [PlainView, lambda out: TraceView(SilentView(), out), lambda out: JsonView(out, trace=True)]
)
def test_no_answer_steers_a_terminal(view_of: Any) -> None:
    result = fake_result(HOSTILE, CONFIG)
    text = shown(view_of, [STEP, AnswerText(HOSTILE), Withdrawn(HOSTILE), Done(result)])
    assert text
    assert not set(text) & set(STEERING)


def test_neither_the_chats_view_nor_its_why_steers_a_terminal() -> None:
    """It has sequences of its own: none of the answer's may be among them."""
    screen, result = Screen(200, 60), fake_result(HOSTILE, CONFIG)
    console = screen.console(no_color=True)
    view = LiveView(console)
    begun = [Phase("mix"), STEP, BeamText(0, HOSTILE, True)]
    for event in [*begun, AnswerText(HOSTILE), Notice(HOSTILE), Withdrawn(HOSTILE), Done(result)]:
        view.show(event)
    console.print(explained(result, [STEP], 200), candidates(result, [STEP], 200))
    assert screen.text.count("owned") > 5
    foreign = ["\x1b]", "\x1bP", "\x1b[2J", "\x1b[1;1H", *STEERING.replace("\x1b", "").replace("\r", "")]
    assert [one for one in foreign if one in screen.written] == []


def test_no_notice_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    view = StoryView(SilentView(), progress_only=False, prefix="")
    view.show(Notice(HOSTILE))
    view.close()
    assert not set(capsys.readouterr().err) & set(STEERING)


@given(st.text())
def test_what_is_printable_stays(text: str) -> None:
    kept = printable(text)
    assert printable(kept) == kept
    assert not set(kept) & set(STEERING)


@pytest.mark.parametrize(
    "text", ["שלום עולם", "مرحبا", "e\u0301\u0327", "👩‍👩‍👧", "हिन्दी", "\u200f1", "a\tb\nc"]
)
def test_scripts_and_marks_stay(text: str) -> None:
    assert printable(text) == text


# --- what is kept, and what is sent

#: The program with a fake engine, run for each list of arguments and its stdin, in one process: most of a
#: process is its start. Whatever tries to reach a network ends it with 77.
GUARDED = """
import io, json, os, sys
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname")
def guard(event, args):
    if event in NETWORK or (event == "subprocess.Popen" and "pip" in args[1]):
        os._exit(77)
sys.addaudithook(guard)
from alignbeam_local.cli import main, session
from tests.fake_engine import FakeEngine
session.open_engine = FakeEngine
for args, given in json.loads(sys.argv[1]):
    print("command", *args, file=sys.stderr, flush=True)
    sys.stdin = io.TextIOWrapper(io.BytesIO(given.encode()))
    main.main(args)
"""
SECRET = "the patient Jane Roe"


def guarded(*commands: tuple[list[str], str], **environment: str) -> "subprocess.CompletedProcess[str]":
    return run_forked(GUARDED, json.dumps(commands), env={**os.environ, **environment})


def test_nothing_but_a_pull_uses_the_network(tmp_path: Path) -> None:
    touch_models()
    suite = tmp_path / "suite.jsonl"
    suite.write_text('{"prompt": "echo: asked", "label": "benign"}\n')
    commands = [
        (["ask", "hello"], ""),
        (["filter"], "one\ntwo\n"),
        (["chat"], "hello\n"),
        (["models", "list"], ""),
        (["models", "path", "smollm2-135m-instruct"], ""),
        (["models", "verify"], ""),
        (["doctor"], ""),
        (["ask", "--show-config"], ""),
        (["--version"], ""),
        (["config", "show"], ""),
        (["logs", "list"], ""),
        (["logs", "export"], ""),
        (["bridge", *STARTER], ""),
        (["judge", "check", STARTER[1]], ""),
        (["bench", "--runs", "1"], ""),
        (["eval", "run", "--suite", str(suite), "--out", str(tmp_path / "run"), "--method", "draft"], ""),
        (["eval", "report", str(tmp_path / "run")], ""),
    ]
    ended = guarded(*commands)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("command ") == len(commands)
    assert "internal:" not in ended.stderr
    assert [word in ended.stdout for word in ("hello\n", "one\ntwo\n", "llama.cpp")] == [True] * 3


@pytest.mark.parametrize(
    "command",
    [
        ["models", "pull", "hf:some/where/model.gguf"],
        ["models", "pull", "gemma-3-270m"],
        ["eval", "run", "--suite", "advbench", "--out", "run"],
        ["doctor", "--network"],
    ],
    ids=" ".join,
)
def test_the_guard_sees_a_network(command: list[str]) -> None:
    assert guarded((command, ""), HF_ENDPOINT="http://127.0.0.1:1").returncode == 77


#: The program itself, in a place that no address can be reached from.
CUT_OFF = """
import errno, socket, sys
from alignbeam_local.cli.main import main
try:
    socket.create_connection(("192.0.2.1", 80), 1).close()
except OSError as error:
    assert error.errno == errno.ENETUNREACH, error
sys.exit(main())
"""


@pytest.mark.models
def test_a_judged_answer_needs_no_network() -> None:
    cut_off = next((way for way in (["unshare", "-n"], ["unshare", "-rn"]) if works(*way, "true")), None)
    if cut_off is None:
        pytest.skip("unshare -n is not permitted here")
    ask = ["ask", "Name a colour.", "--beams", "2", "--depth", "2", "--max-tokens", "4", "--json"]
    ended = subprocess.run([*cut_off, sys.executable, "-c", CUT_OFF, *ask], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert answer["bridge"]["steps"] > 0
    assert all(beam["judge"]["verdict"] in ("safe", "unsafe") for beam in answer["beams"])


def works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_prompts_are_in_no_file_and_no_error_report(tmp_path: Path) -> None:
    """`chat` keeps its lines in its history, for its user alone; ask and filter keep nothing."""
    touch_models()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    commands: list[tuple[list[str], str]] = []
    for prompt in (SECRET, "full", "refuse"):
        commands += [(["ask", "--", prompt], SECRET), (["filter"], f"{SECRET}\n{prompt}\n")]
    ended = guarded(*commands, TMPDIR=str(scratch))
    told = [line for line in ended.stderr.splitlines() if not line.startswith("command ")]
    assert ended.stdout.count(SECRET) > len(commands)
    assert not any(SECRET in line for line in told)
    assert any(line.startswith("error: ") for line in told)
    files = [path for folder in (tmp_path, scratch) for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
