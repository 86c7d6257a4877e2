"""The web page: HTML, style and script put together into one file that needs nothing else.

Its policy names the hashes of its own style and script, so that the browser runs no other. All that comes
from models, prompts and servers enters the page as text, by its script.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from ... import __version__
from ...config import Config
from ...result_json import json_line

_HERE = Path(__file__).parent
#: In the order in which they stand in the page: each may use what those above it define.
SCRIPTS = (
    "words.js",
    "dom.js",
    "stream.js",
    "run.js",
    "chips.js",
    "beams.js",
    "choice.js",
    "panel.js",
    "page.js",
)
#: The knobs that the page offers for the next answer, or shows beside one.
KNOBS = ("alpha", "depth", "beams", "max_tokens", "temperature", "seed", "threshold", "choice", "on_unsafe")
_SCHEMA = ("minimum", "maximum", "description", "default", "enum")


class Page(NamedTuple):
    """A page, and the Content-Security-Policy that it is to be served with."""

    html: bytes
    policy: str


@cache
def live_page() -> Page:
    """The page that asks the server which it came from."""
    return _page(None, connect="'self'")


def saved_page(saved: Mapping[str, Any]) -> bytes:
    """The page of one answer, with its data inside: it asks nobody, and opens from a file.

    Args:
        saved: what `saved_answer` makes.
    """
    return _page(saved, connect="'none'").html


def _page(saved: Mapping[str, Any] | None, *, connect: str) -> Page:
    style = _source("page.css")
    script = "\n".join(map(_source, SCRIPTS))
    policy = "; ".join(_policy(style, script, connect))
    data = {"version": __version__, "knobs": dict(_knobs()), "saved": saved}
    texts = {"policy": policy, "style": style, "script": script, "data": _embedded(data)}
    html = _source("page.html")
    for name, text in texts.items():
        before, mark, after = html.partition(f"{{{{ {name} }}}}")
        assert mark, name
        html = before + text + after
    return Page(html.encode("utf-8", "replace"), f"{policy}; frame-ancestors 'none'")


def _policy(style: str, script: str, connect: str) -> Iterator[str]:
    """What a `meta` element may hold of it; `frame-ancestors` works in a header alone."""
    yield "default-src 'none'"
    yield f"script-src '{_hash(script)}'"
    yield f"style-src '{_hash(style)}'"
    yield f"connect-src {connect}"
    yield "img-src data:"
    yield "base-uri 'none'"
    yield "form-action 'none'"


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _embedded(value: object) -> str:
    """JSON in which nothing can end a `script` element, or begin a comment in it."""
    return json_line(value).replace("<", "\\u003c").replace(">", "\\u003e")


def _knobs() -> Iterator[tuple[str, dict[str, Any]]]:
    """By knob its meaning, its default and its range or its values."""
    properties = Config.model_json_schema()["properties"]
    for name in KNOBS:
        yield name, {key: properties[name][key] for key in _SCHEMA if key in properties[name]}


def _source(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
