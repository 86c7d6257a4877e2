"""Bad input over raw sockets: each has its status and a body of OpenAI's form, and the next request works."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import pytest

from alignbeam_local.server.app import Limits
from alignbeam_local.server.gate import LOOPBACK, GateRules
from alignbeam_local.server.http import HttpProtocol
from alignbeam_local.server.serving import raise_file_limit
from tests.raw_http import CHAT, Headers, InARow, connected, head, post, question, received, sent, works
from tests.server_world import ServerWorld, asked, until

KEY = b"a-key-of-some-length"
LIMITS = Limits(body_bytes=100_000, body_seconds=1.0)


@pytest.fixture(scope="module")
def world() -> Iterator[ServerWorld]:
    with pytest.MonkeyPatch.context() as patch:
        raise_file_limit()
        with ServerWorld(patch, limits=LIMITS).running() as running:
            yield running


@pytest.fixture(scope="module")
def locked() -> Iterator[ServerWorld]:
    rules = GateRules(keys=[KEY, b"another-key"], hosts=[*LOOPBACK, "my.host"], origins=["https://my.page"])
    with pytest.MonkeyPatch.context() as patch, ServerWorld(patch, rules=rules).running() as running:
        yield running


@pytest.fixture
def caught(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged; at the end there is no traceback among it."""
    yield caplog
    assert not [record for record in caplog.records if record.exc_info]


NO_JSON = [
    b"",
    b"{",
    b"nul",
    b"{'model': 1}",
    b"\xff\xfe\x00",
    b'{"model": "\xc3\x28"}',
    b'{"model": "pair\xed\xa0\x80"}',
    b'{"model": "\\ud800"}',
    b'{"messages": [{"role": "user", "content": "\\udc00 How?"}]}',
    b"[" * 90_000,
    b'{"a":' * 10_000,
    b"[" * 45_000 + b"]" * 45_000,
    b'{"seed": ' + b"9" * 5000 + b"}",
    question().decode().encode("utf-16"),
    question().decode().encode("utf-32"),
    question() + b"}",
    b"\x00" * 1000,
]


@pytest.mark.parametrize("body", NO_JSON, ids=lambda body: str(body[:24]))
def test_what_is_no_json_is_told(world: ServerWorld, caught: Any, body: bytes) -> None:
    reply = sent(world, post(body))
    assert (reply.status, reply.error["code"], reply.error["type"]) == (
        400,
        "invalid_json",
        "invalid_request_error",
    )
    assert works(world)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


WRONG: list[tuple[Any, str | None]] = [
    ([], None),
    (1, None),
    ("x", None),
    (None, None),
    ({}, "model"),
    (asked("How?", messages={}), "messages"),
    (asked("How?", messages=[1]), "messages[0]"),
    (asked("How?", messages=[[]]), "messages[0]"),
    (asked("How?", messages=nested(200)), "messages[0]"),
    (asked("How?", messages=[{"role": "user", "content": nested(200)}]), "messages[0].content[0]"),
    (asked("How?", model=["pair"]), "model"),
    (asked("How?", model=nested(400)), "model"),
    (asked("How?", stop=[1]), "stop[0]"),
    (asked("How?", stop={"a": 1}), "stop"),
    (asked("How?", stream=1), "stream"),
    (asked("How?", stream_options=[]), "stream_options"),
    (asked("How?", stream_options={"include_usage": "yes"}), "stream_options.include_usage"),
    (asked("How?", max_tokens=True), "max_tokens"),
    (asked("How?", max_tokens=1.5), "max_tokens"),
    (asked("How?", max_tokens="5"), "max_tokens"),
    (asked("How?", temperature=float("nan")), "temperature"),
    (asked("How?", temperature=float("inf")), "temperature"),
    (asked("How?", temperature=10**400), "temperature"),
    (asked("How?", top_p=[]), "top_p"),
    (asked("How?", top_k=-(10**30)), "top_k"),
    (asked("How?", seed=-(2**70)), "seed"),
    (asked("How?", seed=1.5), "seed"),
    (asked("How?", tools=nested(300)), "tools"),
    (asked("How?", alignbeam=1), "alignbeam"),
    (asked("How?", alignbeam={"max_tokens": "5"}), "alignbeam.max_tokens"),
    (asked("How?", alignbeam={"max_tokens": None}), "alignbeam.max_tokens"),
    (asked("How?", alignbeam={"max_tokens": [1]}), "alignbeam.max_tokens"),
    (asked("How?", alignbeam={"alpha": None}), "alignbeam.alpha"),
    (asked("How?", alignbeam={"alpha": float("nan")}), "alignbeam.alpha"),
    (asked("How?", alignbeam={"alpha": "much"}), "alignbeam.alpha"),
    (asked("How?", alignbeam={"alpha": nested(300)}), "alignbeam.alpha"),
    (asked("How?", alignbeam={"threshold": {}}), "alignbeam.threshold"),
    (asked("How?", alignbeam={"threshold": None}), "alignbeam.threshold"),
    (asked("How?", alignbeam={"on_unsafe": ["refuse"]}), "alignbeam.on_unsafe"),
    (asked("How?", alignbeam={"beams": "3"}), "alignbeam.beams"),
    (asked("How?", alignbeam={"depth": 1e300}), "alignbeam.depth"),
    (asked("How?", alignbeam={"stop": 5}), "alignbeam.stop"),
    (asked("How?", alignbeam={"judge": 0}), "alignbeam.judge"),
    (asked("How?", alignbeam={"include": {}}), "alignbeam.include"),
    (asked("How?", alignbeam={"include": nested(100)}), "alignbeam.include[0]"),
    (asked("How?", alignbeam={"": 1}), "alignbeam."),
    (asked("How?", alignbeam={"__class__": 1}), "alignbeam.__class__"),
]


