"""The same as a picture, by matplotlib, which only this needs."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alignbeam_local.bench_report import Method, Report
from alignbeam_local.errors import UsageError

_PANEL_INCHES = (4.5, 3.5)


def require_plots(path: Path) -> None:
    """Raises: UsageError: matplotlib is not installed, or there can be no such picture."""
    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib", "pip install 'alignbeam-local[plots]'")
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        raise UsageError(f"--plot {path}: can't be drawn", "Name a file.png in a directory that exists.")


def draw(report: Report, path: Path) -> None:
    """A panel for each sweep, or one for the table: ratios with their quartiles, and the floor.

    Raises:
        OSError: the file can't be written.
    """
    from matplotlib.figure import Figure

    panels = [(s.knob, [str(value) for value in s.values], s.methods) for s in report.sweeps]
    panels = panels or [("", [method.name for method in report.methods], report.methods)]
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * len(panels), height), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(axes, *panel)
    figure.savefig(path)


def _draw_panel(axes: Any, knob: str, labels: list[str], methods: tuple[Method, ...]) -> None:
    ratios = [method.ratio for method in methods]
    medians = [ratio.median for ratio in ratios]
    errors = [[r.median - r.low for r in ratios], [r.high - r.median for r in ratios]]
    axes.errorbar(labels, medians, yerr=errors, fmt="o-", capsize=4, label="measured")
    axes.plot(labels, [method.floor for method in methods], "s:", label="weights read alone")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set_xlabel(knob)
    axes.set_ylabel("time, as a multiple of the draft alone")
    axes.set_ylim(bottom=0)
    axes.legend()
