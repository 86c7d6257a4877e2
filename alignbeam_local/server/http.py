"""HTTP/1.1 as uvicorn speaks it, with limits and errors of ours: heads in time, faults in OpenAI's form."""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .protocol.replies import error_body

_AHEAD_BYTES = 1 << 16
_ANSWERABLE = (h11.IDLE, h11.SEND_RESPONSE)


class HttpProtocol(H11Protocol):
    """One connection.

    The head of a request must be there in time, and the rest of one that is answered already, or idle
    connections would take every file that the process may open. Of requests that come before the last is
    answered some are read, as a connection that is not read is never seen to end.
    """

    head_seconds = 20.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_head_timer(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._has_answered_early:
            self._watch_head()

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0]) < _AHEAD_BYTES:
            self.flow.resume_reading()

    def _watch_head(self) -> None:
        """What has begun, or is the first, has so long to be whole; each further byte gains no time."""
        if self.conn.their_state is not h11.IDLE and not self._has_answered_early:
            self._set_head_timer(None)
        elif self._head_timer is None:
            self._set_head_timer(self.loop.call_later(self.head_seconds, self.transport.close))

    @property
    def _has_answered_early(self) -> bool:
        """Whether a request is answered of which more is to come."""
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _set_head_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = timer

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP: told where no response has begun, and the connection ends."""
        if self.conn.our_state in _ANSWERABLE:
            body = json.dumps(error_body(msg, "invalid_request_error", None, "invalid_http")).encode()
            headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
            response = h11.Response(status_code=400, headers=[*headers, ("connection", "close")])
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
