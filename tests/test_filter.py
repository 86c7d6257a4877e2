"""`alignbeam filter`: templates, time limits, progress."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from alignbeam_local.cli.filter.tally import Tally
from alignbeam_local.cli.filter.template import read_template
from alignbeam_local.cli.filter.time_limit import TimeLimit
from alignbeam_local.cli.inputs import count_records
from hypothesis import given
from hypothesis import strategies as st

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.errors import ContextFull, UsageError
from alignbeam_local.events import BeamText, Event, Phase

from .fake_engine import REFUSED, FakeEngine, fake_result
from .running import CHILD, run, touch_models

CONFIG = Config.of({})
ROOT = Path(__file__).parents[1]


def asked(engines: list[FakeEngine]) -> list[str]:
    """What the first engine was asked last, in order."""
    return [messages[-1].content for messages, _ in engines[0].asked]


# --- templates


def test_a_template_is_put_around_each_line(engines: list[FakeEngine]) -> None:
    ran = run("filter", "--template", "echo: <{prompt}> {{x}}", given="a {b}\n\nc\n")
    assert (ran.code, ran.out) == (0, "<a {b}> {x}\n\n<c> {x}\n")


def test_a_template_takes_the_fields_of_an_object(engines: list[FakeEngine], tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("echo: Dear {first name},\n{tags} {n} {ok}\n", encoding="utf-8")
    row = {"id": 1, "first name": "{Ann}", "tags": ["é"], "n": 2, "ok": True, "max_tokens": 9}
    ran = run("filter", "--jsonl", "--template", f"@{file}", given=json.dumps(row))
    answer = json.loads(ran.out)
    assert answer["text"] == 'Dear {Ann},\n["é"] 2 true'
    assert {name: answer[name] for name in row} == row
    assert answer["config"]["max_tokens"] == 9


@pytest.mark.parametrize("row", [{"id": 3}, {"id": 3, "title": None}, {"id": 3, "messages": []}])
def test_a_field_that_is_missing_fails_its_line(engines: list[FakeEngine], row: dict[str, Any]) -> None:
    given = f'{json.dumps(row)}\n{{"title": "on"}}\n'
    ran = run("filter", "--jsonl", "--template", "echo: {title}", given=given)
    failed, answered = map(json.loads, ran.out.splitlines())
    assert (failed["id"], failed["error"]["type"]) == (3, "usage")
    assert failed["error"]["message"] == "there is no field 'title'"
    assert (answered["text"], ran.code) == ("on", 1)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "no field in it"),
        ("Summarise this", "no field in it"),
        ("Summarise", "there is no template 'Summarise'"),
        ("{{prompt}}", "no field in it"),
        ("{title}", "no field {title}"),
        ("{prompt", "expected '}' before end of string"),
        ("prompt}", "single '}' encountered"),
        ("{}", "{} is not a plain field name"),
        ("{prompt.__class__}", "{prompt.__class__} is not a plain field name"),
        ("{prompt[0]}", "{prompt[0]} is not a plain field name"),
        ("{prompt!r}", "{prompt} is not a plain field name"),
        ("{prompt:>{width}}", "{prompt} is not a plain field name"),
        ("@/no/such/file", "No such file"),
    ],
)
def test_a_template_that_cannot_be(engines: list[FakeEngine], template: str, message: str) -> None:
    ran = run("filter", "--template", template, given="x\n")
    assert (ran.code, ran.out, engines) == (2, "", [])
    assert ran.err.startswith("error: --template: ")
    assert message in ran.err


@given(st.text(), st.text(), st.text())
def test_whatever_is_in_a_field_stays_as_it_is(before: str, value: str, after: str) -> None:
    escaped = [text.replace("{", "{{").replace("}", "}}") for text in (before, after)]
    template = f"{escaped[0]}{{prompt}}{escaped[1]}"
    if not template.startswith("@"):
        filled = read_template(template, any_field=False).fill({"prompt": value})
        assert filled == f"{before}{value}{after}"


@given(st.text(alphabet="{}[].!:aprompt@", max_size=12))
def test_any_template_is_read_or_refused(text: str) -> None:
    try:
        template = read_template(text, any_field=True)
    except UsageError:
        return
    assert "x" in template.fill(dict.fromkeys((part.field for part in template.parts), "x"))


# --- time limits


@pytest.mark.parametrize("beams", ["1", "3"])
def test_an_answer_that_takes_too_long_is_an_error_and_the_run_goes_on(
    engines: list[FakeEngine], beams: str
) -> None:
    ran = run("filter", "--timeout", "0.05", "-K", beams, given="slow\necho: on\n")
    assert (ran.code, ran.out) == (1, "\non\n")  # `slow` had begun, and K = 1 would have shown it
    assert "error: line 1: no answer in 0.05 seconds\nhint: " in ran.err
    ran = run("filter", "--jsonl", "--timeout", "0.05", given='{"id": 1, "prompt": "slow"}\n')
    assert json.loads(ran.out) == {
        "id": 1,
        "line": 1,
        "error": {
            "type": "timeout",
            "message": "no answer in 0.05 seconds",
            "hint": "Raise --timeout, or ask for less.",
        },
    }


def test_the_clock_does_not_run_while_a_row_loads_a_model(
    engines: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(engine: FakeEngine, config: Config | None = None) -> Iterator[Event]:
        yield Phase("load")
        sleep(0.2 if config and config.beams == 5 else 0)
        engine.cancellation.check()

    monkeypatch.setattr(FakeEngine, "load", load)
    ran = run("filter", "--jsonl", "--timeout", "0.1", given='{"prompt": "echo: on", "beams": 5}\n')
    assert (ran.code, json.loads(ran.out)["text"]) == (0, "on")


def test_ctrl_c_in_the_instant_of_the_timeout_stops_the_run(
    engines: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def expire_and_interrupt(limit: TimeLimit) -> None:
        limit.expired = True
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TimeLimit, "_expire", expire_and_interrupt)
    ran = run("filter", "--timeout", "0.05", given="slow\necho: on\n")
    assert (ran.code, ran.out) == (130, "")


def test_ctrl_c_while_a_record_fails_stops_the_run(
    engines: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Iterator[Event]:
        os.kill(os.getpid(), signal.SIGINT)
        raise ContextFull("all cells are full")
        yield

    monkeypatch.setattr(FakeEngine, "stream", full)
    ran = run("filter", given="a\nb\nc\n")
    assert (ran.code, ran.err.count("all cells are full")) == (130, 1)


def test_an_answer_in_time_stands(engines: list[FakeEngine]) -> None:
    assert run("filter", "--timeout", "60", given="echo: a\n").out == "a\n"


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9"])
def test_a_time_limit_that_cannot_be(engines: list[FakeEngine], seconds: str) -> None:
    ran = run("filter", f"--timeout={seconds}", given="x\n")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: --timeout: ")


def test_the_clock_stops_with_the_stream() -> None:
    cancellation = Cancellation()
    limit = TimeLimit(cancellation, 0.01)
    with closing(limit.over(iter([BeamText(0, "x", False)] * 3))) as events:
        next(events)
    sleep(0.03)
    assert (limit.expired, cancellation.is_set) == (False, False)


# --- progress


def test_the_tally_counts_an_answer_once() -> None:
    tally = Tally()
    for finish in ("stop", "blocked", "withdrawn"):
        tally.count(fake_result("x", CONFIG, finish))
    tally.count_failure()
    assert (tally.done, str(tally)) == (4, "0 refused, 2 blocked, 1 failed")


def test_counting_records_uses_none_up(tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    file.write_bytes(b"first\na\n\n b\nc")
    with file.open("rb") as stream:
        stream.readline()
        assert count_records(stream, b"\n") == 3
        assert stream.read() == b"a\n\n b\nc"
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as stream:
        os.close(theirs)
        assert count_records(stream, b"\n") is None


@pytest.mark.parametrize("from_file", [True, False])
def test_progress_on_a_terminal_leaves_the_answers_alone(tmp_path: Path, from_file: bool) -> None:
    touch_models()
    prompts, answers = tmp_path / "prompts", tmp_path / "answers"
    prompts.write_text("echo: one\nrefuse\nfull\necho: on\n")
    command = shlex.join([sys.executable, "-c", CHILD, "filter"])
    source = f"< {prompts}" if from_file else f"< <(cat {prompts})"
    code, screen = on_a_terminal(f"{command} {source} > {answers}")
    assert (code, answers.read_text()) == (1, f"one\n{REFUSED}\n\non\n")
    assert ("3/4 " if from_file else "3/? ") in screen
    assert "0 refused, 1 blocked, 1 failed · " in screen
    assert screen.endswith("4 prompts: 0 refused, 1 blocked, 1 failed\r\nerror: 1 of 4 prompts failed\r\n")


def on_a_terminal(command: str) -> tuple[int, str]:
    """Run a line of bash; its exit code and what the terminal got, without styles."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    child = subprocess.Popen(["bash", "-c", command], cwd=ROOT, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal, suppress(OSError):  # the child has left
        while chunk := terminal.read(4096):
            shown += chunk
    return child.wait(30), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def test_a_row_too_deep_to_be_written_back_fails_alone(engines: list[FakeEngine]) -> None:
    deep = "[" * 700 + "]" * 700
    ran = run("filter", "--jsonl", given=f'{{"prompt": "a", "x": {deep}}}\n{{"prompt": "echo: on"}}\n')
    first, second = map(json.loads, ran.out.splitlines())
    assert (ran.code, first["error"]["type"], second["text"]) == (1, "usage", "on")
