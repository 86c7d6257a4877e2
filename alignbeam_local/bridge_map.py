"""The whole bridge: every anchor token's landing, kept on disk because it takes seconds to make."""

import os
import zlib
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from .bridge import Bridge
from .paths import cache_dir, ensure_dir

_FORMAT = 1


class BridgeMap(NamedTuple):
    """For each anchor token (V_s,): how many draft tokens it lands on, and the first, or -1."""

    counts: npt.NDArray[np.int32]
    first: npt.NDArray[np.int32]


def whole_map(bridge: Bridge) -> BridgeMap:
    """The map of all anchor tokens; read from disk if this pair was mapped before."""
    path = cache_dir() / "bridges" / f"{_key(bridge)}.npz"
    return _read(path, bridge.anchor.size) or _write(path, _compute(bridge))


def _compute(bridge: Bridge) -> BridgeMap:
    landings = [bridge.landing(token) for token in range(bridge.anchor.size)]
    return BridgeMap(
        counts=np.array([len(landing.tokens) for landing in landings], np.int32),
        first=np.array([landing.first for landing in landings], np.int32),
    )


def _key(bridge: Bridge) -> str:
    text = f"{_FORMAT}|{bridge.draft.fingerprint}|{bridge.anchor.fingerprint}|{bridge.turn_end}"
    return sha256(text.encode()).hexdigest()


def _read(path: Path, size: int) -> BridgeMap | None:
    """The stored map; None if there is none or it is damaged."""
    try:
        with np.load(path) as stored:
            found = BridgeMap(stored["counts"], stored["first"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None
    return found if len(found.counts) == len(found.first) == size else None


def _write(path: Path, made: BridgeMap) -> BridgeMap:
    ensure_dir(path.parent)
    temporary = path.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(temporary, counts=made.counts, first=made.first)
    os.replace(temporary, path)
    return made
