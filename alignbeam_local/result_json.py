"""A result as one JSON object, for other programs: names are stable."""

import json
from dataclasses import asdict, fields
from math import isfinite
from typing import Any

from .errors import AlignBeamError
from .events import Step
from .result import Result

#: The names that a result takes in an object.
RESULT_FIELDS = tuple(field.name for field in fields(Result))
#: JSON may hold them as they are, but Python's splitlines and others end a line there.
_LINE_ENDS = {ord(mark): f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"}


def result_object(result: Result) -> dict[str, Any]:
    """Every field of the result under its own name, safe for JSON."""
    return dict(_safe(asdict(result)))


def step_object(step: Step) -> dict[str, Any]:
    """One mixed step, as `--trace` writes it."""
    return {"event": "step", **_safe(asdict(step))}


def error_object(error: AlignBeamError) -> dict[str, Any]:
    """What stands for an answer that could not be given."""
    return {"type": error.kind, "message": error.message, "hint": error.hint}


def json_line(value: Any) -> str:
    """One line of JSON, whatever its reader takes for the end of one; what is no number is null.

    Lone surrogates stay escaped.
    """
    value = _safe(value)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.translate(_LINE_ENDS) if _encodable(text) else json.dumps(value, allow_nan=False)


def parsed(text: str | bytes) -> Any:
    """A value of JSON from a file; all of its strings can be written as UTF-8.

    Raises:
        ValueError, RecursionError: it is no JSON, or holds lone surrogates.
    """
    value = json.loads(text)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _safe(value: Any) -> Any:
    """Floats that JSON can't hold become null."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_safe(item) for item in value]
    return value


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
