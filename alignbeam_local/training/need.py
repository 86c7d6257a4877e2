"""What a training takes of memory and disk, told before anything is loaded."""

import shutil
from pathlib import Path
from typing import NamedTuple

import psutil

from ..errors import AlignBeamError, ModelError
from ..machine.memory import gib

_FLOAT_BYTES = 4
#: transformers holds some tensors twice for a moment while it dequantises.
_LOADING = 1.6
#: Rows of the vocabulary's size that a step holds at once: logits, their logarithms, and both gradients.
_LOGIT_COPIES = 5
#: Of each parameter of the adapter: itself, its gradient, two moments, and a checkpoint of three of them.
_ADAPTER_COPIES = 7
#: Floats that a token leaves in a layer for the way back, for each number of its width.
_ACTIVATIONS = 40
#: Python, torch, transformers.
_PROGRAM_BYTES = 500 << 20


class ModelSize(NamedTuple):
    """Of a model: its parameters in all, those of one layer, and the sizes that batches hang on."""

    parameters: int
    layer_parameters: int
    width: int
    vocabulary: int
    layers: int


class TrainingNeed(NamedTuple):
    """Bytes: of memory while the model is loaded and while it is trained, and of disk."""

    loading: int
    training: int
    disk: int

    @property
    def memory(self) -> int:
        return max(self.loading, self.training)


def training_need(
    size: ModelSize,
    trained: int,
    *,
    adapter: int,
    batch: int,
    longest: int,
    longest_answer: int,
    disk: int,
    file: int = 0,
) -> TrainingNeed:
    """An estimate.

    Args:
        trained: how many layers are.
        adapter: its parameters.
        batch, longest, longest_answer: samples of a step, and the most tokens of one and of its answer.
        disk: bytes of states and checkpoints.
        file: bytes of the base's file, which llama.cpp opens beside it to ask prompts and to try the adapter.
    """
    head = size.vocabulary * size.width
    kept = trained * size.layer_parameters + head
    tokens = batch * longest
    step = tokens * size.width * _ACTIVATIONS * trained
    step += batch * longest_answer * size.vocabulary * _LOGIT_COPIES
    kept += _ADAPTER_COPIES * adapter
    loading = int(_LOADING * _FLOAT_BYTES * size.parameters) + _PROGRAM_BYTES
    return TrainingNeed(loading, _FLOAT_BYTES * (kept + step) + _PROGRAM_BYTES + file, disk)


def require_room(need: TrainingNeed, out: Path, states: Path, free_memory: int | None = None) -> None:
    """See that it fits.

    Args:
        out, states: where checkpoints and kept states will lie.

    Raises:
        ModelError: it needs more memory than is free.
        AlignBeamError: it needs more room on a disk than there is.
    """
    free = psutil.virtual_memory().available if free_memory is None else free_memory
    if need.memory > free:
        raise ModelError(
            f"not enough memory: training needs about {gib(need.memory)}, {gib(free)} free",
            "Lower --batch, --layers or --context, or take a smaller model.",
        )
    for place in (out, states):
        there = next(path for path in (place, *place.absolute().parents) if path.is_dir())
        if shutil.disk_usage(there).free < need.disk:
            raise AlignBeamError(
                f"not enough room on the disk of {place}: about {gib(need.disk)} needed",
                "Free some, or name another place: --out, ALIGNBEAM_CACHE_DIR.",
            )
