"""What answers take on described machines: bytes read, seconds, tokens a second, cost."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..config import Config
from ..machine.memory import cell_bytes
from .fit import Fit, Part, fit
from .kernels import ATTENTION
from .machines import MachineSpec
from .models import PlanModel
from .rates import LAYER_SECONDS, OPERATIONS, MachineRates, Rates
from .work import MIXING_SECONDS, Batches, Workload, batches_of, mixed_steps

_HOUR = 3600.0


@dataclass(frozen=True)
class Prediction:
    """One number of beams. Seconds and bytes; None where the models do not fit.

    Attributes:
        beams: K.
        fit: where everything lies.
        answer_seconds: one answer by itself, from the prompt on, models loaded.
        phases: the same by phase.
        floor_seconds: what reading alone takes of it.
        first_token_seconds: until the first mixed token.
        tokens_per_second: of shown text, where `parallel` answers share batches.
        bytes_per_token: read of the models' weights for each token that is shown.
        prompts_per_hour: of all machines.
        total_seconds: for all prompts, on all machines.
        cost: of that, if a price was named.
        machines_needed: for the wanted prompts an hour, if some were.
    """

    beams: int
    fit: Fit
    answer_seconds: float | None = None
    phases: dict[str, float] | None = None
    floor_seconds: float | None = None
    first_token_seconds: float | None = None
    tokens_per_second: float | None = None
    bytes_per_token: float | None = None
    prompts_per_hour: float | None = None
    total_seconds: float | None = None
    cost: float | None = None
    machines_needed: int | None = None


@dataclass(frozen=True)
class Fleet:
    """So many machines alike; `together` of them share one set of models."""

    machine: MachineSpec
    rates: MachineRates
    count: int = 1
    together: int = 1

    @property
    def groups(self) -> int:
        return self.count // self.together


def predict(
    models: Mapping[str, PlanModel], config: Config, work: Workload, fleet: Fleet, per_hour: int | None = None
) -> Prediction:
    """For these knobs; see `Prediction`."""
    found = fit({role: models[role] for role in config.roles}, config, fleet.machine, fleet.together)
    if not found.fits:
        return Prediction(config.beams, found)
    one = _Times(models, found, fleet.rates, config.with_values({"parallel": 1}), work)
    group = _Times(models, found, fleet.rates, config, work)
    a_group = fleet.groups * config.parallel * _HOUR / group.seconds  # prompts an hour, of all
    total = -(-work.prompts // (config.parallel * fleet.groups)) * group.seconds
    price, needed = fleet.machine.price, None
    if per_hour is not None:
        each = config.parallel * _HOUR / group.seconds
        needed = fleet.together * -int(-per_hour // each)
    return Prediction(
        config.beams,
        found,
        answer_seconds=one.seconds,
        phases=one.phases,
        floor_seconds=one.floor,
        first_token_seconds=one.phases.get("prompt"),
        tokens_per_second=config.parallel * work.new_tokens / group.seconds,
        bytes_per_token=group.num_bytes / (config.parallel * work.new_tokens),
        prompts_per_hour=a_group,
        total_seconds=total,
        cost=None if price is None else price * fleet.count * total / _HOUR,
        machines_needed=needed,
    )


class _Times:
    """The batches of some answers, timed."""

    def __init__(
        self,
        models: Mapping[str, PlanModel],
        found: Fit,
        rates: MachineRates,
        config: Config,
        work: Workload,
    ) -> None:
        self._models = models
        self._rates = rates
        self._config = config
        self.phases: dict[str, float] = defaultdict(float)
        self.num_bytes = self.floor = 0.0
        for batches in batches_of(config, work):
            self._add(batches, found.parts[batches.role])
        self.phases["mixing"] += mixed_steps(config, work) * MIXING_SECONDS
        self.phases = dict(self.phases)
        self.seconds = sum(self.phases.values())

    def _add(self, batches: Batches, parts: Iterable[Part]) -> None:
        model, parts = self._models[batches.role], list(parts)
        weights = model.weights(batches.rows)
        held = batches.cells * cell_bytes(model.header, self._config.cache_types(batches.role))
        attention = 2 * OPERATIONS * model.header.embedding_length * model.header.block_count * batches.cells
        attention *= ATTENTION
        for part in parts:
            rates, cost = self._of(part), model.row_cost(batches.rows, part.kind)
            body = batches.rows * (OPERATIONS * cost.body + attention)
            head = OPERATIONS * batches.heads * model.row_cost(batches.heads, part.kind).head
            took = rates.seconds(part.share * (weights.bytes + held), part.share * body, batches.rows)
            took += part.share * head / rates.operations_per_second(batches.heads)
            took += part.share * LAYER_SECONDS * model.header.block_count
            took += self._travel(model, part, batches.rows)
            self.phases[batches.phase] += batches.times * took
            self.floor += batches.times * part.share * weights.bytes / rates.bytes_per_second
        self.num_bytes += batches.times * weights.bytes

    def _of(self, part: Part) -> Rates:
        return self._rates.gpu if part.kind == "gpu" else self._rates.cpu

    def _travel(self, model: PlanModel, part: Part, rows: float) -> float:
        """A row of floats goes to another machine and comes back."""
        if not part.is_far:
            return 0.0
        return self._rates.latency + 2 * 4 * rows * model.header.embedding_length / self._rates.network
