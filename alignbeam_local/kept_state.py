"""What models hold of a conversation, kept in a file: a checksum, a header of JSON, the bytes it lists."""

import json
from collections.abc import Iterator
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .errors import AlignBeamError
from .lm import SequenceState
from .paths import open_atomic
from .prompt_cache import SavedPrompt
from .snapshot import Snapshot

_FORMAT = "alignbeam state 1"
_DIGEST_BYTES = sha256().digest_size


class KeptState(NamedTuple):
    """The models' prompts (what the judge holds is no conversation's), and how many turns they leave out."""

    snapshot: Snapshot
    left_out: int


def write_state(path: Path, kept: KeptState) -> None:
    """Put it in the file's place, whole or not at all, readable by the user alone.

    Raises:
        AlignBeamError: it can't be written.
    """
    try:
        for left in path.parent.glob(f".{path.name}.*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        _write(path, kept)
    except OSError as error:
        raise AlignBeamError(
            f"the models' state can't be kept in {path}: {error.strerror}", "Nothing else is lost."
        ) from None


def read_state(path: Path) -> KeptState | None:
    """What was kept; None if there is nothing, or it is damaged or of another version."""
    try:
        with path.open("rb") as file:
            if file.read(_DIGEST_BYTES) != file_digest(file, "sha256").digest():
                return None
            file.seek(_DIGEST_BYTES)
            header = json.loads(file.readline())
            if header["format"] != _FORMAT:
                return None
            held = {role: _prompt(told, file) for role, told in header["prompts"].items()}
            return KeptState(Snapshot(held.get("draft"), held.get("anchor")), header["left_out"])
    except OSError:
        return None


def _write(path: Path, kept: KeptState) -> None:
    prompts = {"draft": kept.snapshot.draft, "anchor": kept.snapshot.anchor}
    held = {role: saved for role, saved in prompts.items() if saved is not None}
    described = {role: _described(saved) for role, saved in held.items()}
    header = json.dumps({"format": _FORMAT, "left_out": kept.left_out, "prompts": described})
    digest = sha256()
    with open_atomic(path) as file:
        file.write(bytes(_DIGEST_BYTES))
        for chunk in (f"{header}\n".encode(), *(c for saved in held.values() for c in _chunks(saved))):
            digest.update(chunk)
            file.write(chunk)
        file.seek(0)
        file.write(digest.digest())


def _described(saved: SavedPrompt) -> dict[str, Any]:
    return {
        "prompt": saved.prompt,
        "row_bytes": 0 if saved.row is None else saved.row.nbytes,
        "states": [{"key": s.key, "tokens": s.tokens, "bytes": len(s.blob)} for s in saved.states],
    }


def _chunks(saved: SavedPrompt) -> Iterator[bytes]:
    if saved.row is not None:
        yield saved.row.tobytes()
    for state in saved.states:
        yield state.blob


def _prompt(told: dict[str, Any], file: BinaryIO) -> SavedPrompt:
    row = np.frombuffer(file.read(told["row_bytes"]), np.float32)
    states = (
        SequenceState(state["key"], tuple(state["tokens"]), file.read(state["bytes"]), None)
        for state in told["states"]
    )
    return SavedPrompt(tuple(told["prompt"]), row if len(row) else None, tuple(states))
