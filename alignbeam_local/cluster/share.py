"""What a worker takes of its machine, told from its models before anything is loaded."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..config import Config
from ..machine.context_size import ContextSize
from ..machine.memory import SLACK_BYTES, plan_of
from ..models.gguf_header import read_header
from ..models.registry import Registry


class Share(NamedTuple):
    """CPUs, bytes of memory, GPUs."""

    cpus: int
    memory: int
    gpus: int


class Opened(NamedTuple):
    """What a worker has open at once: knobs, and by role the model and the size of its context."""

    config: Config
    models: Mapping[str, tuple[str, ContextSize]]


def share_of(sets: Iterable[Opened], registry: Registry, cpus: int, *, has_gpus: bool) -> Share:
    """The largest of several sets, one of which is open at a time.

    A GPU is taken where the cluster has any, and the knobs leave layers to it.

    Raises:
        UsageError, ModelError: a model that is not here, or can't be read.
    """
    sets = list(sets)
    memory = max(_memory(opened, registry) for opened in sets)
    wants_gpu = has_gpus and any(opened.config.gpu_layers != 0 for opened in sets)
    return Share(cpus, memory, int(wants_gpu))


def _memory(opened: Opened, registry: Registry) -> int:
    wanted = {
        role: (read_header(registry.require(spec).path), size) for role, (spec, size) in opened.models.items()
    }
    return SLACK_BYTES + sum(need.total for need in plan_of(wanted, opened.config).values())
