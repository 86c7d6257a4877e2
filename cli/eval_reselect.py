"""What `alignbeam eval reselect` does."""

from collections.abc import Sequence
from pathlib import Path

from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.reselect import require_selecting, reselected, reselected_manifest
from alignbeam_local.evaluation.run_directory import DAMAGE, RunDirectory, key_of
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
    try:
        about, choices = reselected_manifest(directory.manifest(), grid)
        chosen = [
            reselected(sample, name, config)
            for sample in directory.samples()
            for name, config in choices.get(sample["method"], [])
        ]
    except DAMAGE as error:
        raise UsageError(
            f"{run} can't be chosen from: {error!r}", "It is damaged, or of an older version: run it again."
        ) from None
    with RunDirectory(out).opened(about) as log:
        for sample in chosen:
            if key_of(sample) not in log.done:
                log.append(sample)
    say(f"written: {out}")
