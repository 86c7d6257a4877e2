"""What a server and the commands of its user say to each other on the private socket: lines of JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..errors import AlignBeamError, error_of
from ..events import (
    AnswerText,
    BeamText,
    Done,
    Event,
    ExamplesRead,
    Judged,
    Notice,
    Phase,
    RequestRead,
    SteeredBack,
    Step,
    WindowRead,
    Withdrawn,
)
from ..prompt.message import Message
from ..result import json_safe

#: Changes with the form of what is said; a server of another one is not used.
WIRE_VERSION = 5

_EVENTS: Mapping[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind)
    for kind in (
        Notice,
        Phase,
        ExamplesRead,
        RequestRead,
        Step,
        BeamText,
        Judged,
        WindowRead,
        SteeredBack,
        AnswerText,
        Withdrawn,
        Done,
    )
}


def told(what: Event | AlignBeamError) -> dict[str, Any]:
    """An event or an error as an object."""
    if isinstance(what, AlignBeamError):
        return {"error": {"kind": what.kind, "message": what.message, "hint": what.hint}}
    return {"event": type(what).__name__, "data": json_safe(asdict(what))}


def heard(value: Any) -> Event | AlignBeamError:
    """The event or the error that an object tells.

    Raises:
        AlignBeamError: it tells neither.
    """
    try:
        if "error" in value:
            error = value["error"]
            return error_of(error["kind"], error["message"], error["hint"])
        event: Event = _EVENTS[value["event"]].validate_python(value["data"])
    except (KeyError, TypeError, ValidationError):
        raise AlignBeamError("the server says what this version does not know", "Restart it.") from None
    return event


def told_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """A conversation as objects."""
    return [{"role": message.role, "content": message.content} for message in messages]


def heard_messages(values: Any) -> list[Message]:
    """The conversation that these objects are."""
    found: list[Message] = TypeAdapter(list[Message]).validate_python(values)
    return found
