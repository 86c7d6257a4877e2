"""An adapter's logits in llama.cpp, by its C calls."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from tests.llama_models import Opened


def rows_of(
    opened: Opened, base: Path, ids: Sequence[int], adapter: Path | None = None
) -> npt.NDArray[np.float32]:
    """(len(ids), vocabulary): the logits behind each of the ids, with an adapter or without."""
    exact: dict[str, Any] = {"cache_types": ("f32", "f32"), "flash_attn": "off"}
    lm = opened.lm(base, num_sequences=1, num_cells=256, threads=1, **exact)
    if adapter is not None:
        loaded = llama_cpp.llama_adapter_lora_init(lm.weights.handle, str(adapter).encode())
        assert loaded, "llama.cpp does not take the adapter"
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(loaded)
        scales = (ctypes.c_float * 1)(1.0)
        assert llama_cpp.llama_set_adapters_lora(lm.handle, adapters, 1, scales) == 0
    rows = []
    for end in range(1, len(ids) + 1):
        lm.set_tokens({0: ids[:end]})
        rows.append(lm.logits(0).copy())
    lm.close()
    return np.array(rows)
