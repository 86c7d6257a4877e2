"""What it takes to be a place that model files come from."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..errors import ModelError
from ..paths import ensure_dir

#: Told the source, the part ("2/6"), the bytes done and the bytes in all (None: not known).
PullProgress = Callable[[str, str, int, int | None], None]

#: Room left over on the disk.
SLACK = 16 << 20


class SourceError(ModelError):
    """This source did not deliver; another one may."""


class Source(Protocol):
    """One place a file can come from. It fills one growing file, so that a pull that was cut off goes on."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """What a remembered hash is filed under."""

    def fetch(self, folder: Path, expected_bytes: int | None, progress: PullProgress) -> Path:
        """Bring the whole file into `folder`, going on with what lies there.

        Raises:
            SourceError: another source may do better.
            ModelError: none will, as there is no room on the disk.
        """


def check_space(folder: Path, needed: int) -> None:
    """Raises: ModelError: the disk of `folder` has less room than `needed` bytes."""
    free = shutil.disk_usage(ensure_dir(folder)).free
    if free < needed:
        raise ModelError(
            f"not enough disk space in {folder}: {needed / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free",
            "Free some, or set ALIGNBEAM_MODELS_DIR to a directory on another disk.",
        )


def tell(progress: PullProgress, source: str, part: str, total: int | None, done: int) -> None:
    """`progress` with the bytes last, for functools.partial."""
    progress(source, part, done, total)
