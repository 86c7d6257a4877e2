"""A Ray cluster: connected to, or begun on this machine; its nodes."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import NamedTuple

from ..errors import AlignBeamError, UsageError, reason_of
from ..llama.library import usable_processors
from ..machine.memory import gib
from .extra import require_extra
from .share import Share

LOCAL, FOUND_HERE = "local", "auto"
_CONNECT_SECONDS = 5.0
_OBJECT_STORE_BYTES = 256 << 20  # of a local cluster: what crosses there is text
#: Said before Ray is imported: it tells nobody of its use, and leaves the variables of GPUs alone; workers
#: do not give way to all other programs (niceness 15), as a run of one process does not.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
}


class Node(NamedTuple):
    """A machine of the cluster that is there, and what of it Ray may give away."""

    id: str
    cpus: float
    memory: float  # bytes
    gpus: float


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A cluster, while inside: the one whose head is at HOST:PORT, or `local`: one for this process alone.

    Nothing that is printed meanwhile comes to stdout: what belongs there keeps the stream from before.

    Raises:
        UsageError: the extra is missing; nothing answers there, or not as a cluster that this Ray can join.
    """
    require_extra()
    _require_address(address)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        _begin(address)  # what Ray prints of its nodes would be among answers
        try:
            yield
        finally:
            ray.shutdown()


def nodes() -> list[Node]:
    """Those that are alive."""
    import ray

    found = [(node["NodeID"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return [
        Node(name, has.get("CPU", 0.0), has.get("memory", 0.0), has.get("GPU", 0.0)) for name, has in found
    ]


def _begin(address: str) -> None:
    import ray

    own = {"num_cpus": usable_processors(), "object_store_memory": _OBJECT_STORE_BYTES}
    given = own | {"include_dashboard": False} if address == LOCAL else {}
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address, **given, log_to_driver=False, logging_level="ERROR", configure_logging=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"--ray {address}: {_first_line(error)}",
            "All machines need the same versions of Python and Ray, and this one must be of the cluster "
            "(ray start --address). If it demands a token: RAY_AUTH_MODE=token.",
        ) from None
    finally:
        for number, handler in before.items():
            with suppress(ValueError):  # not the main thread: Ray has set none either
                signal.signal(number, handler)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:3]) or type(error).__name__


def _require_address(address: str) -> None:
    """Raises: UsageError: it is none, or nothing listens there: Ray itself would end the process."""
    if address in (LOCAL, FOUND_HERE):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UsageError(
            f"--ray {address}: no address",
            "Write HOST:PORT of the cluster's head (usually port 6379), auto, or local.",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:  # a host that can't be written as a name of the DNS
        raise UsageError(
            f"--ray {address}: nothing answers there: {reason_of(error)}",
            "Is the head running (ray start --head), and may this machine reach it?",
        ) from None


def require_places(places: int, share: Share) -> None:
    """Raises: AlignBeamError: no node has what a worker needs."""
    if places < 1:
        gpu = f", {share.gpus} GPU" if share.gpus else ""
        raise AlignBeamError(
            f"no machine of the cluster has {share.cpus} CPUs and {gib(share.memory)} of memory{gpu} to give",
            "Lower --threads, --context or --parallel, or give nodes more (ray start --num-cpus, --memory).",
        )
