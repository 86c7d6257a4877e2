"""SHA-256 of model files: computed once a file, and remembered for models whose hash nobody published."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..paths import cache_dir, data_dir, locked, write_atomic
from .gguf_header import parts_of

#: Told the bytes done and the bytes in all.
HashProgress = Callable[[int, int], None]

_CHUNK = 1 << 20


def file_sha256(path: Path, progress: HashProgress | None = None) -> str:
    """The file's hash, from the cache while path, size and time of change are the same.

    Raises:
        ModelError: the file is missing or cannot be read.
    """
    try:
        cached = _cached(path, _stamp(path))
    except OSError:
        cached = None
    return cached or fresh_sha256(path, progress)


def fresh_sha256(path: Path, progress: HashProgress | None = None) -> str:
    """The file's hash, computed from its bytes whatever the cache says, then cached.

    Raises:
        ModelError: the file is missing or cannot be read.
    """
    try:
        stamp = _stamp(path)
        sha256 = _compute(path, stamp[0], progress)
    except OSError as error:
        raise ModelError(
            f"cannot read {path}: {error.strerror}", "Check the path and its permissions."
        ) from None
    _remember(path, stamp, sha256)
    return sha256


def model_sha256(path: Path) -> str:
    """What a model is known by: its file's hash; of a split one, a hash over those of all its parts.

    Raises:
        ModelError: a file is missing or cannot be read.
    """
    first, *others = map(file_sha256, parts_of(path))
    return hashlib.sha256("\n".join([first, *others]).encode()).hexdigest() if others else first


def moved(old: Path, new: Path) -> None:
    """Rename `old` to `new` and keep what is known of its hash."""
    known = _cached(old, _stamp(old))
    old.replace(new)
    if known:
        _remember(new, _stamp(new), known)


def known_hash(source: str) -> str | None:
    """The hash that `source` had when it was first pulled, if it was."""
    value = _known().get(source)
    return None if value is None else str(value)


def remember_hash(source: str, sha256: str) -> None:
    """From now on `source` must have this hash."""
    with locked(known_hashes_file()):
        _write(known_hashes_file(), _known() | {source: sha256})


def known_hashes_file() -> Path:
    return data_dir() / "known_hashes.json"


def _known() -> dict[str, Any]:
    """Unlike the cache, a damaged record of trust is an error: forgetting it would trust anything."""
    file = known_hashes_file()
    known = _read(file)
    if known is None and file.exists():
        raise ModelError(
            f"{file} is damaged", "It holds the hashes of earlier pulls: restore it, or delete it."
        )
    return known or {}


def _cache_file() -> Path:
    return cache_dir() / "sha256.json"


def _cached(path: Path, stamp: list[int]) -> str | None:
    match (_read(_cache_file()) or {}).get(str(path.resolve())):
        case [int(size), int(changed), str(sha256)] if [size, changed] == stamp:
            return sha256
    return None


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _compute(path: Path, size: int, progress: HashProgress | None) -> str:
    digest, buffer, done = hashlib.sha256(), memoryview(bytearray(_CHUNK)), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            done += count
            if progress:
                progress(done, size)
    return digest.hexdigest()


def _remember(path: Path, stamp: list[int], sha256: str) -> None:
    known = _read(_cache_file()) or {}
    cache = {key: value for key, value in known.items() if os.path.isfile(key)}
    with suppress(OSError):  # a cache that cannot be written costs time only
        _write(_cache_file(), cache | {str(path.resolve()): [*stamp, sha256]})


def _read(path: Path) -> dict[str, Any] | None:
    """None where it is not there or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _write(path: Path, value: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True) + "\n")
