"""What a GGUF file says about itself, read without loading it.

gguf.GGUFReader takes 10 seconds for a vocabulary of 150k on two slow cores; this takes a tenth of one.
"""

import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ENCODERS = frozenset(
    [
        *("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3"),
        *("neo-bert", "modern-bert", "eurobert", "t5encoder", "gemma-embedding"),
    ]
)

_FIXED = struct.Struct("<4sIQQ")
_LENGTH = struct.Struct("<Q")
_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_PULL_AGAIN = "The download was cut short or the file is damaged: pull or copy it again."
_OTHER_FILE = "Give a .gguf model file, or a name from `alignbeam models list`."


class SpecialToken(NamedTuple):
    """A token with a role, by id, with the text it stands for."""

    id: int
    piece: str


@dataclass(frozen=True)
class GgufHeader:
    """The metadata of one GGUF file. Zero and empty mean that the file does not say."""

    path: Path
    bytes: int
    type: str
    architecture: str
    name: str
    parameters: int
    quantisation: str
    context_length: int
    embedding_length: int
    block_count: int
    vocabulary_size: int
    tokenizer: str
    tokenizer_pre: str
    chat_template: str | None
    bos: SpecialToken | None
    eos: SpecialToken | None
    eot: SpecialToken | None
    add_bos: bool | None
    is_embedding: bool
    split_count: int
    kv_bytes_per_token: int


def check_file(path: Path) -> None:
    """A look at the first bytes, cheap enough for every start.

    Raises:
        ModelError: missing, unreadable, not GGUF, or cut off before its metadata.
    """
    with _open(path) as file:
        _counts(path, file.read(_FIXED.size))


def read_header(path: Path) -> GgufHeader:
    """All the metadata, with a check that every tensor lies within the file.

    Raises:
        ModelError: missing, unreadable, not GGUF, or truncated.
    """
    with _open(path) as file:
        num_tensors, num_fields = _counts(path, file.read(_FIXED.size))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            cursor = _Cursor(data, _FIXED.size)
            try:
                fields = {cursor.string(): cursor.value() for _ in range(num_fields)}
                tensors = [cursor.tensor() for _ in range(num_tensors)]
                _check_bounds(
                    path, tensors, cursor.offset, int(fields.get("general.alignment", 32)), len(data)
                )
                return _header(path, len(data), fields, tensors)
            except (struct.error, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
                raise ModelError(f"{path} ends or breaks off within its metadata", _PULL_AGAIN) from error


class _Strings:
    """An array of strings, left in the file: only the places are kept."""

    def __init__(self, data: mmap.mmap, offsets: list[int]) -> None:
        self._data = data
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> str:
        offset = self._offsets[index]
        (length,) = _LENGTH.unpack_from(self._data, offset)
        return self._data[offset + 8 : offset + 8 + length].decode("utf-8", "replace")


class _Tensor(NamedTuple):
    elements: int
    type: int
    offset: int


class _Cursor:
    """Reads one value after the other."""

    def __init__(self, data: mmap.mmap, offset: int) -> None:
        self.data = data
        self.offset = offset

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.offset)
        self.offset += struct.calcsize("<" + code)
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        self._need(length)
        self.offset += length
        return self.data[self.offset - length : self.offset].decode("utf-8", "replace")

    def value(self) -> Any:
        kind = self.scalar("I")
        if kind == _STRING:
            return self.string()
        return self._array() if kind == _ARRAY else self.scalar(_SCALARS[kind])

    def tensor(self) -> _Tensor:
        self.string()
        elements = 1
        for _ in range(self.scalar("I")):
            elements *= self.scalar("Q")
        return _Tensor(elements, self.scalar("I"), self.scalar("Q"))

    def _array(self) -> Any:
        kind, count = self.scalar("I"), self.scalar("Q")
        if kind == _STRING:
            return self._strings(count)
        if kind == _ARRAY:
            return [self._array() for _ in range(count)]
        size = struct.calcsize("<" + _SCALARS[kind]) * count
        self._need(size)
        self.offset += size
        return range(count)

    def _strings(self, count: int) -> _Strings:
        self._need(count * 8)
        offset, data, length_at = self.offset, self.data, _LENGTH.unpack_from
        offsets = []
        for _ in range(count):
            offsets.append(offset)
            offset += 8 + length_at(data, offset)[0]
        self.offset = offset
        self._need(0)
        return _Strings(data, offsets)

    def _need(self, size: int) -> None:
        if self.offset + size > len(self.data):
            raise IndexError(self.offset)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise ModelError(f"no such file: {path}", _OTHER_FILE) from None
    except IsADirectoryError:
        raise ModelError(f"{path} is a directory, not a model file", _OTHER_FILE) from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "Check its permissions.") from None


