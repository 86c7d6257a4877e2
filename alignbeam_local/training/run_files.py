"""A training run on disk: what it is, where it stands, its losses; each file whole or not there."""

import csv
import errno
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import AlignBeamError, UsageError
from ..evaluation.runs.run_directory import sole_writer
from ..paths import ensure_dir, replacing
from ..result_json import parsed
from .looks.loss_row import LossRow, Shares
from .looks.plot import plot

MANIFEST, RESULT, CHECKPOINT, LOSSES, PLOT = (
    "manifest.json",
    "result.json",
    "checkpoint.pt",
    "losses.csv",
    "losses.png",
)
#: Characters of a setting in a message.
_LONGEST = 60
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunFiles:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self, manifest: Mapping[str, Any]) -> Iterator[None]:
        """Have the directory for this run, a new one or one to go on with; no other process can meanwhile.

        Raises:
            UsageError: the directory holds another run, something else, or a run that is being written.
        """
        ensure_dir(self.path)
        with sole_writer(self.path / ".lock", f"another process writes to {self.path}", "--out"):
            self._require_same(manifest)
            yield

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Make it this run's. Raises: AlignBeamError: no room on the disk."""
        self._write_text(MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")

    def _require_same(self, manifest: Mapping[str, Any]) -> None:
        file = self.path / MANIFEST
        if not file.exists():
            if any(not other.name.startswith(".") for other in self.path.iterdir()):
                raise UsageError(f"{self.path} is not empty and holds no training", "Choose another --out.")
            return
        try:
            old = parsed(file.read_bytes())
        except ValueError:
            raise UsageError(f"{file} is damaged", "Choose another --out, or delete it.") from None
        if changes := list(_changes(old if isinstance(old, dict) else {}, manifest)):
            raise UsageError(
                f"{self.path} holds another training: {'; '.join(changes)}",
                "Choose another --out, or give the same command to go on.",
            )

    def checkpoint(self) -> dict[str, Any] | None:
        """The last one, if there is one.

        Raises:
            AlignBeamError: it is damaged.
        """
        import torch

        file = self.path / CHECKPOINT
        if not file.exists():
            return None
        try:
            found = torch.load(file, weights_only=True)
        except Exception as error:  # of pickle, zip and torch, each with its own
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise AlignBeamError(
                f"{file} is damaged: {reason}", "Delete it: the training then starts anew."
            ) from None
        assert isinstance(found, dict)
        return found

    def save_checkpoint(self, state: Mapping[str, Any], history: Sequence[LossRow]) -> None:
        """Where the training stands, and its losses so far.

        Raises:
            AlignBeamError: there is no room on the disk.
        """
        import torch

        buffer = io.BytesIO()  # torch has errors of its own for a disk that is full
        torch.save({**state, "history": [tuple(row) for row in history]}, buffer)
        self.write(CHECKPOINT, buffer.getvalue())
        self._write_losses(history)

    def finish(
        self, result: Mapping[str, Any], history: Sequence[LossRow], before: Shares | None = None
    ) -> None:
        """What came of it; the checkpoint is no longer needed. `before` are the base's shares."""
        self._write_losses(history)
        if find_spec("matplotlib") is not None:
            self.write(PLOT, plot(history, before))
        self._write_text(RESULT, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        (self.path / CHECKPOINT).unlink(missing_ok=True)

    def result(self) -> dict[str, Any] | None:
        """What came of it, where it is done."""
        try:
            found = parsed((self.path / RESULT).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, name: str, content: bytes) -> Path:
        """A file of the run, whole or not at all. Raises: AlignBeamError: no room on the disk."""
        path = self.path / name
        with told_if_full(path), replacing(path) as temporary:
            temporary.write_bytes(content)
        return path

    def _write_losses(self, history: Sequence[LossRow]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(LossRow._fields)
        writer.writerows(history)  # None is written as nothing
        self._write_text(LOSSES, text.getvalue())

    def _write_text(self, name: str, text: str) -> None:
        self.write(name, text.encode())


def _changes(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """What differs between two values of JSON, each by its dotted name with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _changes(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif old != new:
        yield f"{where} was {_short(old)}, now {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


@contextmanager
def told_if_full(path: Path) -> Iterator[None]:
    """Raises: AlignBeamError: what is written inside found no room on the disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise AlignBeamError(
            f"there is no room on the disk for {path}",
            "Free some and give the same command again: it goes on from the last checkpoint.",
        ) from None
