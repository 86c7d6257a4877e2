"""What a GGUF file says about itself, read without loading it, and whether that is what a model needs."""

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..errors import ModelError
from .gguf_reader import OTHER_FILE, PULL_AGAIN, Contents, Strings, Tensor, read_contents, stored_bytes

#: What the names of architectures hold that turn text into vectors.
_ENCODERS = ("bert", "t5encoder", "embedding")
_NO_MODELS = {"adapter": "a LoRA adapter", "mmproj": "an image or audio projector", "imatrix": "statistics"}
_AS_ADAPTER = "Name the model that it was trained on as --draft, and it as --lora."
T = TypeVar("T")
D = TypeVar("D")
#: What the fields of layers that are no attention are called by.
_RECURRENT = ("ssm", "wkv", "shortconv", "kda")
_BLOCK = re.compile(r"blk\.(\d{1,6})\.")
_PART = re.compile(r"(.*-)(\d{5})(-of-\d{5}\.gguf)")


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
    head_count: int  # of the attention, in the layer that has most
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
    keys_per_token: int  # numbers that the cache holds of one token, in all layers
    values_per_token: int
    block_bytes: Counter[int]  # weights of each block, by its number
    is_recurrent: bool  # some layers keep a state that cannot be cut, not keys and values


def read_header(path: Path) -> GgufHeader:
    """All the metadata, with a check that every tensor lies within the file.

    Raises:
        ModelError: missing, unreadable, not GGUF, truncated, or against the format.
    """
    return header_of(path, read_contents(path))


def require_vocabulary(path: Path) -> GgufHeader:
    """The header of a model that can at least turn text into tokens; its sizes are those of all its parts.

    Raises:
        ModelError: see `read_header`; or it is no model, has no tokeniser, or a part is missing.
    """
    header = read_header(path)
    if header.type in _NO_MODELS:
        hint = _AS_ADAPTER if header.type == "adapter" else OTHER_FILE
        raise ModelError(f"{path} is {_NO_MODELS[header.type]}, not a model", hint)
    if not header.vocabulary_size or header.tokenizer in ("", "none", "no_vocab"):
        raise ModelError(f"{path} has no tokeniser", "Convert the model again, with its tokeniser.")
    parts = [header, *map(read_header, _other_parts(path, header.split_count))]
    return dataclasses.replace(
        header,
        bytes=sum(part.bytes for part in parts),
        parameters=sum(part.parameters for part in parts),
        block_bytes=sum((part.block_bytes for part in parts), Counter()),
    )


def require_model(path: Path) -> GgufHeader:
    """The header of a model that generates text.

    Raises:
        ModelError: see `require_vocabulary`; or it is another kind of file.
    """
    header = require_vocabulary(path)
    if header.is_embedding:
        raise ModelError(f"{path} is an embedding model", "Take one that generates text.")
    if not header.parameters:
        raise ModelError(f"{path} holds a vocabulary and no weights", OTHER_FILE)
    return header


def makes_embeddings(architecture: str, pooling_type: int) -> bool:
    """Whether a model turns text into vectors and not into more text.

    Args:
        pooling_type: what its header says, as llama.cpp counts; 0, none, is that of models that generate.
    """
    return pooling_type > 0 or any(name in architecture for name in _ENCODERS)


def parts_of(path: Path) -> list[Path]:
    """The files of the model that begins with this one: it alone, or all parts of a split one.

    Raises:
        ModelError: see `read_header`; or a part is missing.
    """
    if not _PART.fullmatch(path.name):
        return [path]
    return [path, *_other_parts(path, read_header(path).split_count)]


def _other_parts(path: Path, count: int) -> list[Path]:
    """The parts behind the first, where llama.cpp will look for them."""
    if count < 2:
        return []
    name = _PART.fullmatch(path.name)
    if name is None or int(name[2]) != 1 or not name[3].startswith(f"-of-{count:05}"):
        raise ModelError(
            f"{path} is one of {count} parts, and not the first",
            f"Give the file whose name ends in -00001-of-{count:05}.gguf, beside the others.",
        )
    parts = [path.with_name(f"{name[1]}{n:05}{name[3]}") for n in range(2, count + 1)]
    if missing := next((part for part in parts if not part.exists()), None):
        raise ModelError(f"a part of the model is missing: {missing}", PULL_AGAIN)
    return parts


