"""Whether the models fit on described machines, and where their layers would lie there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..config import Config
from ..lm.devices import DeviceId, Gpu
from ..machine.context_size import context_sizes
from ..machine.memory import Need, fits
from ..machine.placement import Placement, place
from ..roles import file_role
from .machines import MachineSpec
from .models import PlanModel

#: What the system and other programs keep of a machine's memory.
_SYSTEM_SHARE = 0.1


class Part(NamedTuple):
    """A share of a model's weights on one device, which another machine has if `is_far`."""

    device: str
    kind: str  # gpu, or cpu
    share: float
    is_far: bool


@dataclass(frozen=True)
class Fit:
    """Where everything lies. Bytes; `devices` by their names in words.

    Attributes:
        fits: whether all of it has room.
        needs: what each role takes: weights, cache, logits, buffers.
        devices: what is taken of each device.
        host_bytes: what is taken of the machine's own memory, and what is there of it.
        parts: of each role, where its weights are.
    """

    fits: bool
    needs: dict[str, Need]
    devices: dict[str, int]
    host_bytes: int
    host_free: int
    parts: dict[str, tuple[Part, ...]]


def fit(models: Mapping[str, PlanModel], config: Config, machine: MachineSpec, together: int = 1) -> Fit:
    """Place the models as loading would, on devices that nothing else uses.

    Args:
        together: how many such machines share one set of models, over RPC.
    """
    gpus = _devices(machine, together)
    config = config.with_values({"rpc": tuple(dict.fromkeys(gpu.server for gpu in gpus if gpu.server))})
    sizes = context_sizes(config)
    of_role = {role: models[file_role(role)] for role in sizes}
    wanted = {role: (model.header, sizes[role]) for role, model in of_role.items()}
    placement = place(wanted, gpus, config, {})
    free = round(machine.ram * (1 - _SYSTEM_SHARE))
    host = max(placement.host_bytes, 0)
    return Fit(
        fits=fits(host, free),
        needs=placement.needs,
        devices={_name(device): sum(files.values()) for device, files in placement.taken.items()},
        host_bytes=host,
        host_free=free,
        parts={role: _parts(model, placement, machine) for role, model in of_role.items()},
    )


def _devices(machine: MachineSpec, together: int) -> list[Gpu]:
    """Those of the first machine, and behind servers those of the others: without a GPU their memory."""
    here = [Gpu(number, f"GPU {number}", size, size, False) for number, size in enumerate(machine.gpus)]
    sizes = machine.gpus or (round(machine.ram * (1 - _SYSTEM_SHARE)),)
    there = [
        Gpu(number, _server(index), size, size, False, _server(index))
        for index in range(2, together + 1)
        for number, size in enumerate(sizes)
    ]
    return [*there, *here]


def _server(index: int) -> str:
    return f"machine{index}:50052"


def _name(device: DeviceId) -> str:
    if isinstance(device, int):
        return f"gpu {device}"
    address, _, number = device.rpartition("#")
    return f"{address.partition(':')[0]} {number}"


def _parts(model: PlanModel, placement: Placement, machine: MachineSpec) -> tuple[Part, ...]:
    """By the blocks on the devices, divided as their memory is taken; the rest is the processor's."""
    path = model.header.path.resolve()
    layers = placement.offloads[path].layers
    blocks = [size for _, size in sorted(model.header.block_bytes.items())]
    sizes = [*blocks, model.header.bytes - sum(blocks)]
    offloaded = sum(sizes[-layers:]) / sum(sizes) if layers else 0.0
    taken = {device: files[path] for device, files in placement.taken.items() if path in files}
    kind = "gpu" if machine.gpus else "cpu"
    parts = [
        Part(_name(device), kind, offloaded * size / sum(taken.values()), isinstance(device, str))
        for device, size in taken.items()
    ]
    return (*parts, Part("processor", "cpu", 1 - offloaded, False)) if offloaded < 1 else tuple(parts)
