"""RPC servers are asked in a child process: who answers, who is silent, who speaks another protocol."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alignbeam_local.cli.main import main

from alignbeam_local.errors import RpcError
from alignbeam_local.llama.rpc import supports_rpc
from alignbeam_local.machine import servers
from alignbeam_local.machine.servers import (
    FoundServer,
    greet,
    look_at,
    own_protocol,
    require_rpc,
    unreachable,
)
from alignbeam_local.placing import Server, parse_server

Handler = Callable[[socket.socket], object]
OURS = "Starting RPC server v7.0.0\n  endpoint       : no address\n"
DEVICE = {"number": 0, "name": "x", "free": 5, "total": 9, "is_host_memory": False, "server": "h:1"}


@contextmanager
def listening(handler: Handler) -> Iterator[Server]:
    """Whoever connects is handled so, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    handler(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield parse_server(f"127.0.0.1:{port}")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def greeting(*version: int, length: int = 28) -> Handler:
    def answer(connection: socket.socket) -> None:
        assert connection.recv(33)[:9] == struct.pack("<BQ", 14, 24)
        connection.sendall(struct.pack("<QBBBx24s", length, *version, b""))

    return answer


def test_a_server_greets_with_its_protocol() -> None:
    with listening(greeting(7, 0, 3)) as server:
        assert greet(server) == (7, 0, 3)
        assert unreachable([server, server]) == []


def test_one_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "GREETING_SECONDS", 0.1)
    done = threading.Event()
    with listening(lambda _: done.wait(5)) as server:
        with pytest.raises(RpcError, match=r"does not answer in 0\.1 s") as error:
            greet(server)
        done.set()
    assert "one client at a time" in error.value.hint


def test_one_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    server = parse_server(f"127.0.0.1:{free}")
    with pytest.raises(RpcError, match="can't be used: Connection refused"):
        greet(server)
    assert unreachable([server]) == [server.address]
    with pytest.raises(RpcError, match="can't be used"):
        greet(parse_server("no-such-host.invalid:1"))


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (lambda connection: connection.recv(33), "ended the connection"),
        (
            lambda connection: (
                connection.recv(33) and connection.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 2)
            ),
            "no RPC server",
        ),
        (greeting(7, 0, 0, length=3), "no RPC server"),
    ],
)
def test_one_that_is_something_else(handler: Handler, message: str) -> None:
    with listening(handler) as server, pytest.raises(RpcError, match=message):
        greet(server)


# --- what the child came to know


def child(
    monkeypatch: pytest.MonkeyPatch, *lines: Any, code: int = 0, err: str = "", own: str = OURS
) -> None:
    out = own + "".join(f"\n{json.dumps(line)}\n" for line in lines)
    monkeypatch.setattr(servers, "require_rpc", lambda: None)
    monkeypatch.setattr(servers, "_run_child", lambda _: (code, out, err))


def test_what_a_child_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    child(
        monkeypatch,
        {"address": "h:1", "protocol": [7, 0, 0]},
        {"address": "h:1", "devices": [DEVICE]},
    )
    [found] = look_at(["h:1"])
    assert isinstance(found, FoundServer)
    assert (found.protocol, found.devices[0].id, found.devices[0].free) == ((7, 0, 0), "h:1#0", 5)


@pytest.mark.parametrize("version", [[6, 0, 0], [7, 1, 0], [7, 0, 1]])
def test_another_protocol_is_refused_to_the_last_number(
    monkeypatch: pytest.MonkeyPatch, version: list[int]
) -> None:
    child(monkeypatch, {"address": "h:1", "protocol": version}, {"address": "h:1", "devices": [DEVICE]})
    with pytest.raises(RpcError, match=r"speaks protocol \d\.\d\.\d, and this llama\.cpp 7\.0\.0") as error:
        look_at(["h:1"])
    assert "same version" in error.value.hint


def test_a_child_that_llama_cpp_ends_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    child(
        monkeypatch,
        {"address": "h:1", "protocol": [7, 0, 0]},
        {"address": "h:1", "devices": [DEVICE]},
        {"address": "h:2", "protocol": [7, 0, 0]},
        code=-6,
        err="ggml-rpc.cpp:354: Remote RPC server crashed or returned malformed response\n",
    )
    with pytest.raises(RpcError, match=r"can't use the RPC server h:2: .*Remote RPC server crashed"):
        look_at(["h:1", "h:2"])


def test_what_a_child_could_not_greet(monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, {"address": "h:1", "error": "does not answer in 5 s", "hint": "x"})
    with pytest.raises(RpcError, match="the RPC server h:1 does not answer in 5 s"):
        look_at(["h:1"])


def test_what_this_build_speaks_may_be_unknown() -> None:
    assert own_protocol(OURS) == (7, 0, 0)
    assert own_protocol("") is None


# --- a build without


def test_a_build_without_rpc_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("alignbeam_local.llama.rpc.llama_cpp.llama_supports_rpc", lambda: False)
    with pytest.raises(RpcError, match="was built with GGML_RPC, and this one was not") as error:
        require_rpc()
    assert 'CMAKE_ARGS="-DGGML_RPC=on" pip install' in error.value.hint
    assert main(["doctor", "--rpc", "127.0.0.1:1"]) == 1
    told = "problem  rpc        --rpc needs a llama.cpp that was built with GGML_RPC"
    assert told in capsys.readouterr().out


@pytest.mark.skipif(not supports_rpc(), reason="needs a llama.cpp with GGML_RPC")
def test_a_server_of_the_same_build_is_looked_at() -> None:
    """The whole way, with a real child: nothing listens there."""
    with pytest.raises(RpcError, match=r"127\.0\.0\.1:9 can't be used: Connection refused"):
        look_at(["127.0.0.1:9"])
