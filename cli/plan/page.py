"""A plan on one page."""

from collections.abc import Callable, Iterator
from functools import partial

from alignbeam_local.machine.memory import gib
from alignbeam_local.plan.plan import Plan
from alignbeam_local.plan.predict import Prediction

_LABEL, _BETWEEN = 27, 3

Cell = Callable[[Prediction], str]


def plan_text(plan: Plan) -> str:
    """Models, machines, what fits, what it takes; then what of it is assumed."""
    rows = [("", [f"K = {p.beams}" for p in plan.predictions])]
    rows += [(label, list(map(cell, plan.predictions))) for label, cell in _rows(plan)]
    width = max(len(cells[0]) for _, cells in rows) + _BETWEEN
    table = [_row(label, cells, width) for label, cells in rows]
    return "\n".join([*_models(plan), *_machines(plan), "", *table, "", *_basis(plan)])


def _models(plan: Plan) -> Iterator[str]:
    for role, model in plan.models.items():
        weights = model.weights()
        yield (
            f"{role:<9}{model.name}, {model.header.quantisation}, {model.header.parameters / 1e9:.2f} billion"
            f" weights, {_gb(model.header.bytes)}; a decode reads {_gb(weights.bytes)}"
        )


def _machines(plan: Plan) -> Iterator[str]:
    machine, fleet = plan.fleet.machine, plan.fleet
    gpus = " and ".join(f"a GPU of {gib(size)}" for size in machine.gpus) or "no GPU"
    shared = f", {fleet.together} of them with one set of models over RPC" if fleet.together > 1 else ""
    yield (
        f"{'machines':<9}{fleet.count}, each with {gpus}, {gib(machine.ram)} of memory and "
        f"{machine.cores} cores{shared}"
    )
    work = plan.work
    yield (
        f"{'work':<9}{work.prompts:,} prompts of {work.prompt_tokens} tokens, answers of {work.new_tokens}, "
        f"{plan.parallel} at once"
    )


def _rows(plan: Plan) -> Iterator[tuple[str, Cell]]:
    yield "fits", lambda p: "yes" if p.fit.fits else f"no: {gib(p.fit.host_bytes)} of {gib(p.fit.host_free)}"
    for role in plan.models:
        yield f"{role} takes", partial(_need, role)
        yield f"{role} lies on", partial(_where, role)
    for name in dict.fromkeys(name for p in plan.predictions for name in p.fit.devices):
        yield f"on {name}", partial(_on_device, name)
    yield "of the machine's memory", lambda p: gib(p.fit.host_bytes)
    yield "read a token shown", _told(lambda p: _gb(p.bytes_per_token or 0))
    yield "first mixed token after", _told(lambda p: _seconds(p.first_token_seconds or 0))
    yield "one answer", _told(lambda p: _seconds(p.answer_seconds or 0))
    for phase in dict.fromkeys(phase for p in plan.predictions for phase in p.phases or {}):
        yield f"  {phase}", _told(partial(_phase, phase))
    yield "  of it reading alone", _told(lambda p: _seconds(p.floor_seconds or 0))
    yield "tokens a second, a set", _told(lambda p: f"{p.tokens_per_second:.1f}")
    yield "prompts an hour, all", _told(lambda p: f"{p.prompts_per_hour:,.0f}")
    yield "all prompts", _told(lambda p: _seconds(p.total_seconds or 0))
    if plan.fleet.machine.price is not None:
        yield "cost", _told(lambda p: f"{p.cost:,.2f}")
    if plan.per_hour:
        yield f"for {plan.per_hour:,} an hour", _told(lambda p: f"{p.machines_needed:,} machines")


def _told(cell: Cell) -> Cell:
    return lambda p: cell(p) if p.fit.fits else "-"


def _need(role: str, prediction: Prediction) -> str:
    need = prediction.fit.needs.get(role)
    return "-" if need is None else f"{gib(need.weights)} + {gib(need.total - need.weights)}"


def _where(role: str, prediction: Prediction) -> str:
    parts = prediction.fit.parts.get(role, ())
    return ", ".join(f"{part.device} {part.share:.0%}" for part in parts) or "-"


def _on_device(name: str, prediction: Prediction) -> str:
    return gib(prediction.fit.devices.get(name, 0))


def _phase(name: str, prediction: Prediction) -> str:
    return _seconds((prediction.phases or {}).get(name, 0))


def _basis(plan: Plan) -> Iterator[str]:
    yield "Weights + cache and buffers; times are those of models that are loaded and judges that are warm."
    if plan.measured:
        yield f"The processor's rates are from {plan.measured}."
    for assumed in plan.fleet.rates.assumed:
        yield f"Assumed: {assumed}."


def _row(label: str, cells: list[str], width: int) -> str:
    return (f"{label:<{_LABEL}}" + "".join(f"{cell:<{width}}" for cell in cells)).rstrip()


def _gb(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
