"""What prompts begin with, as a model holds it, on disk between processes: restored instead of read again."""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from .. import __version__
from ..errors import ContextFull, ModelError
from ..paths import cache_dir, locked
from .checksummed_file import Checksummed, read_checksummed, write_checksummed
from .language_model import LanguageModel, SequenceState

log = logging.getLogger(__name__)

Prefixes = Mapping[int, Sequence[int]]  # by sequence: the ids that it should hold

MAX_FILES, MAX_BYTES = 8, 1 << 30
_FORMAT = "alignbeam prefixes 1"
_LOCK_SECONDS = 1


class PrefixStore:
    """One file for each set of prefixes that were read together; those used last stay.

    A file is named and checked by all that its numbers depend on. One that does not fit in any way is no
    error: the prefixes are read anew and it is overwritten.
    """

    def __init__(self, machine: str) -> None:
        """`machine`: all that moves a model's numbers and is not in the key of its states."""
        self._machine = f"{__version__}|{machine}"

    def restore(self, lm: LanguageModel, prefixes: Prefixes) -> bool:
        """Let the sequences hold these prefixes, if just they were kept here; where not, nothing is held."""
        if not lm.saves:
            return False
        path = self._path(lm, prefixes)
        sealed = read_checksummed(path, _FORMAT)
        if sealed is None or sealed.header != self._header(lm, prefixes):
            return False
        try:
            for (sequence, ids), blob in zip(prefixes.items(), sealed.blobs, strict=True):
                lm.restore(sequence, SequenceState(lm.state_key, tuple(ids), blob, None))
        except (ModelError, ContextFull) as error:
            log.info("not taken up: %s", error)
            for sequence in prefixes:
                lm.truncate(sequence, 0)
            return False
        with suppress(OSError):
            os.utime(path)
        return True

    def keep(self, lm: LanguageModel, prefixes: Prefixes) -> None:
        """Keep what the sequences hold, which is these prefixes; not being able to costs time only."""
        if not lm.saves:
            return
        path, header = self._path(lm, prefixes), self._header(lm, prefixes)
        try:
            blobs = [lm.save(sequence).blob for sequence in prefixes]
            size = sum(map(len, blobs))
            if size > MAX_BYTES:
                return
            with locked(folder(), _LOCK_SECONDS):
                _make_room(path, size)
                write_checksummed(path, _FORMAT, Checksummed(header, blobs))
        except (OSError, ModelError) as error:
            log.info("not kept: %s", error)

    def _path(self, lm: LanguageModel, prefixes: Prefixes) -> Path:
        return folder() / sha256(repr(self._header(lm, prefixes)).encode()).hexdigest()

    def _header(self, lm: LanguageModel, prefixes: Prefixes) -> dict[str, object]:
        return {
            "machine": self._machine,
            "key": lm.state_key,
            "prefixes": [[sequence, list(ids)] for sequence, ids in prefixes.items()],
        }


def folder() -> Path:
    """Where the files lie; it can be deleted at any time."""
    return cache_dir() / "prefixes"


def kept_files() -> list[Path]:
    """Every file, the one used last first. Raises: OSError: they can't be looked at."""
    if not folder().is_dir():
        return []
    return sorted(folder().iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _make_room(new: Path, size: int) -> None:
    """Delete what was used longest ago, and what processes that were killed left; the lock is held.

    `new` is about to be written, over the file of its name.

    Raises:
        OSError: it can't be deleted.
    """
    num_files, num_bytes = 1, size
    for path in (path for path in kept_files() if path != new):
        num_files, num_bytes = num_files + 1, num_bytes + path.stat().st_size
        if path.name.startswith(".") or num_files > MAX_FILES or num_bytes > MAX_BYTES:
            path.unlink()
