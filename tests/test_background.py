"""Work beside the main thread: stopped at once, one at a time, failures in the log."""

import logging
import threading
import time

import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.engine.background import Background
from alignbeam_local.errors import ModelError


class Work:
    """Goes on until it is cancelled."""

    def __init__(self, cancellation: Cancellation) -> None:
        self._cancellation = cancellation
        self.started = threading.Event()
        self.ended = False

    def __call__(self) -> None:
        self.started.set()
        try:
            while True:
                self._cancellation.check()
                time.sleep(0.001)
        finally:
            self.ended = True


def test_stop_cancels_and_waits_and_leaves_no_flag() -> None:
    cancellation = Cancellation()
    background, work = Background(cancellation), Work(cancellation)
    background.start(work)
    assert work.started.wait(5)
    background.stop()
    assert work.ended
    assert not cancellation.is_set
    background.stop()


def test_what_starts_ends_what_runs() -> None:
    cancellation = Cancellation()
    background, first, second = Background(cancellation), Work(cancellation), Work(cancellation)
    background.start(first)
    assert first.started.wait(5)
    background.start(second)
    assert first.ended
    assert second.started.wait(5)
    background.stop()
    assert second.ended


def test_an_old_cancellation_does_not_reach_new_work() -> None:
    cancellation = Cancellation()
    cancellation.set()
    background, work = Background(cancellation), Work(cancellation)
    background.start(work)
    assert work.started.wait(5)
    time.sleep(0.01)
    assert not work.ended
    background.stop()


def test_a_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ModelError("broken")

    background = Background(Cancellation())
    with caplog.at_level(logging.WARNING):
        background.start(fail)
        background.wait()
    assert "broken" in caplog.text


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("meanwhile", [True, False])
def test_a_raised_flag_is_put_back_unless_the_user_cancelled(before: bool, meanwhile: bool) -> None:
    cancellation = Cancellation()
    if before:
        cancellation.set()
    with cancellation.raised():
        assert cancellation.is_set
        if meanwhile:
            cancellation.set()
    assert cancellation.is_set == (before or meanwhile)
