"""Tensors of a safetensors file as numpy has them, read as a stranger's; and such a file's bytes."""

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ModelError

Tensors = dict[str, npt.NDArray[np.float32]]

_LENGTH = struct.Struct("<Q")
_MOST_HEADER = 100 << 20
_HINT = "The file is damaged or was cut short: copy it again."
_KINDS: Mapping[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F64": np.float64}


def read_tensors(path: Path) -> Tensors:
    """All tensors, in fp32.

    Raises:
        ModelError: missing, damaged, or of numbers that are no floats.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "Is it PEFT's folder?") from None
    try:
        (length,) = _LENGTH.unpack_from(raw)
        if length > min(_MOST_HEADER, len(raw) - _LENGTH.size):
            raise ValueError("its header is longer than the file")
        entries = json.loads(raw[_LENGTH.size : _LENGTH.size + length])
        entries.pop("__metadata__", None)
        data = memoryview(raw)[_LENGTH.size + length :]
        return {name: _tensor(name, entry, data) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise ModelError(f"{path} is no safetensors file: {error}", _HINT) from None


def _tensor(name: str, entry: Any, data: memoryview) -> npt.NDArray[np.float32]:
    if entry["dtype"] not in _KINDS:
        raise ValueError(f"{name} holds {entry['dtype']}")
    kind = np.dtype(_KINDS[entry["dtype"]])
    start, end = entry["data_offsets"]
    shape = tuple(map(int, entry["shape"]))
    if not 0 <= start <= end <= len(data) or end - start != kind.itemsize * prod(shape):
        raise ValueError(f"{name} does not lie within it")
    values = np.frombuffer(data[start:end], kind).reshape(shape)
    if entry["dtype"] == "BF16":  # the upper half of an fp32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def tensor_bytes(tensors: Tensors) -> bytes:
    """A safetensors file of these."""
    entries: dict[str, Any] = {}
    offset = 0
    for name, tensor in tensors.items():
        entries[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    values = (np.ascontiguousarray(tensor, np.float32).tobytes() for tensor in tensors.values())
    return b"".join([_LENGTH.pack(len(header)), header, *values])
