"""The LoRA adapters that a configuration puts on its draft: found, and checked against it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..config import Config
from ..errors import UsageError
from ..models.adapter import Adapter, require_adapter
from ..models.gguf_header import GgufHeader
from ..models.hashes import file_sha256
from ..models.pull import check_sha256
from ..models.registry import ModelFile, Registry
from ..result import AdapterCard
from .probe import TriedAdapter


class FoundAdapter(NamedTuple):
    """An adapter that fits its model, and how much of it counts."""

    file: ModelFile
    about: Adapter
    sha256: str
    scale: float

    @property
    def tried(self) -> TriedAdapter:
        """As the probe takes it."""
        return TriedAdapter(self.file.path, self.sha256, self.scale)

    @property
    def card(self) -> AdapterCard:
        """As results tell of it."""
        return AdapterCard(self.file.name, str(self.file.path), self.sha256, self.scale)


def find_adapters(
    config: Config, registry: Registry, base: Path, base_sha256: str
) -> tuple[FoundAdapter, ...]:
    """The adapters of the draft, whose file and sha256 these are; llama.cpp has not seen them yet.

    Raises:
        UsageError: a name that stands for nothing, or one file twice.
        ModelError: an adapter is not there, damaged, not the file that its name promises, or does not fit.
    """
    found: dict[str, FoundAdapter] = {}
    for spec in config.adapters:
        file = registry.require(spec.file)
        sha256 = file_sha256(file.path)
        check_sha256(file, sha256)
        if sha256 in found:  # llama.cpp would keep one scale for both
            raise UsageError(f"the adapter {file.path} is there twice", "Name it once, with its scale.")
        about = require_adapter(file.path, base, base_sha256)
        found[sha256] = FoundAdapter(file, about, sha256, spec.scale)
    return tuple(found.values())


def with_adapters(header: GgufHeader, adapters: Sequence[FoundAdapter]) -> GgufHeader:
    """The header of a model that takes the adapters' bytes besides its own."""
    return dataclasses.replace(header, bytes=header.bytes + sum(one.about.bytes for one in adapters))
