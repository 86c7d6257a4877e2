"""What answers depend on of a model: its file, how it is read, what is on record of it."""

from ..heads.records import heads_hash
from ..judge.calibration import records_hash
from ..models.hashes import model_sha256
from ..models.registry import ModelFile
from .crew import Json


def about_model(file: ModelFile, role: str) -> Json:
    """The file, and what models.toml and the records of judges and heads make of it, as manifests say."""
    about: Json = {"name": file.name, "sha256": model_sha256(file.path)}
    if file.entry.format:
        about["format"] = file.entry.format
    if file.entry.reasons is False:
        about["reasons"] = False
    if found := heads_hash(role, about["sha256"]):
        about["head"] = found
    if role == "judge":
        asked = file.entry.judge.model_dump(mode="json", exclude_defaults=True)
        about |= {"judge": asked} if asked else {}
        about["calibration"] = records_hash(about["sha256"])
    return about
