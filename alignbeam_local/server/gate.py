"""Who may come in: the key, the Host that was asked for, the page that asks. Pure ASGI, before everything."""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .protocol.replies import error_body

#: Pages on this machine, and programs that show pages of their own.
LOCAL_ORIGINS = re.compile(
    r"(https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?|(app|tauri|vscode-webview)://[^/]*)", re.ASCII
)
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
#: What anybody may ask: it says nothing of models or people.
_OPEN_PATHS = ("/health", "/v1/health", "/", "/page/info")


@dataclass(frozen=True)
class GateRules:
    """Attributes:
    keys: any of them opens; none: no key is needed.
    hosts: names, without port, that a request may be addressed to; none: any.
    origins: pages, besides those on this machine, whose scripts may ask.
    """

    keys: Sequence[bytes] = ()
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of this origin may ask; a page of this server itself may."""
        own = origin.partition("://")[2] == host
        return own or origin in self.origins or LOCAL_ORIGINS.fullmatch(origin) is not None

    def allows_host(self, host: str) -> bool:
        """Whether it is addressed by a name that it goes by: a rebound name of a web page is none."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        return not self.hosts or name.lower() in self.hosts

    def knows(self, headers: Headers) -> bool:
        """Whether a key is among the headers, compared in a time that tells nothing."""
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer if kind.lower() == "bearer" else headers.get("x-api-key", "")
        found = [hmac.compare_digest(given.strip().encode(), key) for key in self.keys]
        return not self.keys or any(found)


class Gate:
    """ASGI middleware: 403 for a wrong Host or Origin, 401 for a wrong key."""

    def __init__(self, app: ASGIApp, rules: GateRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refused := self._refused(scope)):
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refused(self, scope: Scope) -> JSONResponse | None:
        headers, rules = Headers(scope=scope), self._rules
        host, origin = headers.get("host", ""), headers.get("origin")
        if not rules.allows_host(host):
            return _forbidden("this server does not go by that Host; --allow-host adds one")
        if origin is not None and not rules.allows_origin(origin, host):
            return _forbidden("pages of this Origin may not ask; --allow-origin adds one")
        is_preflight = scope["method"] == "OPTIONS"
        if scope["path"] in _OPEN_PATHS or is_preflight or rules.knows(headers):
            return None
        body = error_body("the API key is missing or wrong", "authentication_error", None, "invalid_api_key")
        return JSONResponse(body, 401, {"www-authenticate": "Bearer"})


def _forbidden(message: str) -> JSONResponse:
    return JSONResponse(error_body(message, "permission_error"), 403)
