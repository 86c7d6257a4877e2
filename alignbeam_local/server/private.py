"""The private socket: the same user's `ask`, `filter` and `chat` say here what an engine of theirs would do.

Whoever can open it owns the machine's files: nothing is locked, and every event is told.
"""

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from .. import __version__
from ..config import Config
from ..engine.scheduler import Asked
from ..errors import AlignBeamError, Cancelled, ServerGone, UsageError
from ..events import Done
from ..result_json import json_line
from ..warm.wire import WIRE_VERSION, heard_messages, told
from .served import ServedModel
from .work.engine_thread import EngineThread, Unavailable
from .work.jobs import Accepted, Begun, Job
from .work.pair import as_error
from .work.ticket import Ticket

_LONGEST_LINE = 64 * 2**20


class PrivateServer:
    """Answers on one socket; a connection is one request."""

    def __init__(self, engine: EngineThread, models: Mapping[str, ServedModel]) -> None:
        self._engine = engine
        self._pairs = {model.pair: model for model in models.values() if not model.of_anchor}
        self._answering: set[asyncio.Task[Any]] = set()

    async def start(self, listening: socket.socket) -> asyncio.Server:
        """Listen there, until the server that is returned is closed."""
        return await asyncio.start_unix_server(self._serve, sock=listening, limit=_LONGEST_LINE)

    async def ended(self, seconds: float) -> None:
        """Wait for the answers that are on their way, so long at most; the engine drains."""
        if self._answering:
            await asyncio.wait(self._answering, timeout=seconds)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            if request["ask"] == "info":
                _write(writer, self._info())
            elif request["ask"] == "left_out":
                _write(writer, await self._left_out(request))
            else:
                await self._answer(request, reader, writer)
            await writer.drain()
        except AlignBeamError as error:
            _write(writer, told(_as_here(error)))
        except (ValueError, KeyError, TypeError, ValidationError):
            _write(writer, told(UsageError("the server does not know this request", "Restart it.")))
        except OSError:  # the other side is gone
            pass
        except Exception as error:
            _write(writer, told(as_error(error)))
        finally:
            writer.close()

    def _info(self) -> dict[str, Any]:
        pairs = {
            name: {
                "config": model.config.model_dump(mode="json"),
                "files": model.files,
                "records": model.records,
                "notices": self._engine.load_notices(name),
            }
            for name, model in self._pairs.items()
        }
        return {
            "wire": WIRE_VERSION,
            "version": __version__,
            "pid": os.getpid(),
            "ready": self._engine.health.state == "ok",
            "pairs": pairs,
        }

    async def _left_out(self, request: Mapping[str, Any]) -> dict[str, Any]:
        asked, already = _asked(request), request["already"]
        found = self._engine.call(
            request["pair"], lambda engine: engine.left_out(asked.messages, asked.config, already)
        )
        return {"left_out": await asyncio.wrap_future(found)}

    async def _answer(
        self, request: Mapping[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        ticket = Ticket()
        job = Job(_asked(request), ticket.tell, is_fresh=request["fresh"])
        self._engine.submit(request["pair"], job, is_owners=True)
        if task := asyncio.current_task():
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        listening = asyncio.create_task(self._cancelled(job, reader))
        try:
            await _tell_all(job, ticket, writer)
        finally:
            listening.cancel()
            ticket.close()
            self._engine.cancel(job)

    async def _cancelled(self, job: Job, reader: asyncio.StreamReader) -> None:
        """Whatever the client says, and its going away, stops the answer."""
        with suppress(OSError, ValueError):
            await reader.readline()
        self._engine.cancel(job)


async def _tell_all(job: Job, ticket: Ticket, writer: asyncio.StreamWriter) -> None:
    while True:
        for event in await ticket.next():
            if isinstance(event, AlignBeamError):
                _write(writer, told(_as_here(event, was_cancelled=job.cancelled)))
            elif not isinstance(event, Accepted | Begun):
                _write(writer, told(event))
            if isinstance(event, Done | AlignBeamError):
                return
        await writer.drain()


def _as_here(error: AlignBeamError, *, was_cancelled: bool = False) -> AlignBeamError:
    """To whoever can load the models too, a server that stops is gone: nobody else has cancelled."""
    if isinstance(error, Unavailable) or (isinstance(error, Cancelled) and not was_cancelled):
        return ServerGone(error.message, "Ask again: the models are then loaded here.")
    return error


def _asked(request: Mapping[str, Any]) -> Asked:
    return Asked(heard_messages(request["messages"]), Config.of(request["config"]))


def _write(writer: asyncio.StreamWriter, value: Any) -> None:
    writer.write(json_line(value).encode() + b"\n")
