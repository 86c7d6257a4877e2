"""A LoRA adapter: what its GGUF file says, and whether it fits a model, before llama.cpp sees it.

llama.cpp gives no reason where it refuses a file, and takes some in silence that it should not: values that
are no numbers, no alpha, tensors that it leaves out, an adapter of another model of the same shape.
"""

import re
from collections import Counter
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from ..errors import ModelError, UsageError
from .gguf_header import parts_of
from .gguf_reader import PULL_AGAIN, Contents, Tensor, open_file, read_contents, stored_bytes

#: The key under which an adapter may say of which very file it is: the sha256 of the model's GGUF file.
BASE_SHA256 = "alignbeam.base_sha256"

_ALPHA = "adapter.lora.alpha"
_HALF = re.compile(r"(?P<of>.+)\.lora_(?P<half>[ab])")
_EMBEDDING = "token_embd.weight"
_CONVERT = "Make it with `alignbeam train export`, or with llama.cpp's convert_lora_to_gguf.py."
_OTHER_BASE = "Name the model that it was trained on as --draft, or leave the adapter out: --lora none."


@dataclass(frozen=True)
class Pair:
    """The two halves of one weight's update, B @ A."""

    a: Tensor
    b: Tensor

    @property
    def rank(self) -> int:
        return self.b.shape[0] if self.b.shape else 0


@dataclass(frozen=True)
class Adapter:
    """What an adapter's file says of itself; it is whole, and every A has its B.

    Attributes:
        alpha: what it is scaled by, over its rank.
        pairs: by the name of the weight that each changes.
        base_sha256: of the model's file that it was trained on; empty if it does not say.
    """

    path: Path
    bytes: int
    name: str
    architecture: str
    alpha: float
    pairs: dict[str, Pair]
    base_sha256: str

    @property
    def ranks(self) -> list[int]:
        """Every rank that occurs."""
        return sorted({pair.rank for pair in self.pairs.values()})

    @property
    def targets(self) -> Counter[str]:
        """How many layers' weights of each kind it changes."""
        return Counter(re.sub(r"^blk\.\d+\.|\.weight$", "", name) for name in self.pairs)

    @property
    def parameters(self) -> int:
        """The numbers in it."""
        return sum(half.elements for pair in self.pairs.values() for half in (pair.a, pair.b))


def is_adapter(path: Path) -> bool:
    """Whether a file calls itself an adapter. Raises: ModelError: it is no whole GGUF file."""
    return read_contents(path).fields.get("general.type") == "adapter"


def require_no_model(path: Path, flag: str) -> None:
    """Raises: UsageError: what is to be written there would take the place of a model."""
    try:
        is_model = path.exists() and not is_adapter(path)
    except ModelError:
        is_model = False
    if is_model:
        raise UsageError(f"{flag} {path} is a model", "Choose another file: a model is not written over.")


def require_adapter(path: Path, base: Path, base_sha256: str) -> Adapter:
    """An adapter that changes this model, in every tensor, by numbers.

    Args:
        base: the model's file; of a split one the first.
        base_sha256: what that is known by.

    Raises:
        ModelError: missing, truncated, no adapter, of another kind, another model's, or damaged.
    """
    contents = read_contents(path)
    adapter = _adapter(path, contents)
    _require_fit(adapter, base, base_sha256)
    _require_numbers(adapter, contents)
    return adapter


def require_sound(path: Path) -> Adapter:
    """An adapter that some model could use: its own parts hold. Raises: ModelError: as `require_adapter`."""
    contents = read_contents(path)
    adapter = _adapter(path, contents)
    _require_numbers(adapter, contents)
    return adapter


def read_adapter(path: Path) -> Adapter:
    """What an adapter's file says of itself.

    Raises:
        ModelError: missing, truncated, no LoRA adapter, without alpha, or half of a pair is missing.
    """
    return _adapter(path, read_contents(path))


