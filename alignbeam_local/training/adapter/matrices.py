"""The matrices of a base that an adapter is trained on: how large it is, and what no adapter can be."""

from collections.abc import Iterator
from typing import NamedTuple

from ...errors import UsageError
from ..settings import Target, TrainingSettings
from .adapter_gguf import BaseModel
from .lora import PLACES


class Matrix(NamedTuple):
    """A matrix that gets an A of (rank, inputs) and a B of (outputs, rank)."""

    target: Target
    outputs: int
    inputs: int


def require_fit(settings: TrainingSettings, base: BaseModel, layers: int) -> None:
    """See that a base of so many layers can have such an adapter; the default of `layers` fits any.

    Raises:
        UsageError: more layers than there are, or a rank that is larger than a side of a matrix.
    """
    if settings.layers > max(layers, TrainingSettings.layers):
        raise UsageError(
            f"--layers {settings.layers}: the model has {layers} layers",
            f"At most {layers}; 0 is all of them.",
        )
    smallest = min(matrices(settings, base, layers), key=lambda one: min(one[1:]), default=None)
    if smallest and settings.rank > min(smallest[1:]):
        raise UsageError(
            f"--rank {settings.rank} is more than {smallest.target} has, which is "
            f"{smallest.outputs} x {smallest.inputs}",
            f"At most {min(smallest[1:])}, or leave {smallest.target} out of --targets.",
        )


def num_parameters(settings: TrainingSettings, base: BaseModel, layers: int) -> int:
    """Of all A and B."""
    return sum(settings.rank * (one.outputs + one.inputs) for one in matrices(settings, base, layers))


def matrices(settings: TrainingSettings, base: BaseModel, layers: int) -> Iterator[Matrix]:
    """Those of the trained layers that the file has, of a base of so many layers."""
    for number in range(settings.first_layer(layers), layers):
        for target in settings.targets:
            if shape := base.shape(PLACES[target], number):
                yield Matrix(target, *shape)
