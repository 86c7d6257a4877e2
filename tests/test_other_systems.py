"""Windows and macOS lack what Linux has: the program starts all the same. It was never run there."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: A child whose Python has what Windows' has: third-party packages are loaded before anything goes.
_WITHOUT = """
import importlib, os, pathlib, signal, sys, tempfile, subprocess, platform, asyncio, multiprocessing
import filelock, gguf, greenlet, huggingface_hub, jinja2, llama_cpp, markdown_it, numpy, platformdirs
import prompt_toolkit, prompt_toolkit.shortcuts, psutil, pydantic, rich.console, rich.live, rich.markdown
import rich.table, typer, typer.main
import prompt_toolkit.input.vt100, prompt_toolkit.output.vt100
MODULES = ("resource", "fcntl", "termios", "tty", "pty", "pwd", "grp", "readline", "syslog")
SIGNALS = ("SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM")
FUNCTIONS = (
    "geteuid getuid getegid getgid getpgrp getpgid getsid setsid tcgetpgrp tcsetpgrp fork forkpty "
    "pipe2 killpg getloadavg sched_getaffinity sched_setaffinity uname fchmod "
    "chown mkfifo nice sysconf wait3 statvfs O_NONBLOCK O_CLOEXEC O_NOFOLLOW O_DIRECTORY O_SYNC"
)
for name in MODULES:
    sys.modules[name] = None
for name in [name for name in dir(signal) if name.startswith("SIG") and name[3].isalpha()]:
    if name not in SIGNALS:
        delattr(signal, name)
for name in ("sigwait", "pthread_sigmask", "pthread_kill", "setitimer", "alarm", "siginterrupt", "pause"):
    delattr(signal, name)
for name in FUNCTIONS.split():
    if hasattr(os, name):
        delattr(os, name)
"""
_IMPORTS = """
for folder, package in (("alignbeam_local", "alignbeam_local"), ("cli", "alignbeam_local.cli")):
    for file in sorted(pathlib.Path(folder).rglob("*.py")):
        if {"train", "training"} & set(file.parts):  # torch's to answer for
            continue
        parts = [package, *file.relative_to(folder).with_suffix("").parts]
        importlib.import_module(".".join(parts).removesuffix(".__init__"))
print("imported")
"""
_STARTS = """
from alignbeam_local.cancellation import Cancellation
from alignbeam_local.cli import main, session
from alignbeam_local.cli.console.terminal import unechoed
from alignbeam_local.llama import library
from alignbeam_local.lm.checksummed_file import Checksummed, read_checksummed, write_checksummed
from alignbeam_local.machine.machine import peak_memory, this_machine
from alignbeam_local.models.gguf_reader import open_file
from tests.fake_engine import FakeEngine

assert peak_memory() > 0 and this_machine().load >= 0
assert open_file(pathlib.Path(__file__ if "__file__" in globals() else sys.executable)).read(1)
place = pathlib.Path(sys.argv[1])
write_checksummed(place / "kept", "form", Checksummed({}, [b"x"]))
assert read_checksummed(place / "kept", "form").blobs == [b"x"]
with unechoed(), Cancellation().on_interrupt():
    pass
session.open_engine = FakeEngine
assert main.main(["ask", "echo: it answers"]) == 0
assert main.main(["models", "list"]) == 0
"""


def run(program: str, *args: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", program, *args]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def test_every_module_can_be_imported_without_what_windows_lacks() -> None:
    child = run(f"{_WITHOUT}{_IMPORTS}")
    assert (child.returncode, child.stdout) == (0, "imported\n"), child.stderr


@pytest.mark.usefixtures("models_here")
def test_it_starts_answers_and_keeps_files_without_them(tmp_path: Path) -> None:
    child = run(f"{_WITHOUT}{_STARTS}", str(tmp_path))
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("it answers\n")


@pytest.fixture
def models_here() -> None:
    from .running import touch_models

    touch_models()


def test_macos_reports_memory_in_bytes() -> None:
    program = (
        "import sys; from pathlib import Path; from alignbeam_local.machine import machine;"
        "Path.read_text = lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError());"
        "linux = machine.peak_memory(); sys.platform = 'darwin'; print(linux // machine.peak_memory())"
    )
    assert run(program).stdout == "1024\n"