@pytest.mark.parametrize(("body", "param"), WRONG, ids=lambda value: str(value)[:60])
def test_wrong_types_are_named(world: ServerWorld, caught: Any, body: Any, param: str | None) -> None:
    reply = sent(world, post(json.dumps(body).encode()))
    assert (reply.status, reply.error["param"]) == (400, param), reply.error
    assert len(reply.body) < 2000
    assert works(world)


LONG_ONES: list[tuple[dict[str, Any], str]] = [
    ({"model": "x" * 90_000}, "model"),
    ({"alignbeam": {"x" * 90_000: 1}}, "alignbeam.xxx"),
    ({"alignbeam": {f"k{number}": 1 for number in range(7000)}}, "alignbeam"),
    ({"alignbeam": {"stop": [f"I{number}" for number in range(8000)]}}, "alignbeam.stop"),
    ({"stop": ["x"] * 15_000}, "stop"),
    ({"messages": [{"role": "user", "content": ""}] * 2500}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}] * 5000}]}, "messages[0]"),
]


@pytest.mark.parametrize(("fields", "param"), LONG_ONES, ids=lambda value: str(value)[:40])
def test_what_is_very_long_is_refused_quickly_and_not_repeated(
    world: ServerWorld, caught: Any, fields: dict[str, Any], param: str
) -> None:
    begun = monotonic()
    reply = sent(world, post(json.dumps({**asked("How?"), **fields}).encode()))
    assert reply.status in (400, 404)
    assert reply.error["param"].startswith(param)
    assert len(reply.body) < 2000
    assert monotonic() - begun < 1
    assert works(world)


def test_a_mark_at_the_beginning_is_no_fault(world: ServerWorld) -> None:
    assert sent(world, post(b"\xef\xbb\xbf" + question())).status == 200


LARGE = 10 * 2**20


def test_a_body_that_says_that_it_is_too_long_is_refused_at_once(world: ServerWorld) -> None:
    with connected(world) as sock:
        sock.sendall(post(b"{", length=LARGE))
        reply = received(sock)
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")
    assert works(world)


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/health"])
def test_a_long_body_is_refused_wherever_it_goes(world: ServerWorld, path: str) -> None:
    body = b" " * LARGE
    method = "POST" if path == CHAT else "GET"
    with connected(world) as sock:
        sock.sendall(head(method, path, [("Content-Length", str(len(body)))]))
        pushed(sock, body)
        reply = received(sock)
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")
    assert works(world)


