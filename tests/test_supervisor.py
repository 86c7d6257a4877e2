"""The parent above a process with RPC servers: what it says when that one dies, how it passes signals on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
SCRIPT = """
import os, signal, sys, time
from alignbeam_local.cli.main import _report, _ended_by_signals
from alignbeam_local.cli.console.supervisor import go_on_below_parent
from alignbeam_local.config import Config
from alignbeam_local.last_words import note_doing, note_reason
import typer

for number in (signal.SIGTERM, signal.SIGHUP):  # another test may have left them ignored
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

def child():
    print("below", flush=True)
    {child}

try:
    with _ended_by_signals():
        go_on_below_parent(Config.of({{"rpc": "127.0.0.1:9"}}))
        child()
except typer.Exit as left:
    sys.exit(left.exit_code)
except BaseException as error:
    sys.exit(_report(error, []))
"""


def script(child: str) -> list[str]:
    return [sys.executable, "-c", SCRIPT.format(child=child)]


def run(child: str) -> tuple[int, str, str]:
    done = subprocess.run(script(child), capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ("load", "while the models were loaded"),
        ("prefill", "while the prompt was read"),
        ("mix", "while the first tokens were mixed"),
        ("complete", "while the answers were completed"),
        ("judge", "while the answers were judged"),
        ("", "while it was at work"),
    ],
)
def test_a_lost_server_is_named_with_what_was_going_on(phase: str, words: str) -> None:
    code, out, err = run(
        f"note_doing({phase!r}); note_reason('ggml-rpc.cpp:569: Remote RPC server crashed'); os.abort()"
    )
    assert (code, out) == (5, "below\n"), "it was printed once"
    assert f"error: the RPC server 127.0.0.1:9 was lost {words}\n" in err
    assert "hint: The answer in the making is lost" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("code", [0, 3, 4, 130])
def test_a_child_that_ends_by_itself_is_not_spoken_of(code: int) -> None:
    assert run(f"sys.stdout.flush(); os._exit({code})") == (code, "below\n", "")


def test_a_child_that_dies_of_something_else() -> None:
    code, _, err = run("note_doing('mix'); os.kill(os.getpid(), signal.SIGKILL)")
    assert code == 1
    assert "the process that held the models was ended by SIGKILL while the first tokens were mixed" in err
    assert "Was there enough memory?" in err


def started(child: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        script(child), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "below\n"
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_signals_reach_the_child(number: int, code: int) -> None:
    # In short sleeps: a signal just before one is heard after it.
    process = started("[time.sleep(0.1) for _ in range(300)]")
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (code, "")


def test_ctrl_c_three_times_ends_a_child_that_hears_nothing() -> None:
    deaf = "signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    process = started(deaf)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None, "once is not enough"
    for _ in range(20):  # on a busy machine two may be taken for one
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_child_does_not_outlive_its_parent() -> None:
    process = started("print(os.getpid(), flush=True); time.sleep(30)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait(10)
    until = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and _state(child) != "Z":
        assert time.monotonic() < until
        time.sleep(0.02)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
