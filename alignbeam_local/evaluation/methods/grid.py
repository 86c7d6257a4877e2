"""Grids of knobs: which values each takes, and a method for every combination."""

from collections.abc import Mapping, Sequence
from itertools import product

from ...config import KNOBS, Config, canonical
from ...errors import UsageError
from .names import ALIGNBEAM
from .specs import MethodSpec, idle_in, parse_method

#: An axis of its own: with `off` one beam is neither judged nor chosen between.
JUDGE = "judge"
_UNJUDGED = "beams=1,on_unsafe=auto"

#: The values of each knob.
Grid = Mapping[str, Sequence[str]]


def parse_grid(specs: Sequence[str]) -> Grid:
    """`alpha=0,0.5` and the like, by knob.

    Raises:
        UsageError: no values, an unknown knob, or one that is there twice or can't be swept.
    """
    grid: dict[str, list[str]] = {}
    for spec in specs:
        name, _, text = spec.partition("=")
        knob = canonical(name)
        values = list(dict.fromkeys(filter(None, (value.strip() for value in text.split(",")))))
        if not values:
            raise UsageError(f"--grid {spec}: no values", "Write KNOB=VALUE,VALUE.")
        if knob not in KNOBS or knob in ("seed", "parallel", "profile"):
            raise UsageError(
                f"--grid {spec}: '{name}' is not a knob that can be swept", f"Knobs: {', '.join(KNOBS)}."
            )
        if knob in grid:
            raise UsageError(f"--grid: {knob} is given twice", "Give all its values at once.")
        if knob == JUDGE and not set(values) <= {"on", "off"}:
            raise UsageError(f"--grid {spec}: the judge is on or off", "Choose the model with --judge.")
        grid[knob] = values
    return grid


def grid_methods(grid: Grid, base: Config) -> list[MethodSpec]:
    """AlignBeam with every combination; those that come to the same are one.

    Raises:
        UsageError: a value out of range.
    """
    entries: dict[Config, MethodSpec] = {}
    for values in product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        entry = parse_method(_spec(chosen), base)
        if chosen.get(JUDGE) == "off" and entry.config.judged:
            by_need = entry.config.steer == "by_request"
            judges = "steer = by_request" if by_need else "judge_at"
            hint = "Give --steer always." if by_need else "Leave one of them out."
            raise UsageError(f"--grid judge=off contradicts {judges}", hint)
        entries.setdefault(entry.config, entry)
    for knob in grid:
        _require_read(knob, list(entries.values()))
    return list(entries.values())


def _require_read(knob: str, entries: Sequence[MethodSpec]) -> None:
    """Raises: UsageError: nothing reads it in any of the arms that set it."""
    standard = getattr(Config(), knob, None)
    turned = [entry for entry in entries if getattr(entry.config, knob, None) != standard]
    idle = [why for entry in turned if (why := idle_in(entry.method, entry.config).get(knob))]
    if idle and len(idle) == len(turned):
        raise UsageError(f"--grid {knob}: it is without effect: {idle[0]}", "Leave it out.")


def _spec(values: Mapping[str, str]) -> str:
    unjudged = values.get(JUDGE) == "off"
    left_out = (JUDGE, "beams", "on_unsafe") if unjudged else (JUDGE,)
    knobs = [f"{knob}={value}" for knob, value in values.items() if knob not in left_out]
    spec = ",".join([*knobs, *([_UNJUDGED] if unjudged else [])])
    return f"{ALIGNBEAM}:{spec}" if spec else ALIGNBEAM
