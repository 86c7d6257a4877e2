"""A report as one HTML page that needs nothing else: tables, plots, and the samples to read.

Everything that comes from models, prompts and files is escaped by the template; the page's own policy lets
no other script run than its own.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import sha256
from math import floor, log10
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined, Template

from ..runs.metrics import Scored
from ..runs.saved_runs import SavedRun, texts
from .contrast import contrast_table, contrasts
from .figures import Figure
from .plots import Plot, plots
from .table import table

_HERE = Path(__file__).parent
_WIDTH, _HEIGHT = 400, 290
_LEFT, _BOTTOM, _MARGIN = 54, 40, 20
_COLOURS = 24


class Place(NamedTuple):
    """A point in pixels, with the ends of its intervals."""

    name: str
    x: float
    y: float
    left: float
    right: float
    top: float
    bottom: float


class Drawing(NamedTuple):
    """A plot in pixels: per series its colour's number and its places; ticks as (pixel, text)."""

    plot: Plot
    series: list[list[Place]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


class Shown(NamedTuple):
    """A sample as the page shows it."""

    run: str
    scored: Scored
    prompt: str
    answer: str


def page(runs: Sequence[SavedRun], figures: Sequence[Figure]) -> str:
    """The whole page."""
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    shown = [one for run in runs for one in _shown(run)]
    return _template().render(
        script=script,
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        table=table(figures),
        contrast=contrast_table(found) if (found := contrasts(figures)) else None,
        drawings=[_drawing(plot) for plot in plots(runs)],
        colours=_COLOURS,
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_WIDTH - _MARGIN,
        top=_MARGIN,
        bottom=_HEIGHT - _BOTTOM,
        samples=shown,
        outcomes=sorted({one.scored.outcome for one in shown}),
        labels=sorted({one.scored.label for one in shown}),
        methods=list(dict.fromkeys(one.scored.method for one in shown)),
        partial=[f"{run.name}: {note}" for run in runs for note in run.partial],
        manifests=[(run.name, run.manifest) for run in runs],
    )


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string((_HERE / "report.html.j2").read_text(encoding="utf-8"))


def _shown(run: SavedRun) -> Iterable[Shown]:
    """Nothing for a run of which only counts are left."""
    for sample, scored in zip(run.samples, run.scored, strict=False):
        yield Shown(run.name, scored, *texts(sample))


def _drawing(plot: Plot) -> Drawing:
    def x(value: float) -> float:
        return round(_LEFT + value / plot.x_max * (_WIDTH - _LEFT - _MARGIN), 1)

    def y(share: float) -> float:
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _MARGIN), 1)

    series = [
        [
            Place(p.name, x(p.x.value), y(p.y.value), x(p.x.low), x(p.x.high), y(p.y.high), y(p.y.low))
            for p in one.points
        ]
        for one in plot.series
    ]
    quarters = [step / 4 for step in range(5)]
    x_ticks = [(x(step), f"{step:.0%}") for step in quarters]
    if not plot.x_percent:
        x_ticks = [(x(tick), f"{tick:.3g}") for tick in round_ticks(plot.x_max)]
    return Drawing(plot, series, x_ticks, [(y(step), f"{step:.0%}") for step in quarters])


def round_ticks(most: float) -> list[float]:
    """Round numbers from 0 up to `most`, six or fewer."""
    magnitude = 10 ** floor(log10(most))
    step = next(s * magnitude for s in (0.2, 0.25, 0.5, 1, 2) if most / (s * magnitude) <= 5)
    return [index * step for index in range(floor(most / step + 1e-9) + 1)]
