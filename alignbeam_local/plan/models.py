"""The models of a plan: their headers, from this machine or from the hub."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..bench.floor import Weights, weights_of
from ..config import Config
from ..errors import ModelError
from ..models.gguf_header import GgufHeader, header_of, require_model
from ..models.gguf_reader import OTHER_FILE, Contents, Tensor, read_contents
from ..models.pull import is_offline
from ..models.registry import ModelFile, Registry
from .kernels import RowCost, row_cost
from .remote_header import remote_contents


@dataclass(frozen=True)
class PlanModel:
    """What is to be known of a file without its weights; `source` says where its header was read."""

    name: str
    source: str
    header: GgufHeader
    tensors: list[Tensor]
    share_of_experts: float  # that one token goes through; 1 where there are none

    def weights(self, rows: float = 1.0) -> Weights:
        """What a batch of so many rows reads and computes with; rows of experts meet at some of them."""
        one = weights_of(self.tensors, self.share_of_experts)
        read = 1 - (1 - self.share_of_experts) ** max(rows, 1.0)
        return one._replace(bytes=weights_of(self.tensors, read).bytes)

    def row_cost(self, rows: float, kind: str) -> RowCost:
        """What a row is multiplied with, on a `cpu` or a `gpu`, where types are alike."""
        if kind == "cpu":
            return row_cost(self.tensors, rows, self.share_of_experts)
        weights = self.weights()
        return RowCost(weights.body, weights.head)


def plan_models(config: Config, registry: Registry) -> dict[str, PlanModel]:
    """The model of each role that answers need with several beams and a mixed start.

    Raises:
        UsageError: a role that is not named, or a name that is not known.
        ModelError: a header can't be read, or is none of a model that generates text.
    """
    found: dict[str, PlanModel] = {}
    models = {}
    for role in config.roles:
        spec = config.model_named(role)
        if spec not in found:
            found[spec] = _model(registry.resolve(spec))
        models[role] = found[spec]
    return models


def _model(file: ModelFile) -> PlanModel:
    if file.present or file.entry.hub is None:
        header = require_model(file.path)
        contents = read_contents(file.path)
        if header.split_count > 1:
            raise _in_parts(file)
        return _plan_model(file.name, "this machine", header, contents)
    if is_offline():
        raise ModelError(
            f"model '{file.name}' is not here, and the network is forbidden",
            "Pull it first, or unset ALIGNBEAM_OFFLINE and HF_HUB_OFFLINE.",
        )
    contents = remote_contents(file.entry.hub)
    header = header_of(Path(f"hf:{file.entry.hub.repo}/{file.entry.hub.file}"), contents)
    if header.type != "model" or header.is_embedding or not header.parameters or not header.vocabulary_size:
        raise ModelError(f"{file.name} is no model that generates text", OTHER_FILE)
    if header.split_count > 1:
        raise _in_parts(file)
    return _plan_model(file.name, "hub", header, contents)


def _in_parts(file: ModelFile) -> ModelError:
    return ModelError(f"{file.name} is in several parts", "Plan with a file of the same model in one part.")


def _plan_model(name: str, source: str, header: GgufHeader, contents: Contents) -> PlanModel:
    share = _share_of_experts(header.architecture, contents.fields)
    return PlanModel(name, source, header, contents.tensors, share)


def _share_of_experts(architecture: str, fields: Mapping[str, object]) -> float:
    used, there = (fields.get(f"{architecture}.expert{word}_count") for word in ("_used", ""))
    if isinstance(used, int) and isinstance(there, int) and 0 < used < there:
        return used / there
    return 1.0
