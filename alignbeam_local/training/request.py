"""What was asked of a training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..evaluation.suites.suites import Item
from .settings import TrainingSettings


@dataclass(frozen=True)
class TrainingRequest:
    """Files in, a directory out.

    Attributes:
        data, held_out: conversations in JSON Lines; `held_out` are only measured.
        out: the run's directory: a new one, or one to go on with.
        weights: a Hugging Face folder of the base; None: its GGUF file, dequantised.
        tokens: a file of safety tokens; None: those of rejections.
        rejections: how the model declines, one a line; None: the shipped ones.
        threads: of torch.
        asked: prompts that are asked with every checkpoint.
        keep_adapters: the adapter of each checkpoint is kept too.
    """

    data: Path
    out: Path
    settings: TrainingSettings
    threads: int
    held_out: Path | None = None
    weights: Path | None = None
    tokens: Path | None = None
    rejections: Path | None = None
    asked: Sequence[Item] = ()
    keep_adapters: bool = False
