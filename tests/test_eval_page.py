"""The HTML page: one file, plots of what was measured, and nothing from a model is markup."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.evaluation.reports.figures import figures
from alignbeam_local.evaluation.reports.page import page, round_ticks
from alignbeam_local.evaluation.reports.plots import Plot, plots
from alignbeam_local.evaluation.runs.saved_runs import SavedRun, load_runs
from tests.test_eval_report import run_of, sample, scored, write_run

HOSTILE = (
    "</pre></article><script>alert(1)</script><img src=x onerror=alert(2)>\"' onload='x' "
    "<style>*{display:none}</style>{{ 7 * 7 }}{% raw %}\u202e &amp; ]]> javascript:alert(3)"
)


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def hostile_page(folder: Path) -> Elements:
    one = sample(HOSTILE, method=HOSTILE, suite=HOSTILE, id=HOSTILE, prompt=HOSTILE)
    failed = {**sample("", id="2"), "error": {"message": HOSTILE}}
    del failed["result"]
    runs = load_runs([write_run(folder / "<b>run", one, failed)])
    return Elements(page(runs, figures(runs)))


def test_nothing_from_a_model_is_markup(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    found = hostile_page(tmp_path / "x")
    tags = [tag for tag, _ in found.tags]
    assert tags.count("script") == tags.count("style") == 1
    assert "img" not in tags
    assert "b" not in tags
    names = {name for _, attributes in found.tags for name in attributes}
    assert not {name for name in names if name.startswith("on")}
    shown = [text for text in found.texts if text == HOSTILE]
    assert len(shown) >= 3, "prompt, answer and error are there as they are"


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    found = hostile_page(tmp_path / "x")
    assert not [a for _, a in found.tags if {"src", "href"} & set(a)]
    policy = next(a["content"] or "" for _, a in found.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_a_page_of_counts_alone_has_no_samples() -> None:
    runs = [run_of(scored("draft", "ra"))]
    text = page(runs, figures(runs))
    assert "<article" not in text
    assert "<svg" in text


def knobs(**values: Any) -> dict[str, Any]:
    return {"knobs": {"alpha": 0.5, "depth": 6, "beams": 3, **values}}


def two_labels(method: str, harmful: str, benign: str) -> list[Any]:
    own = [*scored(method, harmful), *scored(method, benign, suite="t", label="benign")]
    return [replace(one, covered_mass=0.95) for one in own]


def curves() -> SavedRun:
    run = run_of(
        two_labels("alignbeam:N=0", "aaar", "aaaa"),
        two_labels("alignbeam", "rrra", "raaa"),
        two_labels("anchor", "rrrr", "rrrr"),
    )
    run.manifest["methods"] = {
        "alignbeam": knobs(),
        "alignbeam:N=0": knobs(depth=0),
        "anchor": knobs(depth=3),
    }
    return run


def plot_called(title: str) -> Plot:
    return next(plot for plot in plots([curves()]) if plot.title == title)


def test_refusal_against_over_refusal() -> None:
    found = {s.name: s.points[0] for s in plot_called("Refusal against over-refusal").series}
    assert (found["alignbeam"].x.value, found["alignbeam"].y.value) == (0.25, 0.75)
    assert found["alignbeam"].y.low < 0.75 < found["alignbeam"].y.high


def test_suites_are_not_pooled() -> None:
    """Methods may have been asked different ones."""
    covered = [replace(one, covered_mass=0.7) for one in scored("draft", "rrrra", suite="u")]
    own = [*two_labels("draft", "rr", "aa"), *covered]
    drawn = [plot for plot in plots([run_of(own)]) if len(plot.series) == 1]
    assert [(plot.title.split()[0], plot.y_title, plot.series[0].points[0].y.value) for plot in drawn] == [
        ("Refusal", "refused of s", 1.0),
        ("Refusal", "refused of u", 0.8),
        ("Latency", "refused of s", 1.0),
        ("Latency", "refused of u", 0.8),
        ("Covered", "refused of u", 0.8),
    ]


def test_curves_of_two_runs_are_named_by_them() -> None:
    names = [s.name for s in plots([curves(), replace(curves(), name="other")])[1].series]
    assert names == ["s (harmful), run", "t (benign), run", "s (harmful), other", "t (benign), other"]


def test_a_curve_joins_arms_that_differ_in_one_knob() -> None:
    harmful, benign = plot_called("depth curve").series
    assert [(p.x.value, p.y.value) for p in harmful.points] == [(0, 0.25), (6, 0.75)]
    assert [(p.x.value, p.y.value) for p in benign.points] == [(0, 0.0), (6, 0.25)]
    assert harmful.line


def test_covered_mass_is_binned() -> None:
    masses = (0.95, 0.93, 0.91, 1.0, 0.99, 0.1)
    answers = zip(scored("alignbeam", "rrrraa"), masses, strict=True)
    (plot,) = plots([run_of([replace(one, covered_mass=mass, total_ms=None) for one, mass in answers])])
    (series,) = plot.series
    (point,) = series.points  # one answer at 0.1 is no share
    assert (point.x.value, point.y.value, point.name) == (0.95, 0.8, "5 answers")


def test_what_nobody_measured_is_not_drawn() -> None:
    assert [plot.title for plot in plots([run_of(scored("draft", "ra"))])] == ["Latency against refusal"]


@pytest.mark.parametrize("outcomes", ["f", "fa"])
def test_failed_samples_do_not_stop_a_page(outcomes: str) -> None:
    runs = [run_of(scored("draft", outcomes))]
    assert "Partial" in page(runs, figures(runs))


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (20, [0, 5, 10, 15, 20]),
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (7.31, [0, 2, 4, 6]),
        (0.3, [0, 0.1, 0.2, 0.3]),
        (0.0049, [0, 0.001, 0.002, 0.003, 0.004]),
    ],
)
def test_ticks_are_round(most: float, ticks: list[float]) -> None:
    assert round_ticks(most) == pytest.approx(ticks)
