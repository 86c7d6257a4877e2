"""Runs in parts: together they are the whole, and a report says what is missing."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.methods.specs import parse_methods
from alignbeam_local.evaluation.reports.figures import figures
from alignbeam_local.evaluation.runs.run_directory import RunDirectory, key_of
from alignbeam_local.evaluation.runs.runner import RunPlan, run
from alignbeam_local.evaluation.runs.saved_runs import SavedRun, load_runs
from alignbeam_local.evaluation.runs.shard import Shard
from alignbeam_local.evaluation.runs.shards import joined
from tests.fake_pool import ITEMS, config, fake_loader, fake_pool
from tests.test_eval_run import MANIFEST, timeless

METHODS = ["draft", "alignbeam:N=2,beams=1"]


def made(folder: Path, shard: Shard | None, *, parallel: int = 1, machine: str = "one") -> SavedRun:
    plan = RunPlan(parse_methods(METHODS, config(parallel=parallel)), ITEMS, [1, 2], shard)
    about: dict[str, Any] = {
        **MANIFEST,
        "methods": {name: {} for name in METHODS},
        "machine": {"name": machine},
    }
    if shard:
        about["shard"] = str(shard)
    with RunDirectory(folder).opened(about) as log, closing(fake_pool()) as pool:
        assert len(list(run(plan, log, pool))) == len(plan)
    (found,) = load_runs([folder])
    return found


def by_key(run: SavedRun) -> list[dict[str, Any]]:
    return sorted(timeless(list(run.samples)), key=key_of)


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("count", [2, 3, 40])
def test_shards_together_are_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: int, count: int
) -> None:
    fake_loader(monkeypatch)
    whole = made(tmp_path / "whole", None, parallel=parallel)
    shards = [
        made(tmp_path / f"part-{n}", Shard(n, count), parallel=parallel, machine=str(n))
        for n in range(1, count + 1)
    ]
    (one,) = joined(shards)
    assert by_key(one) == by_key(whole)
    assert one.partial == whole.partial == []
    assert set(one.manifest["shards"]) == {f"{n}/{count}" for n in range(1, count + 1)}
    found, expected = figures([one], None), figures([whole], None)
    assert [(f.method, f.suite) for f in found] == [(f.method, f.suite) for f in expected]


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loader(monkeypatch)
    (one,) = joined([made(tmp_path / f"part-{n}", Shard(n, 3)) for n in (1, 3)])
    assert one.partial
    assert all(" of " in note for note in one.partial)


def test_runs_that_are_whole_and_other_runs_stay_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_loader(monkeypatch)
    shards = [made(tmp_path / f"part-{n}", Shard(n, 2)) for n in (1, 2)]
    whole = made(tmp_path / "whole", None)
    other = made(tmp_path / "other", Shard(1, 4))
    assert [run.name for run in joined([shards[0], whole, shards[1], other])] == ["part-1", "whole", "other"]


def test_a_shard_given_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loader(monkeypatch)
    shards = [made(tmp_path / name, Shard(1, 2)) for name in ("a", "b")]
    with pytest.raises(UsageError, match="shard 1/2 of one run is given twice"):
        joined(shards)


def test_shards_that_were_scored_differently_are_not_read_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_loader(monkeypatch)
    judged = {"judge": "a", "threshold": 2.5}
    parts = [replace(made(tmp_path / str(n), Shard(n, 2)), scores=judged) for n in (1, 2)]
    assert len(joined(parts)) == 1
    with pytest.raises(UsageError, match="not all scored in the same way"):
        joined([parts[0], replace(parts[1], scores={**judged, "judge": "b"})])


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "", "1/1000001"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no part of a whole"):
        Shard.of(text)
    assert str(Shard.of("2/8")) == "2/8"
