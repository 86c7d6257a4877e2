"""Ctrl-C sets a flag, also while C code runs, and everything is put back after."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.errors import Cancelled

#: Waits for an interrupt, reports it, and waits for another where none is expected any more.
PROGRAM = """
import time
from alignbeam_local.cancellation import Cancellation

cancellation = Cancellation()
with cancellation.on_interrupt():
    print("ready", flush=True)
    while not cancellation.is_set:
        time.sleep(0.001)
    print("cancelled", flush=True)
try:
    print("outside", flush=True)
    time.sleep(20)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def flag_at(address: int) -> bytes:
    return ctypes.string_at(address)


def test_the_flag_is_an_empty_c_string_until_set() -> None:
    cancellation = Cancellation()
    assert (cancellation.is_set, flag_at(cancellation.address)) == (False, b"")
    cancellation.check()
    cancellation.set()
    assert (cancellation.is_set, flag_at(cancellation.address)) == (True, b"\1")
    with pytest.raises(Cancelled):
        cancellation.check()
    cancellation.clear()
    assert (cancellation.is_set, flag_at(cancellation.address)) == (False, b"")


def test_an_interrupt_sets_the_flag_and_raises_nothing() -> None:
    cancellation = Cancellation()
    with cancellation.on_interrupt():
        signal.raise_signal(signal.SIGINT)
        assert cancellation.is_set


def test_each_use_begins_with_a_cleared_flag() -> None:
    cancellation = Cancellation()
    cancellation.set()
    with cancellation.on_interrupt():
        assert not cancellation.is_set


def test_other_signals_do_not_cancel() -> None:
    cancellation, seen = Cancellation(), threading.Event()
    previous = signal.signal(signal.SIGUSR1, lambda *_: seen.set())
    try:
        with cancellation.on_interrupt():
            signal.raise_signal(signal.SIGUSR1)
            assert seen.wait(5)
        assert not cancellation.is_set
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_handler_and_wakeup_descriptor_are_put_back_also_after_an_error() -> None:
    def handler(*_: object) -> None:
        """Ours, to be found again."""

    original = signal.signal(signal.SIGINT, handler)
    reader, writer = os.pipe2(os.O_NONBLOCK)
    original_fd = signal.set_wakeup_fd(writer)
    threads = threading.active_count()
    try:
        with pytest.raises(RuntimeError), Cancellation().on_interrupt():
            raise RuntimeError
        assert signal.getsignal(signal.SIGINT) is handler
        assert signal.set_wakeup_fd(original_fd) == writer
        assert threading.active_count() == threads
    finally:
        signal.set_wakeup_fd(original_fd)
        signal.signal(signal.SIGINT, original)
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_flag_is_set_while_the_main_thread_is_inside_c(number: signal.Signals) -> None:
    """The main thread waits in C for a mutex, where no Python handler can run."""
    cancellation, libc = Cancellation(), ctypes.CDLL(None)
    mutex = ctypes.create_string_buffer(128)
    libc.pthread_mutex_init(mutex, None)
    locked, seen = threading.Event(), []

    def interrupt() -> None:
        libc.pthread_mutex_lock(mutex)
        locked.set()
        time.sleep(0.05)  # let the main thread begin to wait
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 5
        while not cancellation.is_set and time.monotonic() < deadline:
            time.sleep(0.001)
        seen.append(cancellation.is_set)
        libc.pthread_mutex_unlock(mutex)

    previous = signal.signal(number, lambda *_: None)  # the program has one for each
    try:
        with cancellation.on_interrupt():
            helper = threading.Thread(target=interrupt)
            helper.start()
            locked.wait()
            libc.pthread_mutex_lock(mutex)
            helper.join()
    finally:
        signal.signal(number, previous)
    assert seen == [True]


def test_an_interrupted_process_goes_on_and_can_be_interrupted_again() -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        for expected in ("ready", "outside"):
            while (line := process.stdout.readline().strip()) != expected:
                assert line == "cancelled"
            process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"
    assert process.returncode == 0


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        cancellation = Cancellation()
        with cancellation.on_interrupt():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
        assert not cancellation.is_set
    finally:
        signal.signal(signal.SIGINT, before)
