"""What answers depend on of a model: its file, how it is read, what is on record of it."""

from collections.abc import Sequence
from typing import Any

from ..config import Config
from ..heads.records import heads_hash
from ..judge.calibration import records_hash
from ..models.hashes import file_sha256, model_sha256
from ..models.registry import ModelFile, Registry
from ..result import AdapterCard, adapted_sha256

Json = dict[str, Any]


def about_model(file: ModelFile, role: str, adapters: Sequence[AdapterCard] = ()) -> Json:
    """The file, what is on it, and how it is read. Raises: ModelError: it can't be read."""
    about: Json = {"name": file.name, "sha256": model_sha256(file.path)}
    if adapters:
        about["adapters"] = [adapter.shown for adapter in adapters]
    return about | on_record(file, role, adapters)


def on_record(file: ModelFile, role: str, adapters: Sequence[AdapterCard] = ()) -> Json:
    """What models.toml and records of judges and heads make of a model. Raises: ModelError."""
    sha256 = model_sha256(file.path)
    found: Json = {}
    if file.entry.format:
        found["format"] = file.entry.format
    if file.entry.reasons is False:
        found["reasons"] = False
    if heads := heads_hash(role, adapted_sha256(sha256, adapters)):
        found["head"] = heads
    if role == "judge":
        asked = file.entry.judge.model_dump(mode="json", exclude_defaults=True)
        found |= {"judge": asked} if asked else {}
        found["calibration"] = records_hash(sha256)
    return found


def adapters_of(role: str, config: Config, registry: Registry) -> list[AdapterCard]:
    """What is on the model of this role. Raises: UsageError, ModelError: an adapter is not here."""
    found = []
    for spec in config.adapters if role == "draft" else ():
        file = registry.require(spec.file)
        found.append(AdapterCard(file.name, str(file.path), file_sha256(file.path), spec.scale))
    return found
