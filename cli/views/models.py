"""How models and their pulls look on a terminal, and off it."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.cells import cell_len
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

from alignbeam_local.models.entry import ModelEntry
from alignbeam_local.models.registry import ModelFile, Registry
from alignbeam_local.roles import ROLES

from ..console.tables import plain_table, table_console
from ..console.terminal import printable

_ROOM = 28  # cells for what is said of a model or profile, beside its name
_ABOUT = "about (untested: never run with this software)"


def print_profiles(registry: Registry) -> None:
    """Every profile, its models and its other knobs; where names leave no room, in two columns."""
    console = table_console()
    rows = [_profile_row(registry, name) for name in registry.profiles]
    titles: tuple[str, ...] = ("profile", *ROLES, "other knobs", _ABOUT)
    if _width(titles, rows) + _ROOM > console.width:
        titles, rows = ("profile", _ABOUT), list(map(_in_words, rows))
    console.print(plain_table(titles, rows, names=len(titles) - 1))


def print_models(registry: Registry) -> None:
    """Every named model, one a row; a narrow terminal leaves columns out, but cuts no name."""
    console = table_console()
    titles = ["model", "here", "size", "roles", "licence", _ABOUT]
    rows = [_model_row(file) for file in registry.files()]
    for title in ("licence", "roles", "size"):
        if _width(titles, rows) + _ROOM <= console.width:
            break
        index = titles.index(title)
        titles.pop(index)
        rows = [(*row[:index], *row[index + 1 :]) for row in rows]
    console.print()
    console.print(plain_table(titles, rows, names=len(titles) - 1))


def _profile_row(registry: Registry, name: str) -> tuple[str, ...]:
    profile = registry.profiles[name]
    roles = [_names(profile.knobs.get(role, "-")) for role in ROLES]
    others = ", ".join(f"{key} = {value}" for key, value in profile.knobs.items() if key not in ROLES)
    entries = [registry.models[model] for model in roles if model in registry.models]
    mark = " (default)" if name == registry.default_profile else ""
    return (f"{name}{mark}", *roles, others, _about(profile.about, entries))


def _names(models: str | Sequence[str]) -> str:
    return models if isinstance(models, str) else " + ".join(models)


def _in_words(row: tuple[str, ...]) -> tuple[str, ...]:
    """A profile's name, and all the rest as one text."""
    name, *models, others, about = row
    roles = [f"{role} {model}" for role, model in zip(ROLES, models, strict=True)]
    return name, " · ".join(filter(None, (about, *roles, others)))


def _model_row(file: ModelFile) -> tuple[str, ...]:
    entry = file.entry
    about = _about(entry.about, [entry])
    return (
        *(file.name, "yes" if file.present else "-", _size(file)),
        *(", ".join(entry.roles), entry.licence, about),
    )


def _about(text: str, entries: Sequence[ModelEntry]) -> str:
    untested = "untested" if any(entry.tested is False for entry in entries) else ""
    return ": ".join(filter(None, (untested, text)))


def _width(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Cells for all columns but the last, which gets what is left and is wrapped."""
    columns = list(zip(titles, *rows, strict=True))[:-1]
    return sum(2 + max(map(cell_len, column)) for column in columns)


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
