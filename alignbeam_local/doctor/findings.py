"""What `alignbeam doctor` has to say about one thing."""

from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import AlignBeamError

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """How one thing is, and what to do about it; a warning is no reason to stop, a problem is."""

    topic: str
    level: Level
    message: str
    hint: str = ""
    details: dict[str, Any] = field(default_factory=dict)  # for programs


def problem(topic: str, error: AlignBeamError) -> Finding:
    """What an answer would fail with, in its own words."""
    return Finding(topic, "problem", error.message, error.hint)
