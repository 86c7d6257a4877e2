"""The contents of a GGUF file before its weights, read as a stranger's: no count, length or kind is trusted.

gguf.GGUFReader takes 10 seconds for a vocabulary of 150k on two slow cores, and believes what it reads;
this takes a tenth of one, and never holds more than `MAX_METADATA` and its places.
"""

import os
import stat
import struct
from array import array
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from ..errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
#: Far above what models have: 20 MB for a vocabulary of 262k, some 100 fields, some 10,000 tensors.
MAX_METADATA, MAX_FIELDS, MAX_TENSORS, MAX_DIMENSIONS = 128 << 20, 1 << 16, 1 << 18, 4

OTHER_FILE = "Give a .gguf model file, or a name from `alignbeam models list`."
PULL_AGAIN = "The download was cut short or the file is damaged: pull or copy it again."

_FIXED = struct.Struct("<4sIQQ")
_LENGTH = struct.Struct("<Q")
_SCALARS = {
    kind: struct.Struct("<" + code)
    for kind, code in (dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}).items()
}
_STRING, _ARRAY = 8, 9
_UINT32, _UINT64 = _SCALARS[4], _SCALARS[10]
_CHUNK = 1 << 22
#: How a file is opened; not every system has each of these.
_READING = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _READING |= getattr(os, _flag, 0)
#: Arrays of numbers up to this length have a value for each layer, or such; longer ones are a vocabulary's.
_MAX_LISTED = 1 << 12


class Tensor(NamedTuple):
    """A tensor's place: its number of values, their type, and where its data begin behind the metadata.

    `shape` is in the file's order: what lies side by side comes first.
    """

    name: str
    elements: int
    type: int
    offset: int
    shape: tuple[int, ...] = ()


class Contents(NamedTuple):
    """The fields by name (a long array of numbers is its length as a range), and the tensors.

    `data` is where, in the file, the tensors' data begin.
    """

    bytes: int
    fields: dict[str, Any]
    tensors: list[Tensor]
    data: int = 0


class Strings:
    """An array of strings, left where it was read: only the places are kept."""

    def __init__(self, data: bytearray, offsets: "array[int]") -> None:
        self._data = data
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> str:
        offset = self._offsets[index]
        (length,) = _LENGTH.unpack_from(self._data, offset)
        return self._data[offset + 8 : offset + 8 + length].decode("utf-8", "replace")


def read_contents(path: Path) -> Contents:
    """Read the fields and the places of the tensors, and check that all of them lie within the file.

    Raises:
        ModelError: missing, unreadable, no regular file, not GGUF, truncated, or against the format.
    """
    with open_file(path) as file:
        return contents_of(file, os.fstat(file.fileno()).st_size, str(path))


class Reading(Protocol):
    """Where a file's beginning comes from, byte after byte."""

    def read(self, size: int, /) -> bytes:
        """At most so many of the next bytes; none at the end."""


def contents_of(file: Reading, size: int, name: str) -> Contents:
    """As `read_contents`, of a file of so many bytes, wherever it is; its beginning is all that is read.

    Raises:
        ModelError: not GGUF, truncated, or against the format.
    """
    try:
        num_tensors, num_fields = _counts(file.read(_FIXED.size))
        cursor = _Cursor(file, size - _FIXED.size)
        fields = _fields(cursor, num_fields)
        tensors = [cursor.tensor() for _ in range(num_tensors)]
        alignment = fields.get("general.alignment", 32)
        start = _check_bounds(tensors, _FIXED.size + cursor.offset, alignment, size)
        return Contents(size, fields, tensors, start)
    except _Broken as error:
        raise ModelError(f"{name} {error}", error.hint) from None


