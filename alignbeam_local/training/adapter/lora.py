"""LoRA on a model of transformers: what is added to a matrix's output, and the numbers of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ...errors import UsageError
from ..settings import Target

#: Where a target lies in a layer.
PLACES: dict[Target, str] = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


class LoraPair(NamedTuple):
    """The parameters of one matrix: A is (rank, in), B is (out, rank)."""

    a: Any
    b: Any


#: By the matrix's name, as `layers.22.self_attn.q_proj`.
Adapter = dict[str, LoraPair]


def attach(
    layers: Mapping[int, Any], targets: Sequence[Target], *, rank: int, alpha: float, seed: int
) -> Adapter:
    """Put a LoRA on each target of these layers: A uniform as PEFT draws it, B zero, so nothing changes yet.

    Raises:
        UsageError: a layer has no such matrix.
    """
    random = np.random.default_rng(seed)
    adapter: Adapter = {}
    for number, layer in layers.items():
        for target in targets:
            linear = _linear(layer, target)
            outputs, inputs = linear.weight.shape
            a = random.uniform(-(inputs**-0.5), inputs**-0.5, (rank, inputs)).astype(np.float32)
            pair = LoraPair(_parameter(torch.from_numpy(a)), _parameter(torch.zeros(outputs, rank)))
            linear.register_forward_hook(_hook(pair, alpha / rank))
            adapter[f"layers.{number}.{PLACES[target]}"] = pair
    return adapter


def parameters(adapter: Adapter) -> Iterable[Any]:
    """All that is trained."""
    return (parameter for pair in adapter.values() for parameter in pair)


def is_finite(adapter: Adapter) -> bool:
    """Whether all of its values are numbers."""
    return all(bool(torch.isfinite(parameter).all()) for parameter in parameters(adapter))


def _linear(layer: Any, target: Target) -> Any:
    try:
        return layer.get_submodule(PLACES[target])
    except AttributeError:
        raise UsageError(
            f"this model's layers have no {PLACES[target]}", "Leave it out of --targets."
        ) from None


def _parameter(value: Any) -> Any:
    return torch.nn.Parameter(value.contiguous())


def _hook(pair: LoraPair, scale: float) -> Callable[[Any, Any, Any], Any]:
    return lambda _, inputs, output: output + scale * (inputs[0] @ pair.a.T) @ pair.b.T
