"""What `alignbeam eval reselect` does."""

from collections.abc import Sequence
from pathlib import Path

from alignbeam_local.evaluation.reselect import require_selecting, reselected, reselected_manifest
from alignbeam_local.evaluation.run_directory import RunDirectory, key_of
from alignbeam_local.evaluation.sweep import parse_grid

from .terminal import say


def reselect_run(run: Path, grid_specs: Sequence[str], out: Path) -> None:
    """Write a run directory with every choice from the run's beams; one that is there is gone on with.

    Raises:
        UsageError: no such run, nothing in it to choose from, a grid that can't be, another run in `out`.
    """
    grid = parse_grid(grid_specs)
    require_selecting(grid)
    directory = RunDirectory(run)
    about, choices = reselected_manifest(directory.manifest(), grid)
    with RunDirectory(out).opened(about) as log:
        for sample in directory.samples():
            for name, config in choices.get(sample["method"], []):
                chosen = reselected(sample, name, config)
                if key_of(chosen) not in log.done:
                    log.append(chosen)
    say(f"written: {out}")
