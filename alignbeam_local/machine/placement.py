"""Which layers of the models go to the GPUs: the anchor's first, then the draft's, then the judge's.

llama.cpp's own fitting (`common_fit_params`) is not part of its library, and fits one model or two.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from ..config import Config
from ..errors import UsageError
from ..lm.devices import ON_PROCESSOR, DeviceId, Gpu, Offload
from ..models.gguf_header import GgufHeader
from ..roles import is_anchor, part_of
from .context_size import ContextSize
from .memory import Need, plan_of

#: Left free on every GPU: what llama.cpp leaves when it fits a model itself.
MARGIN_BYTES = 1 << 30
_ORDER = ("anchor", "draft", "judge")


@dataclass(frozen=True)
class Placement:
    """What each role takes, where each file's layers go, and what the machine's own memory must hold."""

    needs: dict[str, Need]
    offloads: dict[Path, Offload]  # by resolved path
    host_bytes: int
    taken: dict[DeviceId, dict[Path, int]]  # of each device that has layers, by file: bytes


class _File(NamedTuple):
    """The bytes of a file's layers, weights and caches of all its contexts; their buffers; whose it is."""

    layers: list[int]
    compute: int
    roles: tuple[str, ...]


def place(
    wanted: Mapping[str, tuple[GgufHeader, ContextSize]],
    gpus: Sequence[Gpu],
    config: Config,
    opened: Mapping[Path, Offload],
) -> Placement:
    """Plan all roles' memory.

    Args:
        gpus: what there is, that of servers too; none is a build or a machine without.
        opened: where weights are that are open, by resolved path: they stay there, and take nothing more.

    Raises:
        UsageError: a knob names a GPU that does not exist, or two roles of one file name different ones.
    """
    needs = plan_of(wanted, config, opened)
    free = {gpu.id: max(0, gpu.free - MARGIN_BYTES) for gpu in gpus}
    offloads: dict[Path, Offload] = {}
    taken: dict[DeviceId, dict[Path, int]] = {}
    host = sum(need.total for need in needs.values())
    for path, file in _files(wanted, needs).items():
        chosen = _chosen(gpus, config, file.roles)
        offload = opened.get(path) or _offload(file, chosen, free, config)
        for device, size in _taken(file, offload).items():
            free[device] = max(0, free.get(device, 0) - size)
            if size:
                taken.setdefault(device, {})[path] = size
        offloads[path] = offload
        if offload.layers and not any(gpu.is_host_memory for gpu in chosen):
            host -= sum(file.layers[-offload.layers : -1])  # the last one may have a twin that stays
    return Placement(needs, offloads, host, taken)


def _chosen(gpus: Sequence[Gpu], config: Config, roles: Sequence[str]) -> list[Gpu]:
    """The devices that the roles of one file may use: servers' first, as llama.cpp itself has them.

    What travels between machines is then one row a token: the last layers and the logits stay here.
    """
    [first, *others] = [_chosen_of(gpus, config, role) for role in roles]
    for role, other in zip(roles[1:], others, strict=True):
        if other != first:
            raise UsageError(
                f"{roles[0]} and {role} are one file, which is loaded once, and have different devices",
                f"Name the same for both: --{part_of(roles[0])}-gpu and --{part_of(role)}-gpu, "
                "or --rpc without a role.",
            )
    return first


def _chosen_of(gpus: Sequence[Gpu], config: Config, role: str) -> list[Gpu]:
    here = [gpu for gpu in gpus if not gpu.server]
    addresses = {server.address for server in config.servers if server.serves(part_of(role))}
    servers = [gpu for gpu in gpus if gpu.server in addresses]
    own = config.gpus_of(role)
    if own is None:
        return [*servers, *_usual(here, config, len(servers))]
    if own and max(own) >= len(here):
        raise _no_such_gpu(f"{role}_gpu", here)
    return [*servers, *(here[number] for number in own)]


def _usual(here: Sequence[Gpu], config: Config, num_before: int) -> list[Gpu]:
    """The GPUs of this machine, for a role that names none."""
    named = config.main_gpu + 1 if config.main_gpu is not None else len(config.gpu_shares) - num_before
    if here and named > len(here):
        raise _no_such_gpu("main_gpu" if config.main_gpu is not None else "tensor_split", here)
    return list(here if config.main_gpu is None else here[config.main_gpu : named])


