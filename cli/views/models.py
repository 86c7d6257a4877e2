"""How models and their pulls look on a terminal, and off it."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from alignbeam_local.config import ROLES
from alignbeam_local.models.registry import ModelFile, Registry

from ..tables import plain_table, table_console
from ..terminal import printable


def print_models(registry: Registry) -> None:
    """Every named model, one a row."""
    rows = [
        (
            *(file.name, _size(file), file.entry.licence, ", ".join(file.entry.roles)),
            *("yes" if file.present else "-", file.entry.about),
        )
        for file in registry.files()
    ]
    table_console().print(plain_table(("model", "size", "licence", "roles", "here", "about"), rows))


def print_profiles(registry: Registry) -> None:
    """Every profile, its models and its other knobs."""
    rows = []
    for name, profile in registry.profiles.items():
        roles = [str(profile.knobs.get(role, "-")) for role in ROLES]
        others = (f"{key} = {value}" for key, value in profile.knobs.items() if key not in ROLES)
        mark = " (default)" if name == registry.default_profile else ""
        rows.append((f"{name}{mark}", *roles, ", ".join(others), profile.about))
    titles = ("profile", "draft", "anchor", "judge", "knobs", "about")
    table_console().print("\n", plain_table(titles, rows), sep="")


class PullView:
    """One pull on stderr: a bar with rate and time left on a terminal, else a line for each part."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._label = ""
        self._console = Console(stderr=True)
        self._bar = _bar(self._console) if sys.stderr.isatty() else None
        self._task = (
            self._bar.add_task(escape(name), start=True, total=None, visible=False) if self._bar else None
        )

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def progress(self, source: str, part: str, done: int, total: int | None) -> None:
        label = f"{self._name}: {source} {part}"
        is_new, self._label = label != self._label, label
        if self._bar and self._task is not None:
            if is_new and part == "check":
                self._bar.reset(self._task)
            self._bar.update(self._task, description=escape(label), completed=done, total=total, visible=True)
        elif is_new:
            print(f"{label} ({in_megabytes(total)})", file=sys.stderr)

    def notice(self, message: str) -> None:
        self._console.print(printable(message), markup=False, highlight=False, soft_wrap=True)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _size(file: ModelFile) -> str:
    return in_megabytes(file.path.stat().st_size if file.present else file.entry.bytes)


def in_megabytes(size: int | None) -> str:
    """A file's size for people."""
    return "size unknown" if size is None else f"{size / 1e6:,.0f} MB"
