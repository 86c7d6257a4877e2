"""GPUs as llama.cpp sees them, here or behind a server, and which layers of a model go there."""

from typing import NamedTuple

from ..knobs.machine import SplitMode

#: A device of this machine by its place among llama.cpp's, or one of a server's as `HOST:PORT#NUMBER`.
DeviceId = int | str


class Gpu(NamedTuple):
    """A device that layers can be placed on; `number` is its place among all of llama.cpp's devices there."""

    number: int
    name: str
    free: int  # bytes
    total: int
    is_host_memory: bool  # it has none of its own
    server: str = ""  # the address of the RPC server that has it; empty: it is this machine's

    @property
    def id(self) -> DeviceId:
        return f"{self.server}#{self.number}" if self.server else self.number


class Offload(NamedTuple):
    """The last `layers` of a model on these devices, in these shares, or else by what is free.

    A model of n blocks has n + 1 layers: the last one makes the logits.
    """

    layers: int = 0
    devices: tuple[DeviceId, ...] = ()
    shares: tuple[float, ...] = ()
    split: SplitMode = "layer"

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses of the servers that layers go to, each once."""
        found = (device.rpartition("#")[0] for device in self.devices if isinstance(device, str))
        return tuple(dict.fromkeys(found)) if self.layers else ()


ON_PROCESSOR = Offload()