def open_file(path: Path) -> BinaryIO:
    """A file of weights, opened: a pipe or a device could be read for ever.

    Raises:
        ModelError: missing, unreadable, no regular file.
    """
    try:
        descriptor = os.open(path, _READING)
    except FileNotFoundError:
        raise ModelError(f"no such file: {path}", OTHER_FILE) from None
    except PermissionError:
        raise ModelError(f"cannot read {path}: permission denied", "Check its permissions.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"cannot read {path}: {reason}", OTHER_FILE) from None
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        what = "a directory" if stat.S_ISDIR(kind) else "a pipe, a socket or a device"
        raise ModelError(f"{path} is {what}, not a model file", OTHER_FILE)
    return os.fdopen(descriptor, "rb")


class _Broken(Exception):
    """How the file breaks the format, as what its path is the subject of."""

    def __init__(self, message: str, hint: str = PULL_AGAIN) -> None:
        super().__init__(message)
        self.hint = hint


class _Cursor:
    """Reads one value after the other."""

    def __init__(self, file: Reading, size: int) -> None:
        self._file = file
        self._size = size
        self._data = bytearray()
        self.offset = 0

    def string(self) -> str:
        length = self._scalar(_UINT64)
        self._need(length)
        self.offset += length
        return self._data[self.offset - length : self.offset].decode("utf-8", "replace")

    def value(self) -> Any:
        kind = self._scalar(_UINT32)
        if kind == _STRING:
            return self.string()
        return self._array() if kind == _ARRAY else self._scalar(_scalar_of(kind))

    def tensor(self) -> Tensor:
        name, dimensions = self.string(), self._scalar(_UINT32)
        if dimensions > MAX_DIMENSIONS:
            raise _Broken(f"says that its tensor {name[:64]!r} has {dimensions} dimensions")
        shape = tuple(self._scalar(_UINT64) for _ in range(dimensions))
        return Tensor(name, prod(shape), self._scalar(_UINT32), self._scalar(_UINT64), shape)

    def _scalar(self, code: struct.Struct) -> Any:
        self._need(code.size)
        (value,) = code.unpack_from(self._data, self.offset)
        self.offset += code.size
        return value

    def _array(self) -> Strings | list[Any] | range:
        kind, count = self._scalar(_UINT32), self._scalar(_UINT64)
        if kind == _STRING:
            return self._strings(count)
        code = _scalar_of(kind)
        if count <= _MAX_LISTED:
            return [self._scalar(code) for _ in range(count)]
        self._need(code.size * count)
        self.offset += code.size * count
        return range(count)

    def _strings(self, count: int) -> Strings:
        self._need(count * _LENGTH.size)
        offsets, data, length_at = array("Q"), self._data, _LENGTH.unpack_from
        for _ in range(count):
            if self.offset + _LENGTH.size > len(data):
                self._need(_LENGTH.size)
            offsets.append(self.offset)
            self.offset += _LENGTH.size + length_at(data, self.offset)[0]
        self._need(0)
        return Strings(data, offsets)

    def _need(self, size: int) -> None:
        """Have the next `size` bytes at hand."""
        end = self.offset + size
        if end > self._size:
            raise _Broken("ends or breaks off within its metadata")
        if end > MAX_METADATA:
            raise _Broken(f"has more than {MAX_METADATA >> 20} MiB of metadata", OTHER_FILE)
        while len(self._data) < end:
            more = self._file.read(max(end - len(self._data), _CHUNK))
            if not more:
                raise _Broken("became shorter while it was read")
            self._data += more


def _counts(start: bytes) -> tuple[int, int]:
    if not start:
        raise _Broken("is empty")
    if start[:4] != MAGIC:
        raise _Broken("is not a GGUF file", OTHER_FILE)
    if len(start) < _FIXED.size:
        raise _Broken(f"is cut off after {len(start)} bytes")
    _, version, num_tensors, num_fields = _FIXED.unpack(start)
    if version not in VERSIONS:
        raise _Broken(
            f"is GGUF version {version}", f"Versions {VERSIONS} in little-endian order are read: convert it."
        )
    if num_fields > MAX_FIELDS or num_tensors > MAX_TENSORS:
        raise _Broken(f"claims to have {num_fields} fields and {num_tensors} tensors")
    return num_tensors, num_fields


def _fields(cursor: _Cursor, count: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for _ in range(count):
        name = cursor.string()
        if name in fields:
            raise _Broken(f"has its field {name[:64]!r} twice")
        fields[name] = cursor.value()
    return fields


def _scalar_of(kind: int) -> struct.Struct:
    if kind not in _SCALARS:
        raise _Broken(f"has a field of an unknown kind ({kind})")
    return _SCALARS[kind]


def stored_bytes(tensors: list[Tensor]) -> list[int]:
    """What each of them takes in its file."""
    sizes = _type_sizes()
    return [-(-tensor.elements // sizes[tensor.type][0]) * sizes[tensor.type][1] for tensor in tensors]


def _check_bounds(tensors: list[Tensor], offset: int, alignment: Any, size: int) -> int:
    """Where the data begin, which end within the file."""
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise _Broken(f"has an alignment that is not a power of two: {str(alignment)[:64]!r}")
    sizes = _type_sizes()
    for tensor in tensors:
        if tensor.type not in sizes:
            raise _Broken(
                f"has a tensor of an unknown type ({tensor.type})",
                "A newer version may know it; else see above.",
            )
        if tensor.offset % alignment:
            raise _Broken(f"has a tensor that is not aligned, at {tensor.offset}")
    start = -(-offset // alignment) * alignment
    ends = (start + tensor.offset + b for tensor, b in zip(tensors, stored_bytes(tensors), strict=True))
    if (end := max(ends, default=0)) > size:
        raise _Broken(f"is truncated: {size} bytes of {end}")
    return start


def _type_sizes() -> dict[int, tuple[int, int]]:
    """For every tensor type the values of a block, and its bytes."""
    from gguf.constants import GGML_QUANT_SIZES

    return {int(kind): (int(values), int(stored)) for kind, (values, stored) in GGML_QUANT_SIZES.items()}
