"""Requests over raw sockets, byte by byte, and responses as they come."""

import json
import socket
from collections.abc import Sequence
from http.client import HTTPResponse
from typing import Any, NamedTuple

from tests.server_world import ServerWorld, asked

CHAT = "/v1/chat/completions"
Headers = Sequence[tuple[str, str]]


class Reply(NamedTuple):
    """A response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> Any:
        """What OpenAI's clients read. Raises: AssertionError: it is not of their form."""
        assert self.headers["content-type"] == "application/json", self
        (error,) = json.loads(self.body).values()
        assert set(error) == {"message", "type", "param", "code"}
        assert all(isinstance(error[name], str) for name in ("message", "type"))
        assert all(error[name] is None or isinstance(error[name], str) for name in ("param", "code"))
        return error


def connected(world: ServerWorld) -> socket.socket:
    host, _, port = world.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


class InARow:
    """A socket whose responses come one behind the other: what is read ahead of one is the next one's."""

    def __init__(self, sock: socket.socket) -> None:
        self._file = sock.makefile("rb")

    def makefile(self, *_: Any) -> "InARow":
        return self

    def close(self) -> None:
        """Not before the last."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def received(sock: socket.socket | InARow, method: str = "POST") -> Reply:
    response = HTTPResponse(sock, method=method)  # type: ignore[arg-type]
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, response.read())


def head(method: str, path: str, headers: Headers = (), host: str | None = "localhost") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host is not None else [])]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def post(body: bytes, headers: Headers = (), *, length: int | None = None) -> bytes:
    """A chat request; `length` is what it says of its body."""
    size = len(body) if length is None else length
    return head("POST", CHAT, [("Content-Length", str(size)), *headers]) + body


def sent(world: ServerWorld, data: bytes, method: str = "POST") -> Reply:
    with connected(world) as sock:
        sock.sendall(data)
        return received(sock, method)


def question(text: str = "How?", **fields: Any) -> bytes:
    return json.dumps(asked(text, **fields)).encode()


def works(world: ServerWorld, headers: Headers = ()) -> bool:
    """Whether the next request does."""
    reply = sent(world, post(question(), headers))
    return reply.status == 200 and json.loads(reply.body)["choices"][0]["message"]["content"] == "Take a pan."
