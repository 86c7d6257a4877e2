"""Running a command in this process, through the error boundary, with the fake engine; a wait; no room."""

import errno
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from alignbeam_local.cli import main as main_module
from alignbeam_local.cli import session
from typer.testing import CliRunner

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.models.registry import Registry

from .fake_engine import FakeEngine

STARTER = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct")
#: What a child process runs: the program with the fake engine.
CHILD = (
    "import sys; from alignbeam_local.cli import main, session; from tests.fake_engine import FakeEngine;"
    "session.open_engine = FakeEngine; sys.exit(main.main(sys.argv[1:]))"
)


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def run(*args: str, given: str | bytes = "") -> Ran:
    """Run a command; stdin is a pipe that holds what is given."""
    with CliRunner().isolation(input=given) as (out, err, _):
        code = main_module.main(args)
        sys.stdout.flush()
        sys.stderr.flush()
        return Ran(code, out.getvalue().decode(), err.getvalue().decode())


def touch_models() -> None:
    """Make files that stand for the starter profile's."""
    folder = Path(os.environ["ALIGNBEAM_MODELS_DIR"])
    folder.mkdir(parents=True)
    for name in STARTER:
        (folder / f"{name}.gguf").touch()


def open_fakes(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """From now on commands open fake engines; they come in the list that is returned."""
    opened: list[FakeEngine] = []

    def open_fake(config: Config, registry: Registry, cancellation: Cancellation | None = None) -> FakeEngine:
        opened.append(FakeEngine(config, registry, cancellation))
        return opened[-1]

    monkeypatch.setattr(session, "open_engine", open_fake)
    touch_models()
    return opened


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited 30 seconds in vain")


def no_room(*_: object, **__: object) -> None:
    """Stands for a write to a disk that is full."""
    raise OSError(errno.ENOSPC, "No space left on device")


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """While inside, a write that makes a file longer than this is cut off there and fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
