"""What the models of an answer take of memory, told from their headers before anything is loaded."""

from collections.abc import Sequence
from typing import NamedTuple

from .config import KvStrategy
from .gguf_header import GgufHeader
from .parts import Room

_LOGIT_BYTES = 4
#: Compute buffers, Python.
SLACK_BYTES = 300 << 20
HINT = "Lower --context, --beams or --max-tokens, take smaller files, or one as anchor and judge."


class Need(NamedTuple):
    """Bytes of one role; its weights are 0 where an earlier role has the same file."""

    weights: int
    cache: int
    logits: int

    @property
    def total(self) -> int:
        return sum(self)


def plan(wanted: Sequence[tuple[GgufHeader, Room]], kv: KvStrategy) -> list[Need]:
    """What each role takes, in order."""
    files = [header.path.resolve() for header, _ in wanted]
    return [
        Need(
            weights=header.bytes if file not in files[:i] else 0,
            cache=_cells(header, room, kv) * header.kv_bytes_per_token,
            logits=room.num_sequences * header.vocabulary_size * _LOGIT_BYTES,
        )
        for i, (file, (header, room)) in enumerate(zip(files, wanted, strict=True))
    ]


def _cells(header: GgufHeader, room: Room, kv: KvStrategy) -> int:
    """Every fork is a copy where the cache cannot be cut."""
    is_copied = kv == "state" or (kv == "auto" and header.is_recurrent)
    return room.copied_cells if is_copied else room.shared_cells


def fits(needed: int, free: int) -> bool:
    """Whether models that take `needed` bytes have room in `free`."""
    return needed + SLACK_BYTES <= free


def gib(size: int) -> str:
    """Bytes as a person reads them."""
    return f"{size / 2**30:.1f} GiB"
