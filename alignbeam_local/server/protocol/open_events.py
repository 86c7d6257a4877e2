"""The events of an answer as objects, for a client that was allowed to see them all."""

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from ...events import (
    AnswerText,
    BeamText,
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
from ...result import json_safe
from ..work.jobs import JobEvent

_NAMES: dict[type, str] = {
    Notice: "notice",
    Phase: "phase",
    ExamplesRead: "examples_read",
    RequestRead: "request_read",
    Step: "step",
    BeamText: "beam_text",
    Judged: "judged",
    WindowRead: "window_read",
    SteeredBack: "steered_back",
    AnswerText: "answer_text",
    Withdrawn: "withdrawn",
}


def told_events(events: Sequence[JobEvent]) -> list[dict[str, Any]]:
    """Those that tell of the making, in order: the fields of their classes, and their names as `event`."""
    return [
        {"event": _NAMES[type(event)], **json_safe(asdict(event))}
        for event in events
        if is_dataclass(event) and type(event) in _NAMES
    ]
