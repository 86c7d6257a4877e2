"""ASGI middleware around all routes: a name for each request, a body's limit, no error that gets out."""

from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answering import error_response
from .protocol.replies import error_body
from .work.pair import as_error


class RequestIds:
    """Every response has an `x-request-id`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = f"req_{uuid4().hex}"

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = name
            await send(message)

        await self._app(scope, receive, named)


class Contained:
    """A fault of ours is a 500 of which only the kind is told: a traceback may hold what a user wrote.

    Of a response that has begun the rest does not come.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            response = error_response(as_error(error))
            if not has_begun:
                await response(scope, receive, send)


class BodyLimit:
    """413 for a body that says that it is too long, or becomes it."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        num_bytes = 0
        message = f"the body is longer than {self._max_bytes} bytes"

        async def limited() -> Message:
            nonlocal num_bytes
            received = await receive()
            num_bytes += len(received.get("body", b""))
            if num_bytes > self._max_bytes:
                raise HTTPException(413, message)
            return received

        if scope["type"] == "http" and self._declared(scope) > self._max_bytes:
            body = error_body(message, "invalid_request_error", None, "request_too_large")
            await JSONResponse(body, 413)(scope, receive, send)
        else:
            await self._app(scope, limited, send)

    def _declared(self, scope: Scope) -> int:
        """What it says; a number, as HTTP itself demands."""
        return int(Headers(scope=scope).get("content-length", "0"))
