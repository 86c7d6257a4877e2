"""A result as one JSON object, for other programs: names are stable."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from .errors import AlignBeamError
from .events import RequestRead, SteeredBack, Step, WindowRead
from .result import Result, json_safe

#: The names that a result takes in an object.
RESULT_FIELDS = tuple(field.name for field in fields(Result))
#: JSON may hold them as they are, but Python's splitlines and others end a line there.
_LINE_ENDS = {ord(mark): f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"}


#: What `--trace` tells of.
Traced = RequestRead | Step | WindowRead | SteeredBack


def traced_object(event: Traced) -> dict[str, Any]:
    """What `--trace` writes: what the request or a window was read as, one mixed step, or a step back."""
    if isinstance(event, RequestRead):
        return {"event": "request", **json_safe(asdict(event.steering))}
    if isinstance(event, WindowRead):
        return {"event": "window", "beam": event.beam, **json_safe(asdict(event.window))}
    if isinstance(event, SteeredBack):
        return {"event": "steered_back", **asdict(event)}
    return {"event": "step", **json_safe(asdict(event))}


def error_object(error: AlignBeamError) -> dict[str, Any]:
    """What stands for an answer that could not be given."""
    return {"type": error.kind, "message": error.message, "hint": error.hint}


def json_line(value: Any) -> str:
    """One line of JSON, whatever its reader takes for the end of one; what is no number is null.

    Lone surrogates stay escaped.
    """
    value = json_safe(value)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.translate(_LINE_ENDS) if _encodable(text) else json.dumps(value, allow_nan=False)


def parsed(text: str | bytes) -> Any:
    """A value of JSON from a file; all of its strings can be written as UTF-8.

    Raises:
        ValueError, RecursionError: it is no JSON, or holds lone surrogates.
    """
    value = json.loads(text)
    _require_unicode(value)
    return value


def parsed_row(text: str) -> Any:
    """The same of a line that a person wrote: a name that an object holds twice is an error, not the last.

    Raises:
        ValueError, RecursionError: as `parsed`.
    """
    value = json.loads(text, object_pairs_hook=one_of_each)
    _require_unicode(value)
    return value


def one_of_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these fields. Raises: ValueError: two have the same name."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' is there twice")
    return found


def _require_unicode(value: Any) -> None:
    """Raises: ValueError: it holds half of a pair of surrogates, which cannot be written; RecursionError."""
    if not _encodable(json.dumps(value, ensure_ascii=False)):
        raise ValueError("an escape such as \\ud800 in it is not Unicode text")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
