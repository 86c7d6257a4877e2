"""Threads that share the processor with other programs: they sleep soon, and a starved run says so."""

import os
import subprocess
import sys

import pytest

from alignbeam_local.events import Notice
from alignbeam_local.llama.threads import SPINS, sleeping_soon
from alignbeam_local.lm.starvation import Starvation
from tests.talk import Talk

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def test_llama_cpp_is_loaded_with_threads_that_sleep_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with sleeping_soon():
        assert os.environ["GOMP_SPINCOUNT"] == str(SPINS)
    assert "GOMP_SPINCOUNT" not in os.environ, "other programs that are started are not ours to set"


@pytest.mark.parametrize("name", VARIABLES)
def test_what_the_user_has_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "active")
    before = dict(os.environ)
    with sleeping_soon():
        assert dict(os.environ) == before


@pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP shows what it read on Linux")
def test_gnu_openmp_reads_it_whichever_of_our_modules_comes_first() -> None:
    environ = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    for module in ("library", "context", "gpus"):
        child = subprocess.run(
            [sys.executable, "-c", f"import alignbeam_local.llama.{module}"],
            env={**environ, "OMP_DISPLAY_ENV": "VERBOSE"},
            capture_output=True,
            text=True,
            check=True,
        )
        if "GOMP_SPINCOUNT" not in child.stderr:
            pytest.skip("this build of llama.cpp is without GNU OpenMP")
        assert f"GOMP_SPINCOUNT = '{SPINS}'" in child.stderr


@pytest.mark.parametrize(
    ("passed", "got", "threads", "is_starved"),
    [(10, 18, 2, False), (10, 6, 2, True), (10, 9, 1, False), (10, 4, 1, True), (2, 0.1, 2, False)],
)
def test_starved_is_who_gets_under_half_for_some_seconds(
    passed: float, got: float, threads: int, is_starved: bool
) -> None:
    starvation = Starvation()
    for _ in range(100):
        starvation.add(passed / 100, got / 100, threads)
    assert bool(starvation.notice()) is is_starved


def test_a_starved_answer_says_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch)
    talk.loader.starvation.add(10, 5, 2)
    first = talk.ask("How?")
    talk.loader.starvation.add(10, 5, 2)
    second = talk.ask("And then?")
    said = [[notice for notice in one.notices if "slow this down" in notice] for one in (first, second)]
    assert [len(notices) for notices in said] == [1, 0]
    assert "got 25% of the processor time" in said[0][0]


def test_it_is_told_while_the_answer_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch)
    talk.loader.starvation.add(10, 5, 2)
    events = list(talk.engine.stream("How?"))
    assert any(isinstance(event, Notice) and "slow this down" in event.message for event in events[:-1])


def test_a_long_fair_time_does_not_hide_a_starved_one() -> None:
    starvation = Starvation()
    starvation.add(1000, 1900, 2)
    assert not starvation.notice()
    starvation.add(10, 4, 2)
    assert "got 20%" in starvation.notice()
