"""Which devices a person named for the models: the texts of the knobs, taken apart."""

import re
from collections.abc import Sequence
from typing import NamedTuple

#: What a role's GPU knob says where none of its layers may go to a GPU of this machine.
ON_CPU = "cpu"
#: What llama.cpp has room for.
MOST_SERVERS = 16

_ROLES = ("draft", "anchor", "judge")
_SERVER = re.compile(
    r"(?:(?P<role>[a-z]+)=)?(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?):(?P<port>\d{1,5})"
)


class Server(NamedTuple):
    """An RPC server of llama.cpp, and the role that it is for; every role if None."""

    address: str  # HOST:PORT
    role: str | None

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def serves(self, role: str) -> bool:
        return self.role in (None, role)


def parse_gpus(text: str) -> tuple[int, ...]:
    """The numbers of GPUs, from `0`, `0,1` or `cpu`, which is none of them.

    Raises:
        ValueError: it is nothing of the kind; its text says what is wrong.
    """
    if text == ON_CPU:
        return ()
    words = text.split(",")
    if not all(word.isascii() and word.isdecimal() and len(word) <= 3 for word in words):
        raise ValueError(f"not the number of a GPU, several as 0,1, or {ON_CPU}")
    numbers = tuple(map(int, words))
    if len(set(numbers)) < len(numbers):
        raise ValueError("a GPU is there twice")
    return numbers


def parse_server(text: str) -> Server:
    """A server, from `HOST:PORT` or `ROLE=HOST:PORT`.

    Raises:
        ValueError: it is nothing of the kind; its text says what is wrong.
    """
    found = _SERVER.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not HOST:PORT or ROLE=HOST:PORT (a name or an IPv4 address)")
    if not 0 < int(found["port"]) < 1 << 16:
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    if found["role"] not in (None, *_ROLES):
        raise ValueError(f"{found['role']!r} is no role: {', '.join(_ROLES)}")
    return Server(f"{found['host']}:{int(found['port'])}", found["role"])


def parse_servers(texts: Sequence[str]) -> tuple[Server, ...]:
    """Raises: ValueError: as `parse_server`; or one is there twice for a role, or there are too many."""
    servers = tuple(map(parse_server, texts))
    for number, server in enumerate(servers):
        for other in servers[:number]:
            if server.address == other.address and (
                server.role == other.role or None in (server.role, other.role)
            ):
                raise ValueError(f"{server.address} is there twice")
    if len({server.address for server in servers}) > MOST_SERVERS:
        raise ValueError(f"llama.cpp has room for {MOST_SERVERS} servers")
    return servers
