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
from ..lm.devices import ON_PROCESSOR, Gpu, Offload
from ..models.gguf_header import GgufHeader
from ..roles import is_anchor
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


class _File(NamedTuple):
    """The bytes of a file's layers, weights and caches of all its contexts; and its contexts' buffers."""

    layers: list[int]
    compute: int


def place(
    wanted: Mapping[str, tuple[GgufHeader, ContextSize]],
    gpus: Sequence[Gpu],
    config: Config,
    opened: Mapping[Path, Offload],
) -> Placement:
    """Plan all roles' memory.

    Args:
        gpus: what there is; none is a build or a machine without.
        opened: where weights are that are open, by resolved path: they stay there, and take nothing more.

    Raises:
        UsageError: `main_gpu` or `tensor_split` names a GPU that does not exist.
    """
    needs = plan_of(wanted, config, opened)
    chosen = _chosen(gpus, config)
    free = [max(0, gpu.free - MARGIN_BYTES) for gpu in chosen]
    offloads: dict[Path, Offload] = {}
    host = sum(need.total for need in needs.values())
    for path, file in _files(wanted, needs).items():
        offload = opened.get(path) or _offload(file, free, chosen, config)
        taken = _taken(file, offload, len(chosen))
        free = [max(0, before - bytes_) for before, bytes_ in zip(free, taken, strict=True)]
        offloads[path] = offload
        if offload.layers and not any(gpu.is_host_memory for gpu in chosen):
            host -= sum(file.layers[-offload.layers : -1])  # the last one may have a twin that stays
    return Placement(needs, offloads, host)


def _chosen(gpus: Sequence[Gpu], config: Config) -> list[Gpu]:
    """The GPUs that may be used."""
    named = config.main_gpu + 1 if config.main_gpu is not None else len(config.gpu_shares)
    if gpus and named > len(gpus):
        knob = "main_gpu" if config.main_gpu is not None else "tensor_split"
        there = ", ".join(f"{number} = {gpu.name}" for number, gpu in enumerate(gpus))
        raise UsageError(f"{knob} names a GPU that does not exist", f"There are: {there}.")
    return list(gpus if config.main_gpu is None else gpus[config.main_gpu : named])


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
        before = files.get(path, _File([0] * len(own), 0))
        both = [sum(sizes) for sizes in zip(before.layers, own, strict=True)]
        files[path] = _File(both, before.compute + need.compute)
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


def _offload(file: _File, free: Sequence[int], gpus: Sequence[Gpu], config: Config) -> Offload:
    """As many layers as were asked for, or as fit."""
    layers = file.layers
    devices = tuple(gpu.number for gpu in gpus)
    if not gpus or config.gpu_layers == 0:
        return ON_PROCESSOR
    if config.gpu_layers != "auto":
        count = len(layers) if config.gpu_layers == "all" else min(config.gpu_layers, len(layers))
        return Offload(count, devices, config.gpu_shares)
    shares = config.gpu_shares or tuple(map(float, free))
    for count in range(len(layers), 0, -1):
        offload = Offload(count, devices, shares)
        taken = _taken(file, offload, len(gpus))
        if all(size <= room for size, room in zip(taken, free, strict=True)):
            return offload
    return ON_PROCESSOR


def _taken(file: _File, offload: Offload, num_gpus: int) -> list[int]:
    """The bytes on each GPU: layers are dealt out as llama.cpp does it."""
    taken = [0] * num_gpus
    if not (offload.layers and num_gpus):
        return taken
    shares = [*offload.shares, *[0.0] * num_gpus][:num_gpus]
    ends = list(accumulate(shares if any(shares) else [1.0] * num_gpus))
    for number, size in enumerate(file.layers[-offload.layers :]):
        gpu = min(bisect_right(ends, number / offload.layers * ends[-1]), num_gpus - 1)
        taken[gpu] += size
    return [size + file.compute if size else 0 for size in taken]
