"""A plan: what fits where, how fast and for how much, before a machine is bought or a model fetched."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import UsageError
from ..models.registry import Registry
from .machines import MachineSpec
from .models import PlanModel, plan_models
from .predict import Fleet, Prediction, predict
from .rates import measured_rates, rates_of
from .work import TEMPLATE_TOKENS, Workload

#: What is planned besides one beam where the knobs say one.
_SEVERAL = 3
_UNJUDGED = {"judge_at": None, "judge_every": None, "on_unsafe": "auto", "late": "off"}


@dataclass(frozen=True)
class Plan:
    """What was asked, and what was found for one beam and for several."""

    models: dict[str, PlanModel]
    fleet: Fleet
    work: Workload
    parallel: int
    per_hour: int | None
    predictions: tuple[Prediction, ...]
    measured: str | None

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        fleet = asdict(self.fleet)
        return {
            "models": {role: _told(model) for role, model in self.models.items()},
            "machine": fleet.pop("machine"),
            **fleet,
            "work": self.work._asdict(),
            "parallel": self.parallel,
            "per_hour": self.per_hour,
            "measured": self.measured,
            "predictions": [_of(prediction) for prediction in self.predictions],
        }


def _of(prediction: Prediction) -> dict[str, Any]:
    found = asdict(prediction)
    found["fit"]["needs"] = {role: need._asdict() for role, need in prediction.fit.needs.items()}
    found["fit"]["parts"] = {
        role: [part._asdict() for part in parts] for role, parts in prediction.fit.parts.items()
    }
    return found


def _told(model: PlanModel) -> dict[str, Any]:
    weights = model.weights()
    return {
        "name": model.name,
        "header": model.source,
        "architecture": model.header.architecture,
        "quantisation": model.header.quantisation,
        "parameters": model.header.parameters,
        "bytes": model.header.bytes,
        "bytes_per_decode": weights.bytes,
    }


def make_plan(
    config: Config,
    registry: Registry,
    machine: MachineSpec,
    work: Workload,
    *,
    count: int = 1,
    together: int = 1,
    per_hour: int | None = None,
    measured: Path | None = None,
) -> Plan:
    """Plan with these knobs, for one beam and for several.

    Args:
        count: how many such machines there are.
        together: how many of them share one set of models, over RPC.
        per_hour: how many prompts an hour are wanted.
        measured: what `bench --json` printed on a machine with such a processor.

    Raises:
        UsageError: numbers that do not go together, or a file that is no bench's.
        ModelError: as `plan_models`.
    """
    if count % together:
        raise UsageError(
            f"{count} machines can't share {together} each", "--count is a multiple of --together."
        )
    if (length := work.prompt_tokens + TEMPLATE_TOKENS + work.new_tokens) > config.context:
        raise UsageError(
            f"prompt, template and answer are {length} tokens, and the context has {config.context}",
            f"Give --context {length} or more, or shorter ones.",
        )
    several = config.with_values(
        {"beams": config.beams if config.beams > 1 else _SEVERAL, "max_tokens": work.new_tokens}
    )
    models = plan_models(several, registry)
    found = measured_rates(measured) if measured else None
    fleet = Fleet(machine, rates_of(machine, found), count, together)
    one = several.with_values({"beams": 1, **_UNJUDGED})
    predictions = tuple(predict(models, knobs, work, fleet, per_hour) for knobs in (one, several))
    return Plan(models, fleet, work, config.parallel, per_hour, predictions, found.source if found else None)
