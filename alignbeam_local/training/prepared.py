"""What is the same in every step, computed once and kept: states below the cut, and the reference's own.

A file holds some samples; it is written whole or not at all, and found again by all that it depends on.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..paths import ensure_dir, open_atomic
from .run_files import told_if_full
from .samples import Sample
from .trunk import Trunk

_SAMPLES_A_FILE = 16
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Prepared:
    """One sample's states, in fp32.

    Attributes:
        below: (L, width): what enters the first trained layer, of all tokens but the last.
        full: (T, width): behind the final norm, without an adapter, where the answer's tokens are told.
        log_sums: (T,): of the logits that these make.
        post: (T, width): as `full`, without the question; None where it was not asked for.
    """

    below: Any
    full: Any
    log_sums: Any
    post: Any | None


class PreparedFolder:
    """The states of some samples on disk; `make` computes those that are missing."""

    def __init__(
        self, parent: Path, base: str, first: int, samples: Sequence[Sample], start: Sequence[int] | None
    ) -> None:
        """Name the folder.

        Args:
            base: what the model's weights are known by.
            first: the first trained layer.
            start: the ids before an answer without its question; None: no state without it is wanted.
        """
        self._samples, self._start = samples, start
        versions = [version("torch"), version("transformers")]
        rows = [(sample.prompt, sample.answer) for sample in samples]
        key = json.dumps([base, first, rows, start, versions])
        self.path = parent / hashlib.sha256(key.encode()).hexdigest()[:32]

    def size(self, width: int) -> int:
        """The bytes that what is not there yet takes."""
        per_token = 2 if self._start is None else 3
        tokens = sum(len(s.ids) + (per_token - 1) * len(s.answer) for s in self._samples)
        there = sum(file.stat().st_size for file in self.path.glob("*.safetensors"))
        return max(0, _FLOAT_BYTES * tokens * width - there)

    def make(self, trunk: Trunk) -> Iterator[int]:
        """Compute and keep what is missing; yields how many samples are there.

        Raises:
            AlignBeamError: there is no room on the disk.
        """
        ensure_dir(self.path)
        for number, part in enumerate(self._parts):
            if not self._is_made(number):
                tensors: dict[str, Any] = {}
                for index, sample in part:
                    found = self._computed(trunk, sample)
                    tensors |= {f"{index}.{name}": value.contiguous() for name, value in found.items()}
                self._write(number, save(tensors))
            yield part[-1][0] + 1

    def __getitem__(self, index: int) -> Prepared:
        with safe_open(self._file(index // _SAMPLES_A_FILE), "pt") as file:
            names = ["below", "full", "log_sums", *([] if self._start is None else ["post"])]
            found = {name: file.get_tensor(f"{index}.{name}") for name in names}
        return Prepared(found["below"], found["full"], found["log_sums"], found.get("post"))

    @property
    def _parts(self) -> list[list[tuple[int, Sample]]]:
        rows = list(enumerate(self._samples))
        return [rows[i : i + _SAMPLES_A_FILE] for i in range(0, len(rows), _SAMPLES_A_FILE)]

    def _file(self, number: int) -> Path:
        return self.path / f"{number:05}.safetensors"

    def _is_made(self, number: int) -> bool:
        """A file that is damaged is made again."""
        with suppress(OSError, SafetensorError), safe_open(self._file(number), "pt"):
            return True
        return False

    def _write(self, number: int, content: bytes) -> None:
        path = self._file(number)
        with told_if_full(path), open_atomic(path) as file:
            file.write(content)

    def _computed(self, trunk: Trunk, sample: Sample) -> dict[str, Any]:
        below, full = _read(trunk, sample.ids[:-1], len(sample.answer))
        with torch.no_grad():
            found = {"below": below, "full": full, "log_sums": trunk.logits(full).logsumexp(-1)}
        if self._start is not None:
            ids = [*self._start, *sample.answer[:-1]]
            found["post"] = _read(trunk, ids, len(sample.answer))[1]
        return found


def _read(trunk: Trunk, ids: Sequence[int], last: int) -> tuple[Any, Any]:
    """The states below the cut, and the last so many behind the final norm."""
    below = trunk.below(ids)
    with torch.no_grad():
        above = trunk.above(below[None], torch.ones(1, len(ids), dtype=torch.long))
    return below, above[0, -last:].clone()
