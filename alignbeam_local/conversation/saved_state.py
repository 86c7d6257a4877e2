"""What models hold of a conversation, kept in a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..engine.snapshot import Snapshot
from ..errors import AlignBeamError
from ..lm.checksummed_file import Checksummed, read_checksummed, write_checksummed
from ..lm.language_model import SequenceState
from ..lm.prompt_cache import SavedPrompt
from ..roles import MOST_ANCHORS

_FORMAT = "alignbeam state 2"
#: The models whose prompts are kept, in the order of a snapshot: draft, anchors, then the anchors' twins.
_ROLES = ("draft", "anchor", *(f"anchor{number}" for number in range(2, 2 * MOST_ANCHORS + 1)))
#: A draft and one anchor.
_USUAL = 2


class SavedState(NamedTuple):
    """The models' prompts (what the judge holds is no conversation's), and how many turns they leave out."""

    snapshot: Snapshot
    left_out: int


def write_state(path: Path, kept: SavedState) -> None:
    """Put it in the file's place, whole or not at all, readable by the user alone.

    Raises:
        AlignBeamError: it can't be written.
    """
    try:
        for left in path.parent.glob(f".{path.name}.*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        write_checksummed(path, _FORMAT, _sealed(kept))
    except OSError as error:
        raise AlignBeamError(
            f"the models' state can't be kept in {path}: {error.strerror}", "Nothing else is lost."
        ) from None


def read_state(path: Path) -> SavedState | None:
    """What was kept; None if there is nothing, or it is damaged or of another version."""
    sealed = read_checksummed(path, _FORMAT)
    if sealed is None:
        return None
    blobs = iter(sealed.blobs)
    held = {role: _prompt(told, blobs) for role, told in sealed.header["prompts"].items()}
    prompts = list(map(held.get, _ROLES))
    while len(prompts) > _USUAL and prompts[-1] is None:
        prompts.pop()
    return SavedState(Snapshot(tuple(prompts)), sealed.header["left_out"])


def _sealed(kept: SavedState) -> Checksummed:
    prompts = zip(_ROLES, kept.snapshot.prompts, strict=False)
    held = {role: saved for role, saved in prompts if saved is not None}
    described = {role: _described(saved) for role, saved in held.items()}
    header = {"left_out": kept.left_out, "prompts": described}
    return Checksummed(header, [blob for saved in held.values() for blob in _blobs(saved)])


def _described(saved: SavedPrompt) -> dict[str, Any]:
    states = [{"key": state.key, "tokens": state.tokens} for state in saved.states]
    return {"prompt": saved.prompt, "states": states}


def _blobs(saved: SavedPrompt) -> Iterator[bytes]:
    """The row, empty where there is none, and the states."""
    yield b"" if saved.row is None else saved.row.tobytes()
    for state in saved.states:
        yield state.blob


def _prompt(told: dict[str, Any], blobs: Iterator[bytes]) -> SavedPrompt:
    row = np.frombuffer(next(blobs), np.float32)
    states = [SequenceState(s["key"], tuple(s["tokens"]), next(blobs), None) for s in told["states"]]
    return SavedPrompt(tuple(told["prompt"]), row if len(row) else None, tuple(states))
