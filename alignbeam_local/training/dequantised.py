"""The base model in transformers, from its GGUF file or a Hugging Face folder, compared with llama.cpp."""

from collections.abc import Sequence
from contextlib import redirect_stderr
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..errors import ModelError, UsageError
from ..models.hashes import file_sha256
from .losses import log_softmax

Rows = npt.NDArray[np.float32]


class Probe(NamedTuple):
    """Some ids, and what llama.cpp makes of them.

    Attributes:
        ids: a prompt and the begin of its answer.
        first: where the first row stands.
        rows: (R, vocabulary) logits behind the ids from `first` on.
    """

    ids: tuple[int, ...]
    first: int
    rows: Rows


class Agreement(NamedTuple):
    """How near transformers' model is to llama.cpp's: the mean KL in nats, and how often the top is one."""

    kl: float
    same_top: float
    num_rows: int


def require_folder(folder: Path) -> None:
    """Raises: UsageError: no folder of Hugging Face's with a model in safetensors."""
    if folder.is_dir() and _weights_of(folder) and (folder / "config.json").is_file():
        return
    hint = (
        "Name the folder of the model that the GGUF file was made from, with its config.json and safetensors."
    )
    if folder.is_file():
        raise UsageError(
            f"--weights {folder} is a file, not a folder", f"{hint} Of a GGUF file: --base alone."
        )
    lack = "holds no config.json or no safetensors" if folder.is_dir() else "is not there"
    raise UsageError(f"the folder --weights {folder} {lack}", hint)


def folder_sha256(folder: Path) -> str:
    """A hash over those of all weights and of the configuration."""
    lines = [f"{file.name} {file_sha256(file)}" for file in [*_weights_of(folder), folder / "config.json"]]
    return sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _weights_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def load_model(weights: Path) -> Any:
    """A causal language model in fp32, not to be trained as it is.

    Args:
        weights: a GGUF file, which is dequantised, or a folder of Hugging Face's with safetensors.

    Raises:
        ModelError: transformers can't read it.
    """
    import transformers

    folder, options = (weights, {}) if weights.is_dir() else (weights.parent, {"gguf_file": weights.name})
    try:
        with redirect_stderr(StringIO()):  # bars and reports of its own
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, **options
            )
    except Exception as error:  # foreign code, which raises anything of a file that it does not know
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"transformers cannot read {weights}: {reason}",
            "Give the model's Hugging Face folder as well: --weights DIR.",
        ) from None
    return model.eval().requires_grad_(False)


def agreement(model: Any, probes: Sequence[Probe]) -> Agreement:
    """How transformers' model and llama.cpp's differ on the same ids."""
    kls, same = [], []
    for probe in probes:
        with torch.inference_mode():
            logits = model(torch.tensor([probe.ids])).logits[0, probe.first :].numpy()
        size = min(logits.shape[1], probe.rows.shape[1])  # a matrix may be padded
        own, theirs = (log_softmax(rows[:, :size].astype(np.float64)) for rows in (logits, probe.rows))
        kls += list((np.exp(theirs) * (theirs - own)).sum(-1))
        same += list(own.argmax(-1) == theirs.argmax(-1))
    return Agreement(float(np.mean(kls)), float(np.mean(same)), len(kls))


def require_agreement(found: Agreement, most: float, weights: Path) -> None:
    """Raises: ModelError: an adapter trained on these weights would not fit what llama.cpp runs."""
    if not found.kl <= most:  # not a number is no agreement
        raise ModelError(
            f"{weights} in transformers is not what llama.cpp runs: KL {found.kl:.4f} on {found.num_rows} "
            f"positions, at most {most} is allowed",
            "Give the weights that the GGUF file was made from: --weights DIR; "
            "a strongly quantised file differs from them by itself (--max-kl).",
        )
