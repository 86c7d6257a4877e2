"""What a client asks of `POST /v1/chat/completions`: read strictly, what can't be obeyed is named."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import AlignBeamError
from ...prompt.message import Message, Role

_MOST_STOPS = 4
_MOST_OWN_FIELDS = 100  # more than there are knobs
#: Fields of OpenAI's that change an answer and that nothing here obeys, and the values that ask for nothing.
_NOT_OBEYED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "response_format": ({"type": "text"},),
}
#: Top-level fields that are knobs of ours under the same name.
_KNOB_FIELDS = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed")

StreamMode = Literal["hold", "window", "open"]
Extra = Literal["beams.text", "steps"]


class BadRequest(AlignBeamError):
    """A request that can't be obeyed; `param` is the field, `code` a word for programs."""

    kind = "invalid_request_error"

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Part(_Strict):
    type: Literal["text"]
    text: str


class _Turn(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]

    @property
    def message(self) -> Message:
        role: Role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return Message(role, self.content)
        return Message(role, "".join(part.text for part in self.content))


class _StreamOptions(_Strict):
    include_usage: bool | None = None


class OwnFields(_Strict):
    """The `alignbeam` object of a request: how to stream, what to tell, and knobs.

    Attributes:
        stream: text after its verdict (hold), up to the last of several verdicts (window), or at once (open).
        include: what a response holds besides: every beam's text, every mixed token.
        judge: false: nothing is judged.
        fresh: its slot forgets first, so that nothing of an earlier request moves it.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    stream: StreamMode = "hold"
    include: Annotated[tuple[Extra, ...], Field(strict=False)] = ()
    stop: Annotated[list[str], Field(max_length=_MOST_STOPS)] | str | None = None
    judge: bool = True
    fresh: bool = False

    @property
    def knobs(self) -> dict[str, Any]:
        """The knobs that were given, under the names that were used."""
        stop = {} if self.stop is None else {"stop": self.stop}
        return {**stop, **(self.model_extra or {})}


@dataclass(frozen=True)
class ChatRequest:
    """A request that can be obeyed as far as its form goes.

    Attributes:
        model: which of `/v1/models`.
        messages: the conversation; the last turn is the user's.
        stream: as it comes, or whole.
        include_usage: a last chunk tells the tokens.
        knobs: what it sets of the configuration, outside the `alignbeam` object.
        own: the `alignbeam` object.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool
    knobs: dict[str, Any]
    own: OwnFields


def read_request(body: Any) -> ChatRequest:
    """Read a parsed body.

    Raises:
        BadRequest: it is none, or asks for what is not obeyed here.
    """
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    if isinstance(own := body.get("alignbeam"), dict) and len(own) > _MOST_OWN_FIELDS:
        raise BadRequest(f"alignbeam: over {_MOST_OWN_FIELDS} fields", "alignbeam")
    _refuse_not_obeyed(body)
    try:
        form = _Form.model_validate(body)
    except ValidationError as error:
        raise _bad_request(error) from None
    return ChatRequest(
        model=form.model,
        messages=form.conversation,
        stream=bool(form.stream),
        include_usage=bool(form.stream_options and form.stream_options.include_usage),
        knobs=form.knobs,
        own=form.alignbeam or OwnFields(),
    )


class _Form(_Strict):
    model: str
    messages: Annotated[list[_Turn], Field(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=_MOST_STOPS)] | None = None
    alignbeam: OwnFields | None = None

    @property
    def conversation(self) -> tuple[Message, ...]:
        """Raises: BadRequest: its last turn is not the user's."""
        last = len(self.messages) - 1
        if self.messages[last].role != "user":
            raise BadRequest(
                "the last message must be the user's: an answer that somebody has begun is not continued",
                f"messages[{last}].role",
            )
        return tuple(turn.message for turn in self.messages)

    @property
    def knobs(self) -> dict[str, Any]:
        """The top-level fields that are knobs."""
        found = {name: getattr(self, name) for name in _KNOB_FIELDS}
        found["max_tokens"] = self.max_completion_tokens or self.max_tokens
        if self.stop:
            found["stop"] = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        return {name: value for name, value in found.items() if value is not None}


def _refuse_not_obeyed(body: dict[str, Any]) -> None:
    for name, harmless in _NOT_OBEYED.items():
        value = body.get(name)
        if value is not None and value not in harmless:
            raise BadRequest(f"'{name}' is not supported here: leave it out", name, "unsupported_parameter")


def _bad_request(error: ValidationError) -> BadRequest:
    """The first thing that is wrong; of a value that may be a text or parts, what is wrong with the parts."""
    found = error.errors(include_url=False, include_input=False)
    deepest = max(found, key=lambda each: len(each["loc"]))
    param = _spelt([part for part in deepest["loc"] if not _is_branch(part)])
    return BadRequest(f"{param}: {deepest['msg']}" if param else deepest["msg"], param or None)


def _is_branch(part: int | str) -> bool:
    """Whether pydantic names with it which of several types it tried."""
    return isinstance(part, str) and (part == "str" or part.startswith(("list[", "constrained", "function-")))


def _spelt(loc: list[int | str]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return "".join(parts).removeprefix(".")
