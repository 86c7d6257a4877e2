"""A LoRA adapter as PEFT keeps it: `adapter_config.json` and `adapter_model.safetensors`."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ModelError
from ...reading import read_text
from .safetensors_file import Tensors, read_tensors, tensor_bytes

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Array = npt.NDArray[np.float32]

_NAME = re.compile(
    r"base_model\.model\.(?:model\.)?(?:language_model\.)?(?P<of>layers\.\d+\.\w+\.\w+)"
    r"\.lora_(?P<half>[AB])(?:\.default)?\.weight"
)
#: What llama.cpp's adapters cannot hold: the key of PEFT's configuration, and how a person calls it.
_UNKNOWN_TO_LLAMA_CPP = {
    "use_dora": "DoRA",
    "lora_bias": "biases of its own (lora_bias)",
    "modules_to_save": "whole modules beside the adapter (modules_to_save)",
    "trainable_token_indices": "trained embeddings (trainable_token_indices)",
    "target_parameters": "parameters that are no layers (target_parameters)",
    "alpha_pattern": "an alpha for each matrix (alpha_pattern)",
    "rank_pattern": "a rank for each matrix (rank_pattern)",
    "layer_replication": "replicated layers (layer_replication)",
    "fan_in_fan_out": "matrices that lie the other way round (fan_in_fan_out)",
    "alora_invocation_tokens": "an activated LoRA (alora_invocation_tokens)",
    "use_qalora": "QA-LoRA",
    "megatron_config": "a Megatron configuration",
}
#: Beginnings of A and B that leave the base as it is: others change its weights, and fit only those.
_OWN_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")
_HINT = "Only plain LoRA can be exported: train without it, or merge the adapter into the model."


@dataclass(frozen=True)
class PeftAdapter:
    """LoRA by the matrix's name, as `layers.22.self_attn.q_proj`.

    Attributes:
        rank, alpha: an update is alpha / rank times B A, also where PEFT's rsLoRA divides by its root.
        pairs: A, (rank, in), and B, (out, rank).
    """

    rank: int
    alpha: float
    pairs: dict[str, tuple[Array, Array]]


def read_peft(folder: Path) -> PeftAdapter:
    """The adapter of a folder.

    Raises:
        UsageError, ModelError: there is none, it is damaged, or it has what a LoRA of llama.cpp has not.
    """
    config = _config(folder / CONFIG)
    _require_plain(folder, config)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float) or not 0 < alpha < 1e9:
        raise ModelError(f"{folder / CONFIG} has no rank or no alpha", "r and lora_alpha must be above 0.")
    pairs = _pairs(folder, read_tensors(folder / WEIGHTS), rank)
    folded = alpha * rank**0.5 if config.get("use_rslora") else alpha
    return PeftAdapter(rank, float(folded), pairs)


def peft_files(adapter: PeftAdapter, base: str) -> dict[str, bytes]:
    """The files of PEFT's folder by name; `base` says whose adapter it is."""
    layers = sorted({int(name.split(".")[1]) for name in adapter.pairs})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted({name.rpartition(".")[2] for name in adapter.pairs}),
        "layers_to_transform": layers,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }
    tensors = {
        f"base_model.model.model.{name}.lora_{half}.weight": value
        for name, pair in adapter.pairs.items()
        for half, value in zip("AB", pair, strict=True)
    }
    return {CONFIG: json.dumps(config, indent=2).encode() + b"\n", WEIGHTS: tensor_bytes(tensors)}


def _config(path: Path) -> Mapping[str, Any]:
    hint = f"Give PEFT's folder, with {CONFIG} and {WEIGHTS}."
    try:
        found = json.loads(read_text(path, hint))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no JSON: {error}", hint) from None
    if not isinstance(found, dict) or str(found.get("peft_type")).upper() != "LORA":
        kind = found.get("peft_type") if isinstance(found, dict) else None
        raise ModelError(f"{path} is no LoRA adapter's: peft_type is {str(kind)[:64]!r}", _HINT)
    return found


def _require_plain(folder: Path, config: Mapping[str, Any]) -> None:
    for key, name in _UNKNOWN_TO_LLAMA_CPP.items():
        if config.get(key):
            raise ModelError(f"the adapter {folder} has {name}", _HINT)
    if (beginning := config.get("init_lora_weights")) not in _OWN_BEGINNINGS:
        raise ModelError(
            f"the adapter {folder} changes its base (init_lora_weights = {str(beginning)[:64]})",
            "Convert it to plain LoRA with PEFT first, or merge the adapter into the model.",
        )
    if config.get("bias", "none") != "none":
        raise ModelError(f"the adapter {folder} has biases (bias = {str(config['bias'])[:64]})", _HINT)


def _pairs(folder: Path, tensors: Tensors, rank: int) -> dict[str, tuple[Array, Array]]:
    halves: dict[str, dict[str, Array]] = {}
    for name, value in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise ModelError(f"the adapter {folder} holds {name[:128]}, which is no LoRA of a layer", _HINT)
        if not np.isfinite(value).all():
            raise ModelError(f"the adapter {folder} holds values that are no numbers: {name}", _HINT)
        halves.setdefault(match["of"], {})[match["half"]] = value
    if not halves:
        raise ModelError(f"the adapter {folder} holds no weights", _HINT)
    for name, own in halves.items():
        if len(own) < 2:
            raise ModelError(f"the adapter {folder} holds only half of {name}", _HINT)
        if own["A"].ndim != 2 or own["B"].ndim != 2 or own["A"].shape[0] != rank or own["B"].shape[1] != rank:
            raise ModelError(f"the adapter {folder}: {name} is not of rank {rank}", _HINT)
    return {name: (own["A"], own["B"]) for name, own in halves.items()}
