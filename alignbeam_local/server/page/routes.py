"""The page over HTTP, what it has to know of its server before anybody asks, and reports beside it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ... import __version__
from ...config import Config
from .page import KNOBS, live_page

#: A report is a file of its own with its script inside: it may do nothing but be read.
_REPORT_HEADERS = {
    "content-security-policy": "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


def page_routes(
    config: Config, reports: Mapping[str, Path], *, allows_knobs: bool, needs_key: bool
) -> list[Route]:
    """`/` and `/page/info`, which say nothing of models or people and need no key; `/reports/NAME`.

    Args:
        reports: pages of `eval report`, by name. A link sends no key: where one is needed none is named.
        config: the knobs of the model that the page asks, where a request says nothing.
        allows_knobs: a request may turn every knob, and see text that nobody judged.
        needs_key: a request needs a key.
    """
    info = page_info(config, () if needs_key else reports, allows_knobs=allows_knobs, needs_key=needs_key)

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

    async def report(http: Request) -> Response:
        path = reports.get(http.path_params["name"])
        if path is None or not path.is_file():
            raise HTTPException(404, "there is no such report")
        return FileResponse(path, media_type="text/html", headers=_REPORT_HEADERS)

    return [Route("/", show), Route("/page/info", tell), Route("/reports/{name}", report)]


def page_info(
    config: Config, reports: Iterable[str] = (), *, allows_knobs: bool, needs_key: bool
) -> dict[str, Any]:
    """What `/page/info` says."""
    return {
        "version": __version__,
        "allows_knobs": allows_knobs,
        "reports": [{"name": name, "url": f"/reports/{quote(name, safe='')}"} for name in reports],
        "knobs": {name: getattr(config, name) for name in KNOBS},
        "needs_key": needs_key,
    }