def _counts(path: Path, start: bytes) -> tuple[int, int]:
    if start[:4] != MAGIC:
        raise ModelError(f"{path} is not a GGUF file", _OTHER_FILE)
    if len(start) < _FIXED.size:
        raise ModelError(f"{path} is cut off after {len(start)} bytes", _PULL_AGAIN)
    _, version, num_tensors, num_fields = _FIXED.unpack(start)
    if version not in VERSIONS:
        raise ModelError(
            f"{path} is GGUF version {version}",
            f"Versions {VERSIONS} in little-endian order are read: convert it.",
        )
    return num_tensors, num_fields


def _check_bounds(path: Path, tensors: list[_Tensor], offset: int, alignment: int, size: int) -> None:
    start = -(-offset // alignment) * alignment
    end = max((start + tensor.offset + _stored_size(tensor) for tensor in tensors), default=0)
    if end > size:
        raise ModelError(f"{path} is truncated: {size} bytes of {end}", _PULL_AGAIN)


def _stored_size(tensor: _Tensor) -> int:
    from gguf.constants import GGML_QUANT_SIZES

    block, block_bytes = {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}.get(
        tensor.type, (1, 0)
    )
    return tensor.elements // int(block) * int(block_bytes)


def _header(path: Path, size: int, fields: dict[str, Any], tensors: list[_Tensor]) -> GgufHeader:
    architecture = str(fields.get("general.architecture", ""))
    own = {key.removeprefix(f"{architecture}."): value for key, value in fields.items()}
    tokenizer = {key.removeprefix("tokenizer.ggml."): value for key, value in fields.items()}
    return GgufHeader(
        path=path,
        bytes=size,
        type=str(fields.get("general.type", "model")),
        architecture=architecture,
        name=str(fields.get("general.name", "")),
        parameters=sum(tensor.elements for tensor in tensors),
        quantisation=_quantisation(fields.get("general.file_type"), tensors),
        context_length=int(own.get("context_length", 0)),
        embedding_length=int(own.get("embedding_length", 0)),
        block_count=int(own.get("block_count", 0)),
        vocabulary_size=len(tokenizer.get("tokens", ())),
        tokenizer=str(tokenizer.get("model", "")),
        tokenizer_pre=str(tokenizer.get("pre", "")),
        chat_template=fields.get("tokenizer.chat_template"),
        bos=_special(tokenizer, "bos"),
        eos=_special(tokenizer, "eos"),
        eot=_special(tokenizer, "eot"),
        add_bos=tokenizer.get("add_bos_token"),
        is_embedding=architecture in ENCODERS or int(own.get("pooling_type", 0)) > 0,
        split_count=int(fields.get("split.count", 1)),
        kv_bytes_per_token=_kv_bytes_per_token(own),
    )


def _kv_bytes_per_token(own: dict[str, Any]) -> int:
    """Keys and values of one token in all layers, in 16-bit floats; 0 where the header does not tell."""
    heads, layers = own.get("attention.head_count"), int(own.get("block_count", 0))
    if not isinstance(heads, int) or heads == 0:
        return 0
    own_heads = own.get("attention.head_count_kv", heads)
    kv_heads = max(own_heads) if isinstance(own_heads, list | tuple) else int(own_heads)
    width = int(own.get("embedding_length", 0)) // heads
    widths = int(own.get("attention.key_length", width)) + int(own.get("attention.value_length", width))
    return 2 * layers * kv_heads * widths


def _special(tokenizer: dict[str, Any], role: str) -> SpecialToken | None:
    index = tokenizer.get(f"{role}_token_id")
    tokens = tokenizer.get("tokens", ())
    return None if index is None or index >= len(tokens) else SpecialToken(index, tokens[index])


def _quantisation(file_type: int | None, tensors: list[_Tensor]) -> str:
    from gguf.constants import GGMLQuantizationType, LlamaFileType

    names = {int(kind): kind.name for kind in LlamaFileType}
    if file_type in names:
        return names[file_type].removeprefix("MOSTLY_").removeprefix("ALL_")
    most_common = Counter(tensor.type for tensor in tensors).most_common(1)
    types = {int(kind): kind.name for kind in GGMLQuantizationType}
    return types.get(most_common[0][0], "unknown") if most_common else "unknown"