def _no_such_gpu(knob: str, here: Sequence[Gpu]) -> UsageError:
    there = ", ".join(f"{number} = {gpu.name}" for number, gpu in enumerate(here)) or "none"
    return UsageError(f"{knob} names a GPU that does not exist", f"There are: {there}.")


def _files(
    wanted: Mapping[str, tuple[GgufHeader, ContextSize]], needs: Mapping[str, Need]
) -> dict[Path, _File]:
    """Each file once, in order of its first role.

    A context's cache lies where the layers are, so that all of a file's contexts count.
    """
    roles = sorted(wanted, key=_turn)
    files: dict[Path, _File] = {}
    for role in roles:
        (header, _), need = wanted[role], needs[role]
        path, own = header.path.resolve(), _layers(header, need)
        before = files.get(path, _File([0] * len(own), 0, ()))
        both = [sum(sizes) for sizes in zip(before.layers, own, strict=True)]
        files[path] = _File(both, before.compute + need.compute, (*before.roles, role))
    return files


def _turn(role: str) -> int:
    """When a role is placed: all anchors, and their twins, as the first one."""
    place = "anchor" if is_anchor(role) else role
    return _ORDER.index(place) if place in _ORDER else len(_ORDER)


def _layers(header: GgufHeader, need: Need) -> list[int]:
    """The bytes of each block with its part of the cache; then of what is in no block: the logits' weights.

    The embedding is counted with these, which is too much where it stays with the processor alone.
    """
    blocks = [size for _, size in sorted(header.block_bytes.items())]
    weights = [*blocks, header.bytes - sum(blocks)] if need.weights else [0] * (len(blocks) + 1)
    cache = -(-need.cache // max(1, len(blocks)))
    return [*(size + cache for size in weights[:-1]), weights[-1]]


def _offload(file: _File, devices: Sequence[Gpu], free: Mapping[DeviceId, int], config: Config) -> Offload:
    """As many layers as were asked for, or as fit: on this machine's GPUs alone where all fit there."""
    if not devices or config.gpu_layers == 0:
        return ON_PROCESSOR
    if config.gpu_layers != "auto":
        most = len(file.layers)
        count = most if config.gpu_layers == "all" else min(config.gpu_layers, most)
        return _offload_of(count, devices, free, config, counts=config.rpc != ())
    here = [gpu for gpu in devices if not gpu.server]
    near = _fitting(file, here, free, config) if here and not config.gpu_shares else ON_PROCESSOR
    if near.layers == len(file.layers):
        return near
    return _fitting(file, devices, free, config)


def _fitting(file: _File, devices: Sequence[Gpu], free: Mapping[DeviceId, int], config: Config) -> Offload:
    for count in range(len(file.layers), 0, -1):
        offload = _offload_of(count, devices, free, config, counts=True)
        if all(size <= free[device] for device, size in _taken(file, offload).items()):
            return offload
    return ON_PROCESSOR


def _offload_of(
    layers: int, devices: Sequence[Gpu], free: Mapping[DeviceId, int], config: Config, *, counts: bool
) -> Offload:
    """`counts`: by what was counted as free, where nothing else was said; else as llama.cpp finds it."""
    shares = config.gpu_shares[: len(devices)]
    if counts and not any(shares):
        shares = tuple(float(free[gpu.id]) for gpu in devices)
    return Offload(layers, tuple(gpu.id for gpu in devices), shares, config.split_mode)


def _taken(file: _File, offload: Offload) -> dict[DeviceId, int]:
    """The bytes on each device: layers are dealt out as llama.cpp does it."""
    taken = dict.fromkeys(offload.devices, 0)
    if not (offload.layers and offload.devices):
        return taken
    shares = [*offload.shares, *[0.0] * len(taken)][: len(taken)]
    ends = list(accumulate(shares if any(shares) else [1.0] * len(taken)))
    placed = file.layers[-offload.layers :]
    if offload.split != "layer":  # a part of every layer each
        parts = [end - start for start, end in zip([0.0, *ends], ends, strict=False)]
        sizes = [round(sum(placed) * part / ends[-1]) for part in parts]
    else:
        sizes = [0] * len(taken)
        for number, size in enumerate(placed):
            sizes[min(bisect_right(ends, number / offload.layers * ends[-1]), len(sizes) - 1)] += size
    return {
        device: size + file.compute if size else 0
        for device, size in zip(offload.devices, sizes, strict=True)
    }
