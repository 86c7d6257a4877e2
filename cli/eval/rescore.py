"""What `alignbeam eval rescore` does."""

import os
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.runs.asked import room_of
from alignbeam_local.evaluation.runs.rescore import (
    Scorer,
    judge_scorer,
    phrase_scorer,
    read_phrases,
    rescore,
    rescored_file,
)
from alignbeam_local.evaluation.runs.run_directory import RunDirectory
from alignbeam_local.judge.calibration import records_hash
from alignbeam_local.models.registry import Registry
from alignbeam_local.settings import resolve

from ..console.terminal import is_terminal, say
from ..console.waiting import entered


def rescore_by_judge(run: Path, judge: str, threshold: str | None, name: str | None) -> None:
    """Score every answer with a judge; Ctrl-C leaves what is done.

    Raises:
        UsageError, ModelError: no such run, scores of this name by another judge, a model that can't judge.
    """
    from alignbeam_local.engine.open_judge import open_judge

    directory, registry = _directory(run), Registry.load()
    room = room_of(directory.manifest())
    config = resolve({"judge": judge, "threshold": threshold, **room}, registry, os.environ).config
    with entered("loading the judge", open_judge(config, registry)) as (opened, card):
        called = _checked(name or card.name)
        about: dict[str, object] = {
            "judge": card.name,
            "sha256": card.sha256,
            "asking": opened.key,
            "calibration": records_hash(card.sha256),
            "threshold": config.threshold,
        }
        _rescore(directory, called, about, judge_scorer(opened, config.threshold))


def rescore_by_phrases(run: Path, phrases: Path, name: str | None) -> None:
    """Count refusals anew.

    Raises:
        UsageError: no such run or file, scores of this name by other phrases.
    """
    directory, found = _directory(run), read_phrases(phrases)
    _rescore(directory, _checked(name or phrases.stem), {"phrases": found}, phrase_scorer(found))


def _directory(run: Path) -> RunDirectory:
    directory = RunDirectory(run)
    directory.manifest()
    return directory


def _checked(name: str) -> str:
    if not re.fullmatch(r"[\w][\w.-]*", name):
        raise UsageError(
            f"--name: '{name}' can't be a file's name", "Take letters, digits, dots and hyphens."
        )
    return name


def _rescore(directory: RunDirectory, name: str, about: dict[str, object], scorer: Scorer) -> None:
    console = Console(stderr=True, highlight=False)
    with Progress(console=console, disable=not is_terminal(sys.stderr)) as bar:
        task = bar.add_task("scoring", total=None)
        for done, total in rescore(directory, name, about, scorer):
            bar.update(task, completed=done, total=total)
    say(f"written: {rescored_file(directory, name)}")
