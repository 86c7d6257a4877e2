"""The routes: OpenAI's chat completions and models, health, metrics, the page."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from .. import __version__
from ..engine.scheduler import Asked
from ..errors import AlignBeamError
from ..result_json import parsed
from .answering import Answering, error_response
from .gate import LOCAL_ORIGINS, Gate, GateRules
from .metrics import Metrics
from .outer import BodyLimit, Contained, RequestIds
from .page.routes import page_routes
from .protocol.chat_request import BadRequest, read_request
from .protocol.completion import Head, fingerprint
from .protocol.record import Record
from .protocol.replies import error_body
from .served import ServedModel
from .work.engine_thread import EngineThread
from .work.jobs import Job
from .work.ticket import Ticket

_MIB = 2**20
_ALLOWED_HEADERS = ("authorization", "content-type", "x-api-key")
_KINDS = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_too_slow",
    413: "request_too_large",
}


@dataclass(frozen=True)
class Limits:
    """Attributes:
    body_bytes: the longest body.
    body_seconds: how long one may take to arrive.
    """

    body_bytes: int = 4 * _MIB
    body_seconds: float = 30.0


class Server:
    """What the routes share."""

    def __init__(
        self,
        engine: EngineThread,
        models: Mapping[str, ServedModel],
        *,
        allows_knobs: bool = False,
        reports: Mapping[str, Path] = MappingProxyType({}),
        limits: Limits = Limits(),
    ) -> None:
        """`models` by their ids, in the order in which they are listed; `reports`: see `page_routes`."""
        self._engine = engine
        self._models = models
        self._allows_knobs = allows_knobs
        self._reports = reports
        self._limits = limits
        self._metrics = Metrics(lambda: engine.health)

    def app(self, rules: GateRules) -> Starlette:
        """The whole application, behind its gate."""
        routes = [
            *_both("/chat/completions", self.chat, "POST"),
            *_both("/models", self.list_models),
            *_both("/models/{id:path}", self.show_model),
            *_both("/health", self.health),
            Route("/metrics", self.show_metrics),
            *page_routes(
                next(iter(self._models.values())).config,
                self._reports,
                allows_knobs=self._allows_knobs,
                needs_key=bool(rules.keys),
            ),
        ]
        middleware = [
            Middleware(RequestIds),
            Middleware(Contained),
            Middleware(
                CORSMiddleware,
                allow_origins=list(rules.origins),
                allow_origin_regex=LOCAL_ORIGINS.pattern,
                allow_methods=["GET", "POST"],
                allow_headers=[*_ALLOWED_HEADERS, *_stainless()],
                expose_headers=["x-request-id", "retry-after"],
            ),
            Middleware(Gate, rules=rules),
            Middleware(BodyLimit, max_bytes=self._limits.body_bytes),
        ]
        handlers: Mapping[Any, Callable[[Request, Any], Awaitable[Response]]] = {
            HTTPException: _http_error,
            AlignBeamError: _known_error,
        }
        return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)

    async def chat(self, http: Request) -> Response:
        request = read_request(await self._body(http))
        model = self._models.get(request.model)
        if model is None:
            raise _no_such_model(request.model)
        settled = model.settled(request, allows_knobs=self._allows_knobs)
        ticket = Ticket()
        asked = Asked(model.conversation(request.messages), settled.config, model.of_anchor)
        job = Job(asked, ticket.tell, is_fresh=request.own.fresh)
        mark = fingerprint(settled.config.model_dump(), model.marks)
        answering = Answering(
            self._engine,
            self._metrics,
            request,
            ticket,
            Record(job, settled.notices),
            Head.new(model.id, mark),
            shows_all=self._allows_knobs,
        )
        return await answering.respond(http, model.pair)

    async def _body(self, http: Request) -> Any:
        """Raises: BadRequest: it is no JSON. HTTPException: it is too long, or comes too slowly."""
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                raw = await http.body()
        except TimeoutError:
            close = {"connection": "close"}  # what else comes of it is no request
            raise HTTPException(408, "the body took too long to arrive", close) from None
        except ClientDisconnect:
            raise HTTPException(400, "the client went away within the body") from None
        try:
            return parsed(raw.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            raise BadRequest("the body is not JSON in UTF-8", None, "invalid_json") from None

    async def list_models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [model.as_object for model in self._models.values()]})

    async def show_model(self, http: Request) -> Response:
        name = http.path_params["id"]
        if name not in self._models:
            raise _no_such_model(name)
        return JSONResponse(self._models[name].as_object)

    async def health(self, _: Request) -> Response:
        """It says nothing of models or people."""
        state, last_step_s, waiting, running = self._engine.health
        body = {"status": state, "last_step_s": round(last_step_s, 1), "waiting": waiting, "running": running}
        return JSONResponse(body | {"version": __version__}, 200 if state == "ok" else 503)

    async def show_metrics(self, _: Request) -> Response:
        return PlainTextResponse(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _both(path: str, endpoint: Callable[[Request], Awaitable[Response]], method: str = "GET") -> list[Route]:
    """With and without `/v1`, as llama-server takes it."""
    return [Route(prefix + path, endpoint, methods=[method]) for prefix in ("/v1", "")]


def _stainless() -> list[str]:
    """Headers that OpenAI's client for browsers sends."""
    names = (
        "arch",
        "helper-method",
        "lang",
        "os",
        "package-version",
        "retry-count",
        "runtime",
        "runtime-version",
        "timeout",
    )
    return [f"x-stainless-{name}" for name in names]


def _no_such_model(name: str) -> BadRequest:
    return BadRequest(
        f"there is no model '{name}' here; GET /v1/models lists them", "model", "model_not_found"
    )


async def _http_error(_: Request, error: HTTPException) -> Response:
    body = error_body(
        error.detail, "invalid_request_error", None, _KINDS.get(error.status_code, "invalid_value")
    )
    return JSONResponse(body, error.status_code, error.headers)


async def _known_error(_: Request, error: AlignBeamError) -> Response:
    return error_response(error)
