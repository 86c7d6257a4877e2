"""What `alignbeam eval reselect` does."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import track

from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.reselect import (
    judged_anew,
    require_selecting,
    reselected,
    reselected_manifest,
)
from alignbeam_local.evaluation.run_directory import DAMAGE, Json, RunDirectory, key_of
from alignbeam_local.evaluation.runner import about_model
from alignbeam_local.evaluation.sweep import parse_grid
from alignbeam_local.registry import Registry
from alignbeam_local.settings import resolve

from .terminal import is_terminal, say

Judging = Callable[[Json], Json]


def reselect_run(run: Path, grid_specs: Sequence[str], judge: str | None, out: Path) -> None:
    """Write a run directory with every choice from the run's beams; one that is there is gone on with.

    Raises:
        UsageError: no such run, nothing in it to choose from, a grid that can't be, another run in `out`.
        UsageError, ModelError: a model that can't judge, or not these beams.
    """
    grid = parse_grid(grid_specs)
    require_selecting(grid)
    directory, registry = RunDirectory(run), Registry.load()
    about_judge = about_model(registry.require(judge), "judge") if judge else None

    def chosen(sample: Json) -> list[Json]:
        return [reselected(sample, name, config) for name, config in choices.get(sample["method"], [])]

    try:
        about, choices = reselected_manifest(directory.manifest(), grid, about_judge)
        samples = [(sample, found) for sample in directory.samples() if (found := chosen(sample))]
    except DAMAGE as error:
        raise UsageError(
            f"{run} can't be chosen from: {error!r}", "It is damaged, or of an older version: run it again."
        ) from None
    with RunDirectory(out).opened(about) as log, _judging(judge, samples, registry) as judged:
        for sample, plain in _progress(samples, judge):
            keys = [key for key in map(key_of, plain) if key not in log.done]
            found = chosen(judged(sample)) if keys and judge else plain
            for one in (one for one in found if key_of(one) in keys):
                log.append(one)
    say(f"written: {out}")


@contextmanager
def _judging(
    judge: str | None, samples: Sequence[tuple[Json, list[Json]]], registry: Registry
) -> Iterator[Judging]:
    """What judges a sample's beams: the judge opened with room for them, or nothing."""
    if judge is None:
        yield lambda sample: sample
        return
    from alignbeam_local.judge_loading import open_judge

    most = max((len(sample["result"]["beams"]) for sample, _ in samples if "result" in sample), default=1)
    config = resolve({"judge": judge, "beams": str(most)}, registry, os.environ).config
    with open_judge(config, registry) as (opened, card):
        yield lambda sample: judged_anew(sample, opened, card, config.threshold)


def _progress(
    samples: Sequence[tuple[Json, list[Json]]], judge: str | None
) -> Iterator[tuple[Json, list[Json]]]:
    console = Console(stderr=True, highlight=False)
    shown = judge is not None and is_terminal(sys.stderr)
    yield from track(samples, "judging", console=console, disable=not shown)
