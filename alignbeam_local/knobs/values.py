"""How values of knobs are written, and how far they go."""

import json
from contextlib import suppress
from math import isfinite
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from pydantic_core import PydanticCustomError

#: The longest context that a model claims to have, and the most tokens that can be asked for.
MOST_TOKENS = 10 * 2**20
#: Below this, logits over the temperature, or over the penalty, are no numbers any more.
LEAST_DIVISOR = 1e-3
_LARGEST_SHARE = 1e6
_LARGEST_SCALE = 100.0

Share = Annotated[float, Field(ge=0, le=1)]


class LoraSpec(NamedTuple):
    """An adapter as it was named: a name, a path or hf:owner/repo/file.gguf, and how much of it counts."""

    file: str
    scale: float

    @property
    def text(self) -> str:
        """What names the same once more: the scale to its last digit."""
        short = f"{self.scale:g}"
        return f"{self.file}:{short if float(short) == self.scale else repr(self.scale)}"


def as_none(value: Any) -> Any:
    """No value, as a person types it."""
    return None if value == "none" else value


def one_text_or_a_list(value: Any) -> Any:
    """Several texts, of which there may be none or one."""
    if value in (None, "none", ["none"]):
        return ()
    return texts(value) if isinstance(value, str) else value


def texts(value: str) -> Any:
    """What a JSON list lists, so that a variable can name several texts, and newlines; else one text."""
    if value.startswith("["):
        with suppress(ValueError, RecursionError):
            listed = json.loads(value)
            if isinstance(listed, list):
                return listed
    return (value,)


def parse_shares(text: str) -> tuple[float, ...]:
    """Raises: PydanticCustomError: not a list of shares, or all of them are 0."""
    try:
        shares = tuple(map(float, text.split(",")))
    except ValueError:
        shares = ()
    if not all(share == 0 or LEAST_DIVISOR <= share <= _LARGEST_SHARE for share in shares) or not any(shares):
        raise PydanticCustomError("shares", "not a list of shares, such as 3,1")
    return shares


def lora_spec(text: str) -> LoraSpec:
    """Raises: PydanticCustomError: no file is named, or the scale is out of range."""
    file, colon, last = text.rpartition(":")
    try:
        scale = float(last) if colon else 1.0
    except ValueError:
        if not _ends_a_file(file, last):
            raise PydanticCustomError(
                "scale",
                "{text} is no scale: that is a number, such as 0.5",
                {"text": repr(last)},
            ) from None
        file, scale = text, 1.0
    file = file if colon else text
    if not file.strip():
        raise PydanticCustomError("adapter", "no adapter is named")
    if not isfinite(scale) or abs(scale) > _LARGEST_SCALE:
        raise PydanticCustomError("scale", f"a scale is a number, at most {_LARGEST_SCALE:g}")
    return LoraSpec(file, scale)


def _ends_a_file(before: str, last: str) -> bool:
    """Whether a colon is the file's own, as in hf:owner/repo/file.gguf."""
    return before == "hf" or last.lower().endswith(".gguf") or not {"/", "\\"}.isdisjoint(last)
