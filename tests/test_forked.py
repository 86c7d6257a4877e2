"""A forked program is a process of its own: its code, its streams, its variables, its end."""

import os
import signal
import subprocess

import pytest

from tests.forked import Forked, run_forked

SHOWS = """
import os, sys
print(sys.argv, sys.stdin.read(), os.environ.get("FOO"), __name__)
print(os.getsid(0) == os.getpid(), file=sys.stderr)
sys.exit(7)
"""


def test_it_has_arguments_streams_variables_and_an_exit_code() -> None:
    ran = run_forked(SHOWS, "a", "é", given=b"given", env={**os.environ, "FOO": "bar"})
    assert (ran.returncode, ran.stdout) == (7, "['-c', 'a', 'é'] given bar __main__\n")
    assert ran.stderr == "False\n"


def test_one_may_begin_a_session() -> None:
    with Forked(SHOWS, is_leader=True) as child:
        assert child.communicate()[1] == b"True\n"
        assert child.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_as_it_ends_any_program(number: int) -> None:
    with Forked("import time; print(1, flush=True); time.sleep(60)") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"1\n"
        assert child.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.01)
        child.send_signal(number)
        assert child.wait() == -number
        child.send_signal(number)  # to nobody


def test_what_it_changes_stays_within_it() -> None:
    assert run_forked("import json; json.dumps = None; import os; os.environ['FOO'] = 'x'").returncode == 0
    again = run_forked("import json, os; print(json.dumps(1), os.environ.get('FOO'))")
    assert again.stdout == "1 None\n"


def test_an_error_is_told_as_python_tells_it() -> None:
    ran = run_forked("raise ValueError('here')")
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (1, "ValueError: here")