def test_a_body_in_chunks_is_refused_when_it_has_become_too_long(world: ServerWorld) -> None:
    with connected(world) as sock:
        sock.sendall(head("POST", CHAT, [("Transfer-Encoding", "chunked")]))
        pushed(sock, (b"10000\r\n" + b" " * 0x10000 + b"\r\n") * (LARGE // 0x10000))
        reply = received(sock)
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")
    assert works(world)


def pushed(sock: socket.socket, data: bytes) -> None:
    """Send as much as the server takes."""
    try:
        sock.sendall(data)
    except OSError:
        return


def test_a_body_in_chunks_is_read(world: ServerWorld) -> None:
    body = question()
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(body[i : i + 9]), body[i : i + 9]) for i in range(0, len(body), 9)
    )
    data = head("POST", CHAT, [("Transfer-Encoding", "chunked")]) + chunks + b"0\r\n\r\n"
    assert sent(world, data).status == 200


BROKEN = [
    b"hello\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 200,  # somebody speaks TLS
    b"GET /health HTTP/1.1\r\n\r\n",  # no Host
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
    b"GET / health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1, 2\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
]


@pytest.mark.parametrize("data", BROKEN, ids=lambda data: str(data[:60]))
def test_what_is_no_http_is_told(world: ServerWorld, caught: Any, data: bytes) -> None:
    reply = sent(world, data)
    assert reply.status in (400, 501)
    assert reply.error["type"] == "invalid_request_error"
    assert reply.headers["connection"] == "close"
    assert works(world)


def test_a_broken_chunk_ends_the_connection(world: ServerWorld, caught: Any) -> None:
    reply = sent(world, head("POST", CHAT, [("Transfer-Encoding", "chunked")]) + b"zz\r\nhello\r\n")
    assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")
    assert works(world)


def test_a_body_that_comes_too_slowly_is_given_up(world: ServerWorld) -> None:
    with connected(world) as sock:
        sock.sendall(post(b"{", length=50))
        reply = received(sock)
        assert reply.status == 408
        assert reply.error["type"] == "invalid_request_error"
        assert reply.headers["connection"] == "close"
        assert sock.recv(1) == b""
    assert works(world)


