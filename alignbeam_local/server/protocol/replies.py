"""Errors of the server in the form that OpenAI's clients read."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...errors import AlignBeamError, Cancelled, ContextFull, ModelError, RpcError, UsageError
from ..work.engine_thread import QueueFull, Unavailable
from ..work.pair import Unreadable
from .chat_request import BadRequest

#: What the client can mend, with its field and code.
_CLIENTS_OWN: Mapping[type[AlignBeamError], tuple[str | None, str]] = {
    ContextFull: ("messages", "context_length_exceeded"),
    Unreadable: ("messages", "invalid_value"),
    UsageError: (None, "invalid_value"),
}
_LONGEST_TEXT = 500  # characters of what a request named
_RETRY_SECONDS = {"loading": 5, "stopping": 30, "stopped": 30, "stuck": 30, "ok": 1}


class Reply(NamedTuple):
    """An error's status, body and headers."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = {}


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """OpenAI's shape: `type` and `message` are texts, `code` a text or null; what is very long is cut."""
    message, param = _cut(message), param and _cut(param)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def reply_to(error: AlignBeamError) -> Reply:
    """What a client is told of an error, and whether it shall try again."""
    message = f"{error.message}. {error.hint}" if error.hint else error.message
    if isinstance(error, BadRequest):
        status = 404 if error.code == "model_not_found" else 400
        return Reply(status, error_body(message, "invalid_request_error", error.param, error.code))
    for kind, (param, code) in _CLIENTS_OWN.items():
        if isinstance(error, kind):
            return Reply(400, error_body(message, "invalid_request_error", param, code))
    if isinstance(error, QueueFull):
        headers = {"retry-after": str(error.retry_after)}
        return Reply(429, error_body(message, "rate_limit_error", None, "queue_full"), headers)
    if isinstance(error, Unavailable | Cancelled):  # cancelled by the end of the engine
        state = error.state if isinstance(error, Unavailable) else "stopping"
        code = "shutting_down" if state == "stopping" else state
        headers = {"retry-after": str(_RETRY_SECONDS[state])}
        return Reply(503, error_body(message, "unavailable_error", None, code), headers)
    if isinstance(error, RpcError):  # its own words name the operator's machines
        message = "a machine that computes for this server does not answer; the server's messages say why"
        headers = {"retry-after": str(_RETRY_SECONDS["stuck"])}
        return Reply(503, error_body(message, "unavailable_error", None, error.kind), headers)
    if isinstance(error, ModelError):  # its own words name files of this machine
        message = "a model failed; the server's messages say why"
    # Asked again it would fail again, and take as long.
    return Reply(500, error_body(message, "server_error", None, error.kind), {"x-should-retry": "false"})
