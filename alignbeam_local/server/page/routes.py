"""The page over HTTP, and what it has to know of its server before anybody asks."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ... import __version__
from ...config import Config
from .page import KNOBS, live_page


def page_routes(config: Config, allows_knobs: bool, needs_key: bool) -> list[Route]:
    """`/` and `/page/info`; neither says anything of models or people, and neither needs a key.

    Args:
        config: the knobs of the model that the page asks, where a request says nothing.
        allows_knobs: a request may turn every knob, and see text that nobody judged.
        needs_key: a request needs a key.
    """
    info = page_info(config, allows_knobs=allows_knobs, needs_key=needs_key)

    async def show(_: Request) -> Response:
        page = live_page()
        headers = {
            "content-security-policy": page.policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        }
        return Response(page.html, media_type="text/html", headers=headers)

    async def tell(_: Request) -> Response:
        return JSONResponse(info)

    return [Route("/", show), Route("/page/info", tell)]


def page_info(config: Config, *, allows_knobs: bool, needs_key: bool) -> dict[str, Any]:
    """What `/page/info` says."""
    return {
        "version": __version__,
        "allows_knobs": allows_knobs,
        "reports": [],
        "knobs": {name: getattr(config, name) for name in KNOBS},
        "needs_key": needs_key,
    }
