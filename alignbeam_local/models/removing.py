"""Taking model files away that were pulled or imported."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import ModelError, UsageError
from ..paths import models_dir
from .hashes import file_sha256
from .importing import imported_table
from .registry import ModelFile, Registry
from .toml_files import remove_table


class Removed(NamedTuple):
    """A file that is gone, and how many bytes of the disk that freed: none where another link holds them."""

    name: str
    path: str
    freed_bytes: int


def removable(registry: Registry, spec: str) -> ModelFile:
    """The file behind a spec, which is there and among the models.

    Raises:
        UsageError: no such name, or a file that is elsewhere: it was not put there by this program.
        ModelError: there is no such file.
    """
    file = registry.resolve(spec)
    if file.entry.path is not None or not _is_among_models(file.path):
        raise UsageError(
            f"{file.path} is outside the models directory, {models_dir()}",
            "Only what was pulled or imported is removed here; delete that file yourself.",
        )
    if not file.present:
        raise ModelError(f"model '{spec}' is not here", "`alignbeam models list` says which are.")
    return file


def remove(file: ModelFile) -> Removed:
    """Delete a file that `removable` has found; a name that its import made is forgotten with it.

    Raises:
        OSError: it can't be deleted.
    """
    table = _table_of_import(file)
    stat = file.path.stat()
    file.path.unlink()
    if table:
        remove_table(table)
    return Removed(file.name, str(file.path), stat.st_size if stat.st_nlink == 1 else 0)


def _is_among_models(path: Path) -> bool:
    folder = os.path.realpath(models_dir())
    return os.path.realpath(path.absolute().parent) == folder


def _table_of_import(file: ModelFile) -> str | None:
    """What an import of this file wrote, if it can be read for its hash."""
    if file.entry.sha256 is None or file.can_pull:
        return None
    with suppress(ModelError):
        return imported_table(file.name, file.path.stat().st_size, file_sha256(file.path))
    return None
