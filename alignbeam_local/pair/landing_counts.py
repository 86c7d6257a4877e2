"""The whole bridge: how many draft tokens every anchor token lands on, kept on disk: it takes seconds."""

import zlib
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from ..paths import cache_dir, open_atomic
from ..search.bridge import Bridge

Counts = npt.NDArray[np.int32]  # (V_s,)
_FORMAT = 2


def landing_counts(bridge: Bridge) -> Counts:
    """How many draft tokens each anchor token lands on; read from disk if this pair was mapped before."""
    path = cache_dir() / "bridges" / f"{_key(bridge)}.npz"
    found = _read(path, bridge.anchor.size)
    if found is not None:
        return found
    counts = _compute(bridge)
    with suppress(OSError):  # a map that cannot be kept costs time only
        _write(path, counts)
    return counts


def _compute(bridge: Bridge) -> Counts:
    return np.array([len(bridge.landing(token).tokens) for token in range(bridge.anchor.size)], np.int32)


def _key(bridge: Bridge) -> str:
    pair = f"{bridge.draft.fingerprint}|{bridge.anchor.fingerprint}|{bridge.turn_end}"
    text = f"{_FORMAT}|{pair}" + ("|one file" if bridge.draft is bridge.anchor else "")
    return sha256(text.encode()).hexdigest()


def _read(path: Path, size: int) -> Counts | None:
    """The stored map; None if there is none or it is damaged."""
    try:
        with np.load(path) as stored:
            found: Counts = stored["counts"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None
    return found if found.shape == (size,) else None


def _write(path: Path, counts: Counts) -> None:
    with open_atomic(path) as file:
        np.savez_compressed(file, counts=counts)
