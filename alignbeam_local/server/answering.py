"""The response to one chat request: whole, or a stream that holds no text before its verdict."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ..errors import AlignBeamError
from ..events import AnswerText
from ..result_json import json_line
from .metrics import Metrics
from .protocol.chat_request import ChatRequest
from .protocol.completion import Head
from .protocol.open_events import told_events
from .protocol.record import Record
from .protocol.replies import reply_to
from .work.engine_thread import EngineThread
from .work.jobs import JobEvent
from .work.pair import as_error
from .work.ticket import Ticket

#: A client hears of a request that can't be answered by its status if that is known in this time.
_ACCEPTANCE_SECONDS = 1.0
#: A stream that has nothing to say sends a comment: first after, then every so many seconds.
_FIRST_SILENCE, _SILENCE = 1.0, 10.0
_COMMENT = b":\n\n"
_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@dataclass
class Answering:
    """One answer on its way to a client."""

    engine: EngineThread
    metrics: Metrics
    request: ChatRequest
    ticket: Ticket
    record: Record
    head: Head
    shows_all: bool

    def __post_init__(self) -> None:
        self._begun = monotonic()
        self._error: AlignBeamError | None = None
        self._sent = 0  # characters that were sent before the end, in `hold` mode

    async def respond(self, http: Request, pair: str) -> Response:
        """Submit the job, and make its response.

        Raises:
            AlignBeamError: it can't be answered.
        """
        try:
            self.engine.submit(pair, self.record.job)
            first = await self.ticket.begun(_ACCEPTANCE_SECONDS)
            if self.request.stream:
                return EndedStream(self, first)
            await self._whole(http, first)
        except BaseException as error:
            self._error = as_error(error)
            raise
        finally:
            if not self.request.stream or self._error:
                self.end()
        body = self.head.whole(self.record, self.request.own.include, shows_all=self.shows_all)
        return Response(json_line(body), media_type="application/json")

    async def _whole(self, http: Request, first: Sequence[JobEvent]) -> None:
        """Wait for the result. Raises: AlignBeamError: there is none. CancelledError: the client is gone."""
        self.record.take(first)
        gone = asyncio.create_task(_until_gone(http))
        try:
            while not self.record.ended:
                events = asyncio.create_task(self.ticket.next())
                await asyncio.wait({events, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not events.done():
                    events.cancel()
                    raise ClientGone("the client is gone")
                self.record.take(events.result())
        finally:
            gone.cancel()
        if self.record.error:
            raise self.record.error

    async def frames(self, first: Sequence[JobEvent]) -> AsyncIterator[bytes]:
        """Server-sent events; an error is a frame of its own, after which no end is said."""
        try:
            yield _frame(self.head.chunk({"role": "assistant", "content": ""}))
            events, silence, spoken = first, _FIRST_SILENCE, monotonic()
            while True:
                for chunk in self._chunks(events):
                    yield _frame(chunk)
                    spoken = monotonic()
                if self.record.ended:
                    break
                # The engine is not silent meanwhile: what it tells of is not to be shown yet.
                if monotonic() - spoken >= silence:
                    yield _COMMENT
                    silence, spoken = _SILENCE, monotonic()
                events = await self.ticket.next(max(0.0, spoken + silence - monotonic()))
            async for frame in self._last_frames():
                yield frame
        except Exception as error:
            self._error = as_error(error)
            yield _frame(reply_to(self._error).body)

    def _chunks(self, events: Sequence[JobEvent]) -> list[dict[str, Any]]:
        mode, record = self.request.own.stream, self.record
        text = record.take(events)
        if mode == "hold":
            text = self._standing(events)
        if mode == "open" and (told := told_events(events)):
            return [self.head.chunk({"content": text} if text else {}, alignbeam={"events": told})]
        return [self.head.chunk({"content": text})] if text else []

    def _standing(self, events: Sequence[JobEvent]) -> str:
        """What nothing will take back, and at the end all that is left of the answer."""
        text = "".join(event.text for event in events if isinstance(event, AnswerText) and event.stands)
        self._sent += len(text)
        return text + (self.record.result.text[self._sent :] if self.record.result else "")

    async def _last_frames(self) -> AsyncIterator[bytes]:
        if self.record.error:
            yield _frame(reply_to(self.record.error).body)
            return
        include = self.request.own.include
        yield _frame(self.head.last_chunk(self.record, include, shows_all=self.shows_all))
        if self.request.include_usage:
            yield _frame(self.head.usage_chunk(self.record))
        yield b"data: [DONE]\n\n"

    def end(self) -> None:
        """Count what became of it; of one that goes on nobody wants the rest."""
        self.ticket.close()
        if not self.record.ended:
            self.engine.cancel(self.record.job)
        error = self._error or self.record.error
        ended = error.kind if error else ClientGone.kind
        self.metrics.count(self.head.model, ended, monotonic() - self._begun, self.record.result)


class ClientGone(AlignBeamError):
    """Nobody waits for this answer any more."""

    kind = "client_gone"


class EndedStream(StreamingResponse):
    """A stream whose job ends with it, also where it was left before its first byte."""

    def __init__(self, answering: Answering, first: Sequence[JobEvent]) -> None:
        super().__init__(
            answering.frames(first), headers=_STREAM_HEADERS, media_type="text/event-stream; charset=utf-8"
        )
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answering.end()


def error_response(error: AlignBeamError) -> JSONResponse:
    """An error as its status and body."""
    reply = reply_to(error)
    return JSONResponse(reply.body, reply.status, dict(reply.headers))


def _frame(value: dict[str, Any]) -> bytes:
    return f"data: {json_line(value)}\n\n".encode()


async def _until_gone(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
