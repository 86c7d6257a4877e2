"""Model files that are already on this machine: taking one in, and checking what is there."""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from ..errors import ModelError, UsageError
from ..paths import ensure_dir, models_dir
from .adapter import is_adapter, require_sound
from .entry import ModelEntry
from .gguf_header import read_header
from .hashes import HashProgress, file_sha256, fresh_sha256, remember_hash
from .pull import expected_sha256, sources_of
from .registry import ModelFile, Registry
from .source import SLACK, check_space
from .toml_files import append_table


class Verified(NamedTuple):
    """A file's hash (None: it can't be read) beside the one it must have (None: nobody said)."""

    name: str
    sha256: str | None
    expected: str | None
    error: str | None = None  # why it is no whole GGUF file, or is not there

    @property
    def ok(self) -> bool | None:
        """Whether the file is the one it must be; None: it is whole, and nobody said more."""
        if self.error is not None:
            return False
        return None if self.expected is None else self.sha256 == self.expected


def verify(registry: Registry, spec: str, progress: HashProgress | None = None) -> Verified:
    """Compute the file's hash anew and check that every tensor is there; what is wrong is told, not raised.

    Raises:
        UsageError: no such name.
    """
    file = registry.resolve(spec)
    sha256 = expected = error = None
    try:
        path = registry.require(spec).path
        sha256, expected = fresh_sha256(path, progress), expected_sha256(file)
        read_header(path)
    except ModelError as problem:
        error = problem.message
    return Verified(file.name, sha256, expected, error)


def import_model(
    registry: Registry, path: Path, name: str | None = None, how: Literal["link", "copy"] = "link"
) -> ModelFile:
    """Put a GGUF file among the models and into the user's models.toml. A link that is impossible is a copy.

    Raises:
        UsageError: the name is taken by another file, or cannot be one; a part of a split model.
        ModelError: not a whole GGUF file, an adapter that is none, or no room on the disk.
    """
    if is_adapter(path):
        require_sound(path)  # one that could never be used is not taken in
    if read_header(path).split_count > 1:
        raise UsageError(
            f"{path} is one of several parts of a model",
            "Give the first part's path as a model, or join them: llama-gguf-split --merge FIRST WHOLE.",
        )
    name = name or re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(
            f"'{name}' cannot be a model's name", "Use letters, digits, dots, dashes; see --name."
        )
    sha256 = file_sha256(path)
    target = models_dir() / f"{name}.gguf"
    known = registry.resolve(name) if name in registry.models else None
    _check_free(known, name, path, target, sha256)
    if not target.exists():
        _place(path.resolve(), target, how)
    if known is None:
        append_table(imported_table(name, target.stat().st_size, sha256))
    elif expected_sha256(known) is None:
        for source in sources_of(known):
            remember_hash(source.identity, sha256)
    return known or ModelFile(name, target, ModelEntry(bytes=target.stat().st_size, sha256=sha256))


def _check_free(known: ModelFile | None, name: str, path: Path, target: Path, sha256: str) -> None:
    taken = known is not None and not _may_be(known, path, sha256)
    if taken or (target.exists() and file_sha256(target) != sha256):
        raise UsageError(f"the name '{name}' belongs to another file", "Choose another one with --name.")


def _may_be(known: ModelFile, path: Path, sha256: str) -> bool:
    """Whether a file is the one that a name stands for, as far as that is known."""
    if known.entry.path:  # it stays where it is: nothing among the models stands for it
        return False
    size, expected = known.entry.bytes, expected_sha256(known)
    return size in (None, path.stat().st_size) and expected in (None, sha256)


def _place(path: Path, target: Path, how: Literal["link", "copy"]) -> None:
    with tempfile.TemporaryDirectory(dir=ensure_dir(target.parent), prefix=".import-") as folder:
        temporary = Path(folder) / target.name
        if how == "copy" or not _linked(path, temporary):
            check_space(target.parent, path.stat().st_size + SLACK)
            shutil.copyfile(path, temporary)
        temporary.replace(target)


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path, target)
    except OSError:
        return False
    return True


def imported_table(name: str, size: int, sha256: str) -> str:
    """What the user's models.toml says of an imported file."""
    return f'[models.{json.dumps(name)}]\nabout = "imported"\nbytes = {size}\nsha256 = "{sha256}"\n'
