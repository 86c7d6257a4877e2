"""The RPC servers that were named: what they have, and what would lie there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..config import Config
from ..lm.devices import Gpu, Offload
from ..machine.memory import gib
from .findings import Finding

#: The knobs of a placement that asks for no device at all.
ON_PROCESSOR_ALONE: Mapping[str, Any] = {
    **dict.fromkeys(("draft_gpu", "anchor_gpu", "judge_gpu", "main_gpu", "tensor_split")),
    "rpc": (),
    "split_mode": "layer",
    "gpu_layers": 0,
}


def servers(config: Config, devices: Sequence[Gpu]) -> Iterator[Finding]:
    """One finding a server; they were asked already, and speak this build's protocol."""
    for server in config.servers:
        own = [gpu for gpu in devices if gpu.server == server.address]
        free = ", ".join(f"{gib(gpu.free)} of {gib(gpu.total)} free" for gpu in own)
        use = f"for the {server.role}" if server.role else "for every role"
        message = f"{server.address} answers, speaks this build's protocol, {use}: {free}"
        details = {"address": server.address, "role": server.role, "devices": [gpu._asdict() for gpu in own]}
        hint = "" if _is_here(server.host) else "Nothing on the way is encrypted or asks who is there."
        yield Finding("rpc", "ok", message, hint, details)


def where_layers_lie(offload: Offload) -> str:
    """The devices in words."""
    if not offload.servers:
        return "the GPU"
    parts = [*offload.servers, *(["the GPU"] if any(isinstance(d, int) for d in offload.devices) else [])]
    return " and ".join(parts)


def _is_here(host: str) -> bool:
    return host == "localhost" or host.startswith("127.")
