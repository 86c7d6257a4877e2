"""What answers depend on of a model: its file, how it is read, what is on record of it."""

from collections.abc import Sequence

from ..config import Config
from ..heads.records import heads_hash
from ..judge.calibration import records_hash
from ..models.hashes import file_sha256, model_sha256
from ..models.registry import ModelFile, Registry
from ..result import AdapterCard, adapted_sha256
from .crew import Json


def about_model(file: ModelFile, role: str, adapters: Sequence[AdapterCard] = ()) -> Json:
    """The file, what is on it, and what models.toml and records of judges and heads make of it."""
    about: Json = {"name": file.name, "sha256": model_sha256(file.path)}
    if file.entry.format:
        about["format"] = file.entry.format
    if file.entry.reasons is False:
        about["reasons"] = False
    if adapters:
        about["adapters"] = [adapter.shown for adapter in adapters]
    if found := heads_hash(role, adapted_sha256(about["sha256"], adapters)):
        about["head"] = found
    if role == "judge":
        asked = file.entry.judge.model_dump(mode="json", exclude_defaults=True)
        about |= {"judge": asked} if asked else {}
        about["calibration"] = records_hash(about["sha256"])
    return about


def adapters_of(role: str, config: Config, registry: Registry) -> list[AdapterCard]:
    """What is on the model of this role. Raises: UsageError, ModelError: an adapter is not here."""
    found = []
    for spec in config.adapters if role == "draft" else ():
        file = registry.require(spec.file)
        found.append(AdapterCard(file.name, str(file.path), file_sha256(file.path), spec.scale))
    return found
