"""Which records of heads a model's answers may depend on."""

from pathlib import Path

from ..judge.calibration import hash_of_records
from ..models.hashes import model_sha256
from ..roles import is_anchor, is_reader
from .answer_head import ANSWER_HEADS
from .head import REQUEST_HEADS


def is_opened(role: str, file: Path) -> bool:
    """Whether a role gets a context of its own: a reader does where a head may read by it."""
    return not is_reader(role) or heads_hash("anchor", model_sha256(file)) is not None


def heads_hash(role: str, weights_sha256: str) -> str | None:
    """A hash of all records that may be this model's in this role: what is found depends on nothing else.

    With adapters on it a model has records of its own (`adapted_sha256`). None if there are none.
    """
    if is_anchor(role):
        return hash_of_records(REQUEST_HEADS.folders, weights_sha256)
    return hash_of_records(ANSWER_HEADS.folders, weights_sha256) if role == "draft" else None
