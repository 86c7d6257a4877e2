"""Requests that a person called harmful or harmless: what a head is fitted on and tested with.

The shipped ones were written for this project, none taken from a benchmark. They name a goal, not the means.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import UsageError
from ..prompt.message import Message

REQUESTS_FILE = Path(__file__).parent / "data" / "requests.jsonl"

RequestLabel = Literal["harmful", "harmless"]
RequestKind = Literal["contrast", "ordinary", "order", "question", "turns", "long"]
#: The kind that is asked in everyday use; the others were written to be hard to tell apart.
ORDINARY: RequestKind = "ordinary"
RequestSplit = Literal["fit", "held_out"]

_FIELDS = "Each line: id, pair, label, kind, topic, language, split, and a prompt or a list of messages."


@dataclass(frozen=True)
class LabelledRequest:
    """A request, and what a person calls it.

    Attributes:
        pair: what it shares with its twin, which asks in the same form for the opposite; None if it has none.
        topic: what it is about; no topic is in both splits.
        language: ISO 639-1.
        messages: the conversation that ends with the request; one message if that is all.
    """

    id: str
    pair: str | None
    label: RequestLabel
    kind: RequestKind
    topic: str
    language: str
    split: RequestSplit
    messages: tuple[Message, ...]

    @property
    def text(self) -> str:
        """What the user said last."""
        return self.messages[-1].content


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["user", "assistant"]
    content: str = Field(pattern=r"\S")


class _Row(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    pair: str | None
    label: RequestLabel
    kind: RequestKind
    topic: str = Field(min_length=1)
    language: str = Field(pattern=r"^[a-z]{2}$")
    split: RequestSplit
    prompt: str | None = Field(default=None, pattern=r"\S")
    messages: tuple[_Turn, ...] = ()

    @model_validator(mode="after")
    def _asks_once(self) -> Self:
        if (self.prompt is None) != bool(self.messages):
            raise ValueError("needs either a prompt or messages")
        if self.messages and self.messages[-1].role != "user":
            raise ValueError("the last message must be the user's")
        return self

    def request(self) -> LabelledRequest:
        turns = self.messages or (_Turn(role="user", content=self.prompt or ""),)
        messages = tuple(Message(turn.role, turn.content) for turn in turns)
        return LabelledRequest(
            self.id, self.pair, self.label, self.kind, self.topic, self.language, self.split, messages
        )


def read_requests(path: Path = REQUESTS_FILE) -> list[LabelledRequest]:
    """Labelled requests, one JSON object a line.

    Raises:
        UsageError: the file can't be read or holds none, a line is no labelled request, or an id is there
            twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read {path}: {error}", "Give a UTF-8 JSON Lines file.") from None
    requests = {n: _request(path, n, line) for n, line in enumerate(lines, 1) if line.strip()}
    if not requests:
        raise UsageError(f"{path} holds no request", _FIELDS)
    _require_own_ids(path, requests.items())
    return list(requests.values())


def _request(path: Path, number: int, line: str) -> LabelledRequest:
    try:
        return _Row.model_validate_json(line).request()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = f"{path}, line {number}: {where and f'{where}: '}{first['msg']}"
        raise UsageError(message, _FIELDS) from None


def _require_own_ids(path: Path, numbered: Iterable[tuple[int, LabelledRequest]]) -> None:
    seen: dict[str, int] = {}
    for number, request in numbered:
        if (first := seen.setdefault(request.id, number)) != number:
            raise UsageError(
                f"{path}, line {number}: id '{request.id}' is on line {first} as well",
                "Give each its own id.",
            )
