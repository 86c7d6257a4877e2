"""A bench as a picture, by matplotlib, which only this needs."""

from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

from alignbeam_local.bench.report import BenchReport, MeasuredCase
from alignbeam_local.errors import UsageError

_PANEL_INCHES = (4.5, 3.5)
_PANELS_A_ROW = 3


def require_plots(path: Path) -> None:
    """Raises: UsageError: matplotlib is not installed, or there can be no such picture."""
    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib", "pip install 'alignbeam-local[plots]'")
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        raise UsageError(f"--plot {path}: can't be drawn", "Name a file.png in a directory that exists.")


def draw(report: BenchReport, path: Path) -> None:
    """A panel for the table, and one for each sweep: ratios with their quartiles, and the floor.

    Raises:
        OSError: the file can't be written.
    """
    from matplotlib.figure import Figure

    panels = [("", [method.name for method in report.methods], report.methods)]
    panels += [(s.knob, [str(value) for value in s.values], s.methods) for s in report.sweeps]
    rows, columns = ceil(len(panels) / _PANELS_A_ROW), min(len(panels), _PANELS_A_ROW)
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    for number, panel in enumerate(panels, 1):
        _draw_panel(figure.add_subplot(rows, columns, number), *panel)
    figure.savefig(path)


def _draw_panel(axes: Any, knob: str, labels: list[str], methods: tuple[MeasuredCase, ...]) -> None:
    ratios = [method.ratio for method in methods]
    medians = [ratio.median for ratio in ratios]
    errors = [[r.median - r.low for r in ratios], [r.high - r.median for r in ratios]]
    axes.errorbar(labels, medians, yerr=errors, fmt="o-" if knob else "o", capsize=4, label="measured")
    floors = [method.floor for method in methods]
    axes.plot(labels, floors, "s:" if knob else "s", label="weights read alone")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set_xlabel(knob)
    axes.set_ylabel("time, as a multiple of the draft alone")
    axes.set_ylim(bottom=0)
    axes.legend()
