"""A file of blobs behind a checksum, for its user alone: read as it was written, or not at all."""

import json
import os
from hashlib import file_digest, sha256
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..paths import open_atomic

_DIGEST_BYTES = sha256().digest_size
_WRITABLE_BY_OTHERS = 0o022


class Checksummed(NamedTuple):
    """What the file says of its blobs, as JSON, and the blobs."""

    header: dict[str, Any]
    blobs: list[bytes]


def write_checksummed(path: Path, form: str, sealed: Checksummed) -> None:
    """Put it in the file's place, whole or not at all; `form` names the format, and the checksum covers it.

    Raises:
        OSError: it can't be written.
    """
    told = {"sizes": [len(blob) for blob in sealed.blobs], **sealed.header}
    digest = sha256(form.encode())
    with open_atomic(path) as file:
        file.write(bytes(_DIGEST_BYTES))
        for chunk in chain([f"{json.dumps(told)}\n".encode()], sealed.blobs):
            digest.update(chunk)
            file.write(chunk)
        file.seek(0)
        file.write(digest.digest())


def read_checksummed(path: Path, form: str) -> Checksummed | None:
    """What was written; None if there is nothing, or it is damaged, of another format or open to others."""
    try:
        with path.open("rb") as file:
            sealed = file.read(_DIGEST_BYTES)
            if not _is_own(file) or sealed != file_digest(file, lambda: sha256(form.encode())).digest():
                return None
            file.seek(_DIGEST_BYTES)
            header = json.loads(file.readline())
            return Checksummed(header, [file.read(size) for size in header.pop("sizes")])
    except OSError:
        return None


def _is_own(file: BinaryIO) -> bool:
    """Whoever could write it could seal it: llama.cpp checks little of what it restores."""
    if not hasattr(os, "geteuid"):  # Windows: the user's own folders are closed to others
        return True
    stat = os.fstat(file.fileno())
    return stat.st_uid == os.geteuid() and not stat.st_mode & _WRITABLE_BY_OTHERS
