"""No test touches the user's own files; those marked `models` read the pulled models."""

import os
import signal
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from alignbeam_local.cli.console import markdown_stream

from alignbeam_local.doctor import machine_checks
from alignbeam_local.judge import questions, rubric
from alignbeam_local.judge.rubric import worked_examples
from alignbeam_local.machine import probe
from alignbeam_local.paths import models_dir

from .fake_engine import FakeEngine
from .running import open_fakes

_REAL_MODELS_DIR = models_dir()

hypothesis.settings.register_profile("timeless", deadline=None)  # machines are busy
hypothesis.settings.load_profile("timeless")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A background job ignores Ctrl-C, and so would every child that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What tests with real models need not find out anew."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names of directories that are not there yet, for tests that have no directory of their own."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in count())


@pytest.fixture(autouse=True)
def isolated(
    homes: Iterator[Path], shared_cache: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program's directories are empty ones, and its variables are unset."""
    for name in [name for name in os.environ if name.startswith("ALIGNBEAM_")]:
        monkeypatch.delenv(name)
    reads_models = request.node.get_closest_marker("models") is not None
    has_own = "tmp_path" in request.fixturenames
    home = request.getfixturevalue("tmp_path") / "alignbeam" if has_own else next(homes)
    monkeypatch.setenv("ALIGNBEAM_CONFIG_DIR", str(home / "config"))
    monkeypatch.setenv("ALIGNBEAM_DATA_DIR", str(home / "data"))
    monkeypatch.setenv("ALIGNBEAM_CACHE_DIR", str(shared_cache if reads_models else home / "cache"))
    monkeypatch.setenv("ALIGNBEAM_MODELS_DIR", str(_REAL_MODELS_DIR if reads_models else home / "models"))


@cache
def _of_a_child(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def llama_cpp_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether llama.cpp can be imported, a child process tells the doctor; of all tests the first asks it."""
    real, timeout = subprocess.run, machine_checks._IMPORT_SECONDS

    def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        if options.get("timeout") == timeout and command[-1] == "import alignbeam_local.llama.context":
            return _of_a_child(*command)
        return real(command, **options)

    monkeypatch.setattr("alignbeam_local.doctor.machine_checks.subprocess.run", run)


@pytest.fixture
def probed_once(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a child process found of a file stays known for the next test, as it does for the next run."""
    memory = tmp_path_factory.getbasetemp() / "probe.json"
    monkeypatch.setattr(probe, "_file", lambda: memory)


@pytest.fixture
def few_examples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenising in Python is slow: a few worked examples show as much as all."""
    if request.node.get_closest_marker("models"):
        return
    examples = worked_examples()[:1]
    monkeypatch.setattr(rubric, "worked_examples", lambda: examples)
    monkeypatch.setattr(questions, "REQUEST_EXAMPLES", questions.REQUEST_EXAMPLES[:2])
    monkeypatch.setattr(questions, "ANSWER_EXAMPLES", questions.ANSWER_EXAMPLES[:2])


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """The engines that were opened; the starter's files are there."""
    return open_fakes(monkeypatch)


@pytest.fixture
def always_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Markdown that grows is drawn anew with every piece."""
    monkeypatch.setattr(markdown_stream, "_REDRAW_S", 0.0)
