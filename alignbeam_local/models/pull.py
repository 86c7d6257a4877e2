"""Pulling a model: from one source after the other, checked whole, and then put in its place at once."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import ModelError, UsageError
from ..paths import ensure_dir
from .gguf_header import read_header
from .hashes import file_sha256, fresh_sha256, known_hash, known_hashes_file, moved, remember_hash
from .hub import HubSource
from .hub_client import network_hint
from .mirror import MirrorSource
from .registry import ModelFile
from .source import PullProgress, Source, SourceError

#: Told what the user should know meanwhile.
Told = Callable[[str], None]

_OFFLINE_VARIABLES = ("ALIGNBEAM_OFFLINE", "HF_HUB_OFFLINE")
_FALSE = ("", "0", "false", "no", "off")


def pull(
    file: ModelFile,
    *,
    offline: bool = False,
    progress: PullProgress = lambda *_: None,
    notice: Told = lambda _: None,
    sources: Sequence[Source] | None = None,
) -> Path:
    """Bring the model's file to its place, unless it is there; what an earlier pull left is gone on with.

    Raises:
        UsageError: a path, not a name: there is nowhere to pull from.
        ModelError: offline, no room on the disk, or no source that delivers the right bytes.
    """
    if _is_whole(file, progress):
        return file.path
    sources = sources_of(file) if sources is None else sources
    if not sources and file.present:
        check_sha256(file, file_sha256(file.path))
    if not sources:
        raise UsageError(
            f"'{file.name}' has no source to pull from", "Name a model of `alignbeam models list`."
        )
    if is_offline(offline):
        raise ModelError(
            f"model '{file.name}' is {'damaged' if file.present else 'not here'}, and this is offline",
            "Leave out --offline, and unset ALIGNBEAM_OFFLINE and HF_HUB_OFFLINE.",
        )
    with _locked(file, notice):
        if not _is_whole(file, progress):
            _pull_first_good(file, sources, progress, notice)
    return file.path


def sources_of(file: ModelFile) -> list[Source]:
    """Where the file can come from, best first."""
    if not file.can_pull:
        return []
    hub, mirror = file.entry.hub, file.entry.mirror
    sources: list[Source] = [
        *([HubSource(hub)] if hub else []),
        *([MirrorSource(mirror)] if mirror else []),
    ]
    return sorted(sources, key=lambda source: source.name != file.entry.first_source)


def is_offline(flag: bool = False) -> bool:
    """Whether the flag or the environment forbids the network."""
    return flag or any(os.environ.get(name, "").lower() not in _FALSE for name in _OFFLINE_VARIABLES)


def expected_sha256(file: ModelFile) -> str | None:
    """The hash the file must have: published, or remembered from its first pull.

    Raises:
        ModelError: the record of earlier pulls is damaged.
    """
    remembered = (known_hash(source.identity) for source in sources_of(file))
    return file.entry.sha256 or next(filter(None, remembered), None)


def check_sha256(file: ModelFile, sha256: str) -> None:
    """Raises: ModelError: not the hash the file must have."""
    if sha256 != (expected_sha256(file) or sha256):
        raise ModelError(
            f"{file.path} is not the file that '{file.name}' names: its sha256 is {sha256}",
            f"Pull it again: alignbeam models pull {file.name}"
            if file.can_pull
            else "Put the file back, or correct its sha256 in models.toml.",
        )


def _pull_first_good(
    file: ModelFile, sources: Sequence[Source], progress: PullProgress, notice: Told
) -> None:
    folder = _partial_root(file) / file.name
    failures: list[SourceError] = []
    for source in sources:
        try:
            _pull_from(source, file, folder / source.name, progress)
            shutil.rmtree(folder, ignore_errors=True)
            return
        except SourceError as error:
            failures.append(error)
            more = "; trying the next source" if len(failures) < len(sources) else ""
            notice(f"{file.name}: {source.name}: {error.message}{more}")
    raise ModelError(
        f"model '{file.name}' could not be pulled: {'; '.join(error.message for error in failures)}",
        next(
            (error.hint for error in failures if error.hint),
            f"{network_hint()}; then pull again: it resumes.",
        ),
    )


def _pull_from(source: Source, file: ModelFile, folder: Path, progress: PullProgress) -> None:
    partial = source.fetch(folder, file.entry.bytes, progress)
    try:
        sha256 = _check(source, file, partial, progress)
    except SourceError:
        shutil.rmtree(folder)
        raise
    if file.entry.sha256 is None:
        remember_hash(source.identity, sha256)
    moved(partial, file.path)


def _check(source: Source, file: ModelFile, partial: Path, progress: PullProgress) -> str:
    size = partial.stat().st_size
    if file.entry.bytes not in (None, size):
        raise SourceError(f"it has {size} bytes instead of {file.entry.bytes}")
    sha256 = fresh_sha256(partial, lambda done, total: progress(source.name, "check", done, total))
    if file.entry.sha256 is not None and sha256 != file.entry.sha256:
        raise SourceError(f"its sha256 is {sha256} instead of {file.entry.sha256}")
    if file.entry.sha256 is None and sha256 != (known_hash(source.identity) or sha256):
        raise SourceError(
            f"its sha256 is {sha256}, not the {known_hash(source.identity)} of its first pull",
            f"If you expected that change, remove '{source.identity}' from {known_hashes_file()}.",
        )
    try:
        read_header(partial)
    except ModelError as error:
        raise SourceError(error.message, error.hint) from error
    return sha256


def _is_whole(file: ModelFile, progress: PullProgress) -> bool:
    """It is there, with the size and the hash it must have, as far as they are known."""
    if not file.present or file.entry.bytes not in (None, file.path.stat().st_size):
        return False
    expected = expected_sha256(file)
    if expected is None:
        return True
    return file_sha256(file.path, lambda done, total: progress("here", "check", done, total)) == expected


def _partial_root(file: ModelFile) -> Path:
    return ensure_dir(file.path.parent / ".partial")


@contextmanager
def _locked(file: ModelFile, notice: Told) -> Iterator[None]:
    """One pull of a model at a time; the second waits and then finds it there."""
    lock = FileLock(_partial_root(file) / f"{file.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notice(f"{file.name}: another pull of it is running; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