@pytest.mark.parametrize("data", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX"])
def test_a_connection_that_asks_nothing_is_closed(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(HttpProtocol, "head_seconds", 0.3)
    with connected(world) as sock:
        sock.sendall(data)
        begun = monotonic()
        while sock.recv(1000):
            pass
        assert monotonic() - begun < 5
    assert works(world)


def test_a_trickle_of_headers_gains_no_time(world: ServerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpProtocol, "head_seconds", 0.3)
    with connected(world) as sock:
        begun = monotonic()
        with suppress(OSError):
            while monotonic() - begun < 5:
                sock.sendall(b"X")
                sleep(0.05)
        assert monotonic() - begun < 4
    assert works(world)


def test_a_body_that_goes_on_behind_its_answer_gains_no_time(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HttpProtocol, "head_seconds", 0.3)
    with connected(world) as sock:
        sock.sendall(head("POST", "/v1/nothing", [("Content-Length", "1000")]))
        assert received(sock).status == 404
        begun = monotonic()
        with suppress(OSError):
            while monotonic() - begun < 5:
                sock.sendall(b"X")
                sleep(0.05)
        assert monotonic() - begun < 4
    assert works(world)


def test_a_body_that_ends_early_is_no_request(world: ServerWorld, caught: Any) -> None:
    for _ in range(20):
        with connected(world) as sock:
            sock.sendall(post(question(), length=5000))
    assert works(world)
    assert world.engine.health.running == 0


def test_a_half_closed_connection_is_one_that_is_gone(world: ServerWorld, caught: Any) -> None:
    for stream in (False, True):
        with connected(world) as sock:
            sock.sendall(post(question("Story?", stream=stream)))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
    until(lambda: not world.engine.health.running)
    assert works(world)


def test_requests_in_a_row_on_one_connection_are_answered_in_order(world: ServerWorld) -> None:
    asks = [("How?", False), ("Refuse?", True), ("How?", True), ("Refuse?", False)]
    with connected(world) as sock:
        sock.sendall(b"".join(post(question(text, stream=stream)) for text, stream in asks))
        coming = InARow(sock)
        replies = [received(coming) for _ in asks]
        sock.sendall(head("GET", "/health"))
        assert received(coming).status == 200
    for (text, _), reply in zip(asks, replies, strict=True):
        assert reply.status == 200
        assert (b"pan" in reply.body) == (text == "How?")


def test_a_bad_request_leaves_its_connection_of_use(world: ServerWorld) -> None:
    with connected(world) as sock:
        for body in (b"{", question(n=2), question(model="other"), question()):
            sock.sendall(post(body))
            last = received(sock)
    assert last.status == 200


def test_one_that_leaves_with_requests_in_a_row_is_noticed(world: ServerWorld) -> None:
    world.draft.seconds = 0.01
    try:
        with connected(world) as sock:
            sock.sendall(post(question("Story?", stream=True)))
            sock.recv(1)
            sock.sendall(post(question("Story?", stream=True)) * 2)
            sleep(0.05)
        begun = monotonic()
        until(lambda: not world.engine.health.running)
        assert monotonic() - begun < 1
    finally:
        world.draft.seconds = 0.0
    assert works(world)


KEYED = ("Authorization", f"Bearer {KEY.decode()}")
HOSTS: list[tuple[str | None, int]] = [
    ("localhost", 200),
    ("localhost:8017", 200),
    ("LOCALHOST", 200),
    ("127.0.0.1:1", 200),
    ("[::1]", 200),
    ("[::1]:8017", 200),
    ("my.host:443", 200),
    ("", 403),
    ("evil.example", 403),
    ("localhost.evil.example", 403),
    ("evil.example:localhost", 403),
    ("my.host@evil.example", 403),
    ("127.0.0.1.evil.example:80", 403),
    ("localhost.", 403),
    ("[::1", 403),
    ("0.0.0.0", 403),
    (None, 400),
]


@pytest.mark.parametrize(("host", "status"), HOSTS)
def test_only_names_of_its_own_are_answered(locked: ServerWorld, host: str | None, status: int) -> None:
    reply = sent(locked, head("GET", "/health", host=host), "GET")
    assert reply.status == status
    assert status == 200 or reply.error["type"] in ("permission_error", "invalid_request_error")


ORIGINS = [
    ("http://localhost:3000", True),
    ("https://127.0.0.1", True),
    ("http://[::1]:5", True),
    ("app://obsidian.md", True),
    ("https://my.page", True),
    ("https://my.page:8443", False),
    ("http://my.page", False),
    ("https://evil.example", False),
    ("https://localhost.evil.example", False),
    ("http://localhost:3000.evil.example", False),
    ("https://evil.example/http://localhost", False),
    ("null", False),
    ("file://", False),
    ("", False),
    ("http://localhost:80 https://evil.example", False),
]


@pytest.mark.parametrize(("origin", "allowed"), ORIGINS)
def test_only_pages_that_are_allowed_may_ask(locked: ServerWorld, origin: str, allowed: bool) -> None:
    reply = sent(locked, post(question(), [KEYED, ("Origin", origin)]))
    assert reply.status == (200 if allowed else 403)
    assert allowed or reply.error["type"] == "permission_error"
    assert reply.headers.get("access-control-allow-origin") == (origin if allowed else None)
    preflight = [("Origin", origin), ("Access-Control-Request-Method", "POST")]
    preflight += [("Access-Control-Request-Headers", "authorization,content-type,x-stainless-os")]
    reply = sent(locked, head("OPTIONS", CHAT, preflight), "OPTIONS")
    assert reply.headers.get("access-control-allow-origin") == (origin if allowed else None)
    assert reply.status == (200 if allowed else 400)


KEYS: list[tuple[Headers, int]] = [
    ([KEYED], 200),
    ([("authorization", f"bearer  {KEY.decode()} ")], 200),
    ([("X-Api-Key", "another-key")], 200),
    ([("Authorization", "Basic eA=="), ("X-Api-Key", "another-key")], 200),
    ([], 401),
    ([("Authorization", "")], 401),
    ([("Authorization", "Bearer")], 401),
    ([("Authorization", "Bearer ")], 401),
    ([("Authorization", KEY.decode())], 401),
    ([("Authorization", f"Bearer {KEY.decode()}x")], 401),
    ([("Authorization", f"Bearer {KEY.decode()[:-1]}")], 401),
    ([("Authorization", f"Bearer {KEY.decode()}\xe9")], 401),
    ([("Authorization", "Bearer \xff\xfe")], 401),
    ([("Authorization", "Bearer wrong"), KEYED], 401),
    ([("Authorization", "Bearer wrong"), ("X-Api-Key", "another-key")], 401),
    ([("X-Api-Key", "")], 401),
    ([("Authorization", "Bearer " + "x" * 20_000)], 401),
]


@pytest.mark.parametrize(("headers", "status"), KEYS, ids=lambda value: str(value)[:60])
def test_a_key_opens_and_nothing_else(locked: ServerWorld, headers: Headers, status: int) -> None:
    for data in (
        post(question(), headers),
        head("GET", "/metrics", headers),
        head("GET", "/nowhere", headers),
    ):
        reply = sent(locked, data)
        assert (reply.status == 401) == (status == 401)
        if status == 401:
            assert (reply.error["code"], reply.headers["www-authenticate"]) == ("invalid_api_key", "Bearer")
    assert works(locked, [KEYED])


def test_without_a_key_a_body_is_not_even_read(locked: ServerWorld) -> None:
    with connected(locked) as sock:
        sock.sendall(post(b"", length=10**12))
        assert received(sock).status == 401
    for path in ("/health", "/v1/health"):
        reply = sent(locked, head("GET", path), "GET")
        assert reply.status == 200
        assert b"pair" not in reply.body


PATHS = [
    ("GET", "/nowhere", 404, "not_found"),
    ("POST", "/v1/completions", 404, "not_found"),
    ("GET", "/v1/models/other", 404, "model_not_found"),
    ("GET", "/v1/models/..%2f..%2fetc/passwd", 404, "model_not_found"),
    ("GET", "/../../etc/passwd", 404, "not_found"),
    ("GET", "//evil.example/", 404, "not_found"),
    ("GET", "/%ff%00", 404, "not_found"),
    ("GET", CHAT, 405, "method_not_allowed"),
    ("PUT", CHAT, 405, "method_not_allowed"),
    ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ("POST", "/health", 405, "method_not_allowed"),
    ("TRACE", "/health", 405, "method_not_allowed"),
    ("BREW", "/v1/models", 405, "method_not_allowed"),
    ("OPTIONS", CHAT, 405, "method_not_allowed"),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), PATHS)
def test_unknown_paths_and_methods(
    world: ServerWorld, method: str, path: str, status: int, code: str
) -> None:
    reply = sent(world, head(method, path), method)
    assert (reply.status, reply.error["code"]) == (status, code)
    assert reply.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/v1/models", "/metrics", "/v1/models/pair"])
def test_head_is_as_get_without_a_body(world: ServerWorld, path: str) -> None:
    reply = sent(world, head("HEAD", path), "HEAD")
    assert (reply.status, reply.body) == (200, b"")


def test_no_connection_becomes_a_websocket(world: ServerWorld, caught: Any) -> None:
    headers = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    headers += [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    assert sent(world, head("GET", "/health", headers), "GET").status == 200


def test_a_thousand_idle_connections_keep_nobody_out(world: ServerWorld) -> None:
    socks = [connected(world) for _ in range(1000)]
    try:
        assert works(world)
        assert world.get("/health").status_code == 200
    finally:
        for sock in socks:
            sock.close()
    assert works(world)


def test_a_thousand_that_ask_at_once_are_answered_or_told_to_come_again(world: ServerWorld) -> None:
    socks = [connected(world) for _ in range(1000)]
    try:
        for sock in socks:
            sock.sendall(post(question()))
        replies = [received(sock) for sock in socks]
    finally:
        for sock in socks:
            sock.close()
    assert {reply.status for reply in replies} == {200, 429}
    full = [reply for reply in replies if reply.status == 429]
    assert all(reply.error["code"] == "queue_full" for reply in full)
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in full)
    until(lambda: not world.engine.health.running)
    assert works(world)
