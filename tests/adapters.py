"""Small LoRA adapters made in the test, for the tiny models of `llama_models`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Half = npt.NDArray[np.float32]
RANK, ALPHA, WIDTH = 4, 8.0, 32


def halves(
    weights: tuple[str, ...] = ("blk.0.attn_q", "blk.0.attn_v"), *, size: float = 0.5, seed: int = 0
) -> dict[str, Half]:
    """A and B of square weights of the tiny llama, large enough to be seen."""
    random = np.random.default_rng(seed)
    shapes = {"a": (RANK, WIDTH), "b": (WIDTH, RANK)}
    return {
        f"{weight}.weight.lora_{half}": random.normal(0, size, shape).astype(np.float32)
        for weight in weights
        for half, shape in shapes.items()
    }


def write_adapter(
    path: Path,
    tensors: Mapping[str, Half] | None = None,
    *,
    architecture: str = "llama",
    kind: str = "adapter",
    form: str = "lora",
    alpha: float | None = ALPHA,
    type_: Any = None,
    **strings: str,
) -> Path:
    """An adapter's file; `strings` are further fields, `__` for a dot."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("general.type", kind)
    writer.add_string("adapter.type", form)
    if alpha is not None:
        writer.add_float32("adapter.lora.alpha", alpha)
    for key, value in strings.items():
        writer.add_string(key.replace("__", "."), value)
    for name, tensor in (halves() if tensors is None else tensors).items():
        if type_ is None:
            writer.add_tensor(name, tensor)
        else:
            writer.add_tensor(name, gguf.quants.quantize(tensor, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
