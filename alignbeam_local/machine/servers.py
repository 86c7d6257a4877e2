"""llama.cpp's RPC servers, looked at in a child process before this one depends on them.

llama.cpp ends the process that asks a server which is not there, and waits without an end for one that is
silent. So a child greets each server by itself, with a time limit, and only then lets llama.cpp ask it.
A server takes one client at a time: while another process uses it, it is silent.
"""

import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ..errors import RpcError, reason_of, rebuild_hint
from ..lm.devices import Gpu
from ..placing import Server, parse_server

_CMAKE = "-DGGML_RPC=on"
#: How long a server may take to greet: it does nothing for it.
GREETING_SECONDS = 5.0
#: How long the child may take in all: starting Python and llama.cpp, and a greeting of every server.
_CHILD_SECONDS = 60.0
#: The greeting of llama.cpp's protocol, the same in all its versions: a byte, a length, what the client can.
_HELLO, _CAPABILITIES = 14, 24
_ANSWER = struct.Struct("<QBBBx24s")
_OWN_PROTOCOL = re.compile(r"RPC server v(\d+)\.(\d+)\.(\d+)")
_LOST = "it ended the connection"

Protocol = tuple[int, int, int]


class FoundServer(NamedTuple):
    """A server that can be used: the protocol that it speaks, and its devices."""

    address: str
    protocol: Protocol
    devices: tuple[Gpu, ...]


def require_rpc() -> None:
    """Raises: RpcError: this build of llama.cpp has no RPC."""
    from ..llama.rpc import supports_rpc

    if not supports_rpc():
        raise RpcError(
            "--rpc needs a llama.cpp that was built with GGML_RPC, and this one was not",
            f"To get one {rebuild_hint(_CMAKE)}. See docs/scale.md.",
        )


def look_at(addresses: Sequence[str]) -> list[FoundServer]:
    """Ask each server in a child process what it speaks and has, in order.

    Raises:
        RpcError: one is not there, silent, of another protocol, or has no device; or this build has no RPC.
    """
    require_rpc()
    code, out, err = _run_child(addresses)
    own, told = own_protocol(out), _told(out)
    return [_found(address, told.get(address, {}), own, code, err) for address in addresses]


def _told(out: str) -> dict[str, dict[str, Any]]:
    """What the child came to know of each address, line by line."""
    told: dict[str, dict[str, Any]] = {}
    for line in (json.loads(line) for line in out.splitlines() if line.startswith("{")):
        told.setdefault(line["address"], {}).update(line)
    return told


def _found(address: str, told: dict[str, Any], own: Protocol | None, code: int, err: str) -> FoundServer:
    if "error" in told:
        raise RpcError(f"the RPC server {address} {told['error']}", told["hint"])
    if "protocol" in told:
        _require_protocol(address, tuple(told["protocol"]), own)
    if "devices" not in told:
        said = next((text.strip() for text in reversed(err.splitlines()) if text.strip()), "")
        raise RpcError(
            f"llama.cpp can't use the RPC server {address}: {said or f'exit code {code}'}",
            "Start the server again, of the same version of llama.cpp as here.",
        )
    return FoundServer(address, tuple(told["protocol"]), tuple(Gpu(**device) for device in told["devices"]))


def own_protocol(printed: str) -> Protocol | None:
    """What this build speaks, out of what it prints where a server starts; None: it does not say."""
    found = _OWN_PROTOCOL.search(printed)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _require_protocol(address: str, protocol: Protocol, own: Protocol | None) -> None:
    """The last number too, which llama.cpp lets pass: it tells the operations of graphs apart."""
    if own is not None and protocol != own:
        theirs, ours = (".".join(map(str, version)) for version in (protocol, own))
        raise RpcError(
            f"the RPC server {address} speaks protocol {theirs}, and this llama.cpp {ours}",
            "Build the server from the same version of llama.cpp as here: see docs/scale.md.",
        )


def greet(server: Server) -> Protocol:
    """The protocol of a server, which is asked by itself, without llama.cpp.

    Raises:
        RpcError: nothing listens there, it does not answer in time, or it is none.
    """
    try:
        with socket.create_connection((server.host, server.port), GREETING_SECONDS) as connection:
            connection.sendall(struct.pack("<BQ", _HELLO, _CAPABILITIES) + bytes(_CAPABILITIES))
            answer = _received(connection, _ANSWER.size)
    except TimeoutError:
        raise RpcError(
            f"does not answer in {GREETING_SECONDS:g} s",
            "A server takes one client at a time: does another process use it? Else: is it an RPC server?",
        ) from None
    except (OSError, UnicodeError) as error:  # a host that can't be written as a name of the DNS
        hint = "Start it there: ggml-rpc-server, see docs/scale.md."
        raise RpcError(f"can't be used: {reason_of(error)}", hint) from None
    length, *version, _ = _ANSWER.unpack(answer)
    if length != _ANSWER.size - 8:
        raise RpcError("is no RPC server of this kind", "Is the address right? Is it of the same version?")
    return version[0], version[1], version[2]


def unreachable(servers: Iterable[Server]) -> list[str]:
    """The addresses of those that do not greet."""
    found = []
    for address, server in {server.address: server for server in servers}.items():
        try:
            greet(server)
        except RpcError:
            found.append(address)
    return found


def _received(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError(_LOST)
        data += more
    return data


def _run_child(addresses: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; the child never outlives this call.

    Raises:
        RpcError: it did not end in time.
    """
    command = [sys.executable, "-P", "-m", __name__, *addresses]
    seconds = _CHILD_SECONDS + 2 * GREETING_SECONDS * len(addresses)
    try:
        child = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RpcError(
            f"no answer in {seconds:.0f} s from the RPC servers {', '.join(addresses)}",
            "Start them again, and try once more.",
        ) from None
    return child.returncode, child.stdout, child.stderr


# --- the child's side


def _ask(address: str) -> Iterator[dict[str, object]]:
    """What is known of a server, as soon as it is: llama.cpp may end this process before the rest."""
    from ..llama.rpc import server_devices

    try:
        yield {"protocol": greet(parse_server(address))}
        yield {"devices": [gpu._asdict() for gpu in server_devices(address)]}
    except RpcError as error:
        yield {"error": error.message, "hint": error.hint}


def _main(addresses: Sequence[str]) -> None:
    from ..llama.rpc import print_protocol

    print_protocol()
    for address in addresses:
        for known in _ask(address):
            print("\n" + json.dumps({"address": address, **known}), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
