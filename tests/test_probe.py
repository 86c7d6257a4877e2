"""The probe remembers, chooses, and never takes a Ctrl-C or an orderly failure for a crash."""

import signal
import subprocess
from pathlib import Path

import pytest

from alignbeam_local import probe
from alignbeam_local.errors import ModelError
from alignbeam_local.paths import cache_dir

MODEL = Path("model.gguf")


class Child:
    """Stands for the child process: its exit codes with and without extra buffers, and its runs."""

    def __init__(self, with_buffers: int, without: int = 0) -> None:
        self.codes = {"1": with_buffers, "0": without}
        self.runs: list[str] = []

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        self.runs.append(command[-1])
        return subprocess.CompletedProcess(command, self.codes[command[-1]])


def use(monkeypatch: pytest.MonkeyPatch, child: Child) -> Child:
    monkeypatch.setattr(subprocess, "run", child)
    monkeypatch.setattr(probe, "machine_key", lambda: "this machine")
    return child


def test_a_crash_switches_the_extra_buffers_off_and_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    child = use(monkeypatch, Child(-signal.SIGSEGV))
    assert not probe.extra_buffers_work(MODEL)
    assert not probe.extra_buffers_work(MODEL)
    assert child.runs == ["1", "0"], "asked once per build and machine"


def test_another_build_or_machine_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    child = use(monkeypatch, Child(0))
    assert probe.extra_buffers_work(MODEL)
    monkeypatch.setattr(probe, "machine_key", lambda: "another")
    assert probe.extra_buffers_work(MODEL)
    assert child.runs == ["1", "1"]


@pytest.mark.parametrize("code", [0, 1, -signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL])
def test_what_is_no_crash_leaves_the_fast_kernels_on(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    use(monkeypatch, Child(code))
    assert probe.extra_buffers_work(MODEL)


def test_a_crash_either_way_is_an_error_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    child = use(monkeypatch, Child(-signal.SIGILL, -signal.SIGILL))
    with pytest.raises(ModelError) as caught:
        probe.extra_buffers_work(MODEL)
    assert "--no-binary" in caught.value.hint
    with pytest.raises(ModelError):
        probe.extra_buffers_work(MODEL)
    assert child.runs == ["1", "0"] * 2, "a failure is not remembered"


def test_a_damaged_memory_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    child = use(monkeypatch, Child(0))
    probe.extra_buffers_work(MODEL)
    (cache_dir() / "probe.json").write_text("{")
    assert probe.extra_buffers_work(MODEL)
    assert child.runs == ["1", "1"]


def test_a_child_that_really_dies_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda command, **options: real(["/bin/sh", "-c", "kill -SEGV $$"], **options)
    )
    with pytest.raises(ModelError):
        probe.extra_buffers_work(MODEL)
