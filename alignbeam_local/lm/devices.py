"""GPUs as llama.cpp sees them, and which layers of a model go there."""

from typing import NamedTuple


class Gpu(NamedTuple):
    """A device that layers can be placed on; `number` is its place among all of llama.cpp's devices."""

    number: int
    name: str
    free: int  # bytes
    total: int
    is_host_memory: bool  # it has none of its own


class Offload(NamedTuple):
    """The last `layers` of a model on these devices, in these shares, or else by what is free.

    A model of n blocks has n + 1 layers: the last one makes the logits.
    """

    layers: int = 0
    devices: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()


ON_PROCESSOR = Offload()
