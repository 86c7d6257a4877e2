"""What a row costs with weights of one type or another, on a processor.

llama.cpp lays weights of some types out anew for x86 (AVX2), so that a few rows go through them at once.
"""

from math import log
from typing import NamedTuple

from gguf.constants import GGMLQuantizationType

from ..bench.floor import weights_of
from ..models.gguf_reader import Tensor

_PACKED = frozenset(
    int(kind)
    for kind in (
        GGMLQuantizationType.Q4_0,
        GGMLQuantizationType.Q4_K,
        GGMLQuantizationType.IQ4_NL,
        GGMLQuantizationType.MXFP4,
    )
)
#: How much more weights of other types cost with few rows, and with many: by the decodes of a Q4_K and a Q5_0
#: model in docs/performance.md ("What it found").
_OTHERS_FEW, _OTHERS_MANY = 2.2, 1.5
#: How much more an operation of attention costs: 420 tokens took 4.6 s behind two prefixes of some 1000 cells
#: each, 3.9 behind one (docs/performance.md, "Changes").
ATTENTION = 2.5
#: Up to so many rows the kernels of a few rows are at work, from so many on those of many.
_FEW, _MANY = 4, 32


class RowCost(NamedTuple):
    """Weights that a row is multiplied with, and those for its logits; counted as ones of packed types."""

    body: float
    head: float


def row_cost(tensors: list[Tensor], rows: float, share_of_experts: float = 1.0) -> RowCost:
    """On a processor; `share_of_experts` as for `weights_of`."""
    others = between(rows, _OTHERS_FEW, _OTHERS_MANY)
    dearer = [
        tensor if tensor.type in _PACKED else tensor._replace(elements=round(others * tensor.elements))
        for tensor in tensors
    ]
    weights = weights_of(dearer, share_of_experts)
    return RowCost(weights.body, weights.head)


def between(rows: float, few: float, many: float) -> float:
    """What goes from a value of few rows to one of many, with the logarithm of their number."""
    part = min(1.0, max(0.0, log(rows / _FEW) / log(_MANY / _FEW))) if rows > 0 else 0.0
    return few + part * (many - few)