def _adapter(path: Path, contents: Contents) -> Adapter:
    fields = contents.fields
    kind, form = fields.get("general.type"), fields.get("adapter.type")
    if kind != "adapter":
        raise ModelError(f"{path} is a model, not an adapter", "Give a LoRA adapter; a model is --draft.")
    if form != "lora" or fields.get("adapter.alora.invocation_tokens") is not None:
        what = "an activated LoRA (aLoRA)" if form == "lora" else f"of the kind {str(form)[:64]!r}"
        raise ModelError(f"the adapter {path} is {what}", "Only plain LoRA adapters are supported.")
    return Adapter(
        path=path,
        bytes=contents.bytes,
        name=_text(fields.get("general.name")),
        architecture=_text(fields.get("general.architecture")),
        alpha=_alpha(path, fields.get(_ALPHA)),
        pairs=_pairs(path, contents.tensors),
        base_sha256=_text(fields.get(BASE_SHA256)),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _alpha(path: Path, alpha: Any) -> float:
    """Raises: ModelError: without one llama.cpp would not scale by the rank, and would not say so."""
    is_number = isinstance(alpha, int | float) and not isinstance(alpha, bool) and isfinite(alpha)
    if not is_number or alpha <= 0:
        what = "has no alpha" if alpha is None else f"has an alpha of {str(alpha)[:64]}"
        raise ModelError(f"the adapter {path} {what}", f"{_ALPHA} must be a number over 0. {_CONVERT}")
    return float(alpha)


def _pairs(path: Path, tensors: list[Tensor]) -> dict[str, Pair]:
    halves: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        match = _HALF.fullmatch(tensor.name)
        if match is None:
            raise ModelError(
                f"the adapter {path} holds {tensor.name[:64]!r}, which is no half of a LoRA pair",
                "llama.cpp would leave it out: train without whole layers beside the adapter. " + _CONVERT,
            )
        own = halves.setdefault(match["of"], {})
        if match["half"] in own:
            raise ModelError(f"the adapter {path} holds {tensor.name[:64]!r} twice", PULL_AGAIN)
        own[match["half"]] = tensor
    for name, own in halves.items():
        if len(own) < 2:
            missing = "b" if "a" in own else "a"
            raise ModelError(f"the adapter {path} lacks {name[:64]}.lora_{missing}", PULL_AGAIN)
    if not halves:
        raise ModelError(f"the adapter {path} holds no weights", _CONVERT)
    return {name: Pair(**own) for name, own in halves.items()}


# --- does it fit?


def _require_fit(adapter: Adapter, base: Path, base_sha256: str) -> None:
    """Raises: ModelError: it is for a model of another make, or of another file."""
    architecture, shapes = _make_of(base)
    if adapter.architecture != architecture:
        theirs = adapter.architecture[:64] or "no architecture at all"
        raise ModelError(
            f"the adapter {adapter.path} is for {theirs}, and {base} is {architecture}", _OTHER_BASE
        )
    for name, pair in adapter.pairs.items():
        _require_pair_fit(adapter.path, base, name, pair, shapes.get(name))
    if adapter.base_sha256 and adapter.base_sha256 != base_sha256:
        raise ModelError(
            f"the adapter {adapter.path} says that it was trained on another file than {base}: "
            f"sha256 {adapter.base_sha256[:12]}…, not {base_sha256[:12]}…",
            _OTHER_BASE,
        )


def _make_of(model: Path) -> tuple[str, dict[str, tuple[int, ...]]]:
    """A model's architecture, and the shapes of its tensors, in all its parts."""
    parts = [read_contents(part) for part in parts_of(model)]
    shapes = {tensor.name: tensor.shape for part in parts for tensor in part.tensors}
    return _text(parts[0].fields.get("general.architecture")), shapes


def _require_pair_fit(path: Path, base: Path, name: str, pair: Pair, shape: tuple[int, ...] | None) -> None:
    """Raises: ModelError: the model has no such weight, or one of another shape."""
    if shape is None:
        raise ModelError(f"the adapter {path} changes {name[:64]}, which {base} has not", _OTHER_BASE)
    if not _fits(pair, shape, is_embedding=name == _EMBEDDING):
        raise ModelError(
            f"the adapter {path} does not fit {base}: {name[:64]} is {_times(shape)}, "
            f"its halves are {_times(pair.a.shape)} and {_times(pair.b.shape)}",
            _OTHER_BASE,
        )


def _fits(pair: Pair, shape: tuple[int, ...], *, is_embedding: bool) -> bool:
    """Whether B @ A has the weight's shape; the halves of an embedding lie the other way round."""
    a, b = _without_ones(pair.a.shape), _without_ones(pair.b.shape)
    shape = _without_ones(shape)
    if min(map(len, (a, b, shape))) < 2 or not all((*a, *b)):
        return False
    if is_embedding:
        return (a[1], b[1]) == (shape[1], shape[0]) and a[0] == b[0] and len(a) == len(b) == 2
    return (a[0], b[1], a[1]) == (shape[0], shape[1], b[0]) and a[2:] == b[2:] == shape[2:]


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without sizes of 1 behind the second: a matrix is also a stack of one."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


# --- are they numbers?


def _require_numbers(adapter: Adapter, contents: Contents) -> None:
    """Raises: ModelError: a value is infinite or none, or of a type that can't be read here."""
    import numpy as np

    sizes = stored_bytes(contents.tensors)
    with open_file(adapter.path) as file:
        for tensor, size in zip(contents.tensors, sizes, strict=True):
            file.seek(contents.data + tensor.offset)
            if not np.isfinite(_values(adapter.path, tensor, file.read(size))).all():
                raise ModelError(
                    f"the adapter {adapter.path} holds values in {tensor.name[:64]} that are not numbers",
                    "Its training diverged or the file is damaged: train it again, or copy it again.",
                )


def _values(path: Path, tensor: Tensor, data: bytes) -> Any:
    import numpy as np
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(tensor.type)
    rows = tensor.elements // tensor.shape[0]
    try:
        with np.errstate(all="ignore"):
            return dequantize(np.frombuffer(data, np.uint8).reshape(rows, -1), kind)
    except (NotImplementedError, ValueError):
        raise ModelError(
            f"the adapter {path} holds values of a type that can't be read here: {kind.name}",
            f"Convert it to F16. {_CONVERT}",
        ) from None