class _Fields:
    """Fields by name, of the kind they must have; one that is absent or of another kind is a default."""

    def __init__(self, fields: dict[str, Any], prefix: str) -> None:
        self._fields = fields
        self._prefix = prefix

    def text(self, name: str, default: str = "") -> str:
        return self._of(str, name, default)

    def number(self, name: str, default: int = 0) -> int:
        return self._of(int, name, default)

    def numbers(self, name: str, default: int = 0) -> list[int]:
        """One for all layers, or one for each."""
        value = self.optional(list, name) or [self.number(name, default)]
        return [number for number in value if isinstance(number, int)] or [default]

    def strings(self, name: str) -> Strings | tuple[()]:
        return self._of(Strings, name, ())

    def optional(self, kind: type[T], name: str) -> T | None:
        return self._of(kind, name, None)

    def _of(self, kind: type[T], name: str, default: D) -> T | D:
        value = self._fields.get(f"{self._prefix}{name}")
        return value if isinstance(value, kind) else default


def header_of(path: Path, contents: Contents) -> GgufHeader:
    """The metadata in what was read of a file; `path` is what it is known by."""
    general = _Fields(contents.fields, "general.")
    tokenizer = _Fields(contents.fields, "tokenizer.ggml.")
    architecture = general.text("architecture")
    own = _Fields(contents.fields, f"{architecture}.")
    recurrent = tuple(f"{architecture}.{kind}." for kind in _RECURRENT)
    keys, values = _kv_per_token(own)
    return GgufHeader(
        path=path,
        bytes=contents.bytes,
        type=general.text("type", "model"),
        architecture=architecture,
        name=general.text("name"),
        parameters=sum(tensor.elements for tensor in contents.tensors),
        quantisation=_quantisation(general.number("file_type", -1), contents.tensors),
        context_length=own.number("context_length"),
        embedding_length=own.number("embedding_length"),
        block_count=own.number("block_count"),
        head_count=max(own.numbers("attention.head_count")),
        vocabulary_size=len(tokenizer.strings("tokens")),
        tokenizer=tokenizer.text("model"),
        tokenizer_pre=tokenizer.text("pre"),
        chat_template=_Fields(contents.fields, "tokenizer.").optional(str, "chat_template"),
        bos=_special(tokenizer, "bos"),
        eos=_special(tokenizer, "eos"),
        eot=_special(tokenizer, "eot"),
        add_bos=tokenizer.optional(bool, "add_bos_token"),
        is_embedding=makes_embeddings(architecture, own.number("pooling_type")),
        split_count=_Fields(contents.fields, "split.").number("count", 1),
        keys_per_token=keys,
        values_per_token=values,
        block_bytes=_block_bytes(contents.tensors),
        is_recurrent=any(name.startswith(recurrent) for name in contents.fields),
    )


def _block_bytes(tensors: list[Tensor]) -> Counter[int]:
    total: Counter[int] = Counter()
    for tensor, size in zip(tensors, stored_bytes(tensors), strict=True):
        if name := _BLOCK.match(tensor.name):
            total[int(name[1])] += size
    return total


def _kv_per_token(own: _Fields) -> tuple[int, int]:
    """Keys and values of one token in all layers; 0 where the header does not tell."""
    heads = max(own.numbers("attention.head_count"))
    if heads <= 0:
        return 0, 0
    width = own.number("embedding_length") // heads
    kv_heads = own.numbers("attention.head_count_kv", heads)
    total = sum(kv_heads) if len(kv_heads) > 1 else own.number("block_count") * kv_heads[0]
    return (
        total * own.number("attention.key_length", width),
        total * own.number("attention.value_length", width),
    )


def _special(tokenizer: _Fields, role: str) -> SpecialToken | None:
    index, tokens = tokenizer.number(f"{role}_token_id", -1), tokenizer.strings("tokens")
    return SpecialToken(index, tokens[index]) if 0 <= index < len(tokens) else None


def _quantisation(file_type: int, tensors: list[Tensor]) -> str:
    from gguf.constants import GGMLQuantizationType, LlamaFileType

    names = {int(kind): kind.name for kind in LlamaFileType}
    if file_type in names:
        return names[file_type].removeprefix("MOSTLY_").removeprefix("ALL_")
    types = {int(kind): kind.name for kind in GGMLQuantizationType}
    most_common = Counter(tensor.type for tensor in tensors).most_common(1)
    return types[most_common[0][0]] if most_common else "unknown"
