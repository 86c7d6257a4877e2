"""What the models of an answer take of memory, told from their headers before anything is loaded."""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import NamedTuple

from ..config import Config
from ..knobs.machine import CacheType
from ..lm.sequences import BATCH_TOKENS
from ..models.gguf_header import GgufHeader
from .context_size import ContextSize

_LOGIT_BYTES = 4
#: Buffers of a batch: per token so many floats for each number of its embedding, and a mask over the cells.
_FLOATS_PER_EMBEDDING, _FLOAT_BYTES, _MASK_BYTES = 32, 4, 2
#: Python, vocabularies.
SLACK_BYTES = 200 << 20
HINT = "Lower --context, --beams or --max-tokens, take smaller files, or one as anchor and judge."


class Need(NamedTuple):
    """Bytes of one role; its weights are 0 where they are open, or an earlier role has the same file."""

    weights: int
    cache: int
    logits: int
    compute: int

    @property
    def total(self) -> int:
        return sum(self)


def plan_of(
    wanted: Mapping[str, tuple[GgufHeader, ContextSize]], config: Config, opened: Container[Path] = ()
) -> dict[str, Need]:
    """What each role takes, in order, where these files are open already."""
    needs: dict[str, Need] = {}
    files: set[Path] = set()
    for role, (header, size) in wanted.items():
        file, cells = header.path.resolve(), _cells(header, size, config)
        needs[role] = Need(
            weights=header.bytes if file not in files and file not in opened else 0,
            cache=cells * cell_bytes(header, config.cache_types(role)),
            logits=size.num_sequences * header.vocabulary_size * _LOGIT_BYTES,
            compute=_compute_bytes(header, cells, has_flash_attention=config.flash_attn != "off"),
        )
        files.add(file)
    return needs


def cell_bytes(header: GgufHeader, types: tuple[CacheType, CacheType]) -> int:
    """The keys and values of one token in all layers."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    total = 0
    for count, name in zip((header.keys_per_token, header.values_per_token), types, strict=True):
        values, stored = GGML_QUANT_SIZES[GGMLQuantizationType[name.upper()]]
        total += -(-count // values) * stored
    return total


def _compute_bytes(header: GgufHeader, cells: int, *, has_flash_attention: bool) -> int:
    """The buffers of a batch, from above; without flash attention also each head's row over all cells."""
    per_token = _FLOAT_BYTES * _FLOATS_PER_EMBEDDING * header.embedding_length + _MASK_BYTES * cells
    if not has_flash_attention:
        per_token += _FLOAT_BYTES * header.head_count * cells
    return BATCH_TOKENS * per_token


def _cells(header: GgufHeader, size: ContextSize, config: Config) -> int:
    """Every fork is a copy where the cache cannot be cut."""
    is_copied = config.kv == "state" or (config.kv == "auto" and header.is_recurrent)
    return size.copied_cells if is_copied else size.shared_cells


def fits(needed: int, free: int) -> bool:
    """Whether models that take `needed` bytes have size in `free`."""
    return needed + SLACK_BYTES <= free


def gib(size: int) -> str:
    """Bytes as a person reads them."""
    return f"{size / 2**30:.1f} GiB"
