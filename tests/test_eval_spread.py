"""Runs whose groups are made elsewhere: the same samples, each once, whatever happens to workers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local import __version__
from alignbeam_local.cancellation import Cancellation
from alignbeam_local.cluster import dispatcher as dispatching
from alignbeam_local.cluster.builds import require_same_builds
from alignbeam_local.cluster.dispatcher import Dispatcher
from alignbeam_local.errors import Cancelled, ModelError, UsageError
from alignbeam_local.evaluation.methods.specs import parse_methods
from alignbeam_local.evaluation.runs.run_directory import RunDirectory, key_of
from alignbeam_local.evaluation.runs.runner import RunPlan
from alignbeam_local.evaluation.workers import group_work
from alignbeam_local.evaluation.workers import spread as spreading
from alignbeam_local.evaluation.workers.group_work import GroupWork
from alignbeam_local.evaluation.workers.spread import num_groups, spread, spread_manifest, welcome
from tests.fake_crew import FakeCrew
from tests.fake_loader import FakeLoader
from tests.fake_pool import ITEMS, REGISTRY, config, fake_loader
from tests.test_eval_run import MANIFEST, plan, timeless, whole

ABOUT: dict[str, Any] = {**MANIFEST, "machine": {"cores": 1}, "version": "1", "llama_cpp": "b1"}
METHODS: dict[str, Any] = {"draft": {}, "alignbeam:N=2": {}}
BUILDS = {"version": "1", "llama_cpp": "b1", "machine": {"processor": "slow"}}


@pytest.fixture(autouse=True)
def _alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """What workers say of themselves is right; places are looked for at once."""
    monkeypatch.setattr(group_work, "methods_about", lambda *_: METHODS)
    monkeypatch.setattr(spreading, "require_same_builds", lambda _: None)
    monkeypatch.setattr(dispatching, "_LOOK_SECONDS", 0.0)


def own_loaders(monkeypatch: pytest.MonkeyPatch, *, has_memory: bool = True) -> None:
    """Models without weights, opened by each worker for itself."""
    models = fake_loader(monkeypatch).models

    def opened(*arguments: Any) -> FakeLoader:
        loader = FakeLoader(models)(*arguments)
        loader.has_memory = has_memory
        return loader

    for user in ("engine.engine", "evaluation.methods.model_pool"):
        monkeypatch.setattr(f"alignbeam_local.{user}.Loader", opened)


def crew(run: RunPlan, **options: Any) -> FakeCrew:
    return FakeCrew(GroupWork((), REGISTRY, False, tuple(run.entries)), **options)


def spread_out(
    folder: Path, run: RunPlan, workers: FakeCrew, cancellation: Cancellation | None = None, after: int = 0
) -> list[dict[str, Any]]:
    """Run, or go on; stopped by Ctrl-C after so many samples, if any."""
    directory, about = RunDirectory(folder), spread_manifest(ABOUT)
    cancellation = cancellation or Cancellation()
    with directory.opened(about) as log:
        made = Dispatcher(workers, cancellation, welcome=welcome(about, directory))
        for number, _ in enumerate(spread(run, log, made), 1):
            if number == after:
                cancellation.set()
    return directory.samples()


def by_key(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(timeless(samples), key=key_of)


@pytest.mark.parametrize("dies", [{}, {1: 2}, {1: 2, 2: 1, 3: 3}])
@pytest.mark.parametrize("is_late", [False, True])
def test_the_samples_are_those_of_one_process(
    dies: Mapping[int, int], is_late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_loaders(monkeypatch)
    expected = whole(tmp_path / "whole")
    workers = crew(plan(), size=3, dies=dies, is_late=is_late)
    assert by_key(spread_out(tmp_path / "spread", plan(), workers)) == by_key(expected)


def test_groups_are_answered_together_as_on_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_loaders(monkeypatch)
    entries = parse_methods(["draft", "alignbeam:N=2", "hard-prefix"], config(parallel=3, context=4096))
    run = RunPlan(entries, ITEMS, [1, 2])
    one = spread_out(tmp_path / "one", run, crew(run, size=1))
    many = spread_out(tmp_path / "many", run, crew(run, size=4, dies={2: 2}))
    assert by_key(one) == by_key(many)
    assert len(many) == len(run) == 24


def test_ctrl_c_leaves_a_run_to_go_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_loaders(monkeypatch)
    expected = whole(tmp_path / "whole")
    with pytest.raises(Cancelled):
        spread_out(tmp_path / "spread", plan(), crew(plan()), after=5)
    assert 5 <= len(RunDirectory(tmp_path / "spread").samples()) < 16
    assert by_key(spread_out(tmp_path / "spread", plan(), crew(plan()))) == by_key(expected)


def test_the_manifest_names_each_worker_and_goes_on_with_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_loaders(monkeypatch)
    monkeypatch.setattr("alignbeam_local.cluster.model_work.builds", lambda: BUILDS)
    with pytest.raises(Cancelled):
        spread_out(tmp_path, plan(), crew(plan(), size=2), after=2)
    spread_out(tmp_path, plan(), crew(plan(), size=3))
    named = RunDirectory(tmp_path).manifest()["workers"]
    assert named == {f"worker-{n}": {"node": f"n{n}", **BUILDS} for n in (1, 2, 3)}
    assert "machine" not in RunDirectory(tmp_path).manifest()


def test_a_run_of_one_machine_is_not_gone_on_with_by_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_loaders(monkeypatch)
    whole(tmp_path, stop_after=1)
    with pytest.raises(UsageError, match="workers"):
        spread_out(tmp_path, plan(), crew(plan()))


def test_a_worker_with_other_models_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_loaders(monkeypatch)
    others = {"draft": {"models": {"draft": {"sha256": "0"}}}, "alignbeam:N=2": {}}
    workers = crew(plan(), size=2, about={1: {"methods": others}, 2: {"methods": METHODS}})
    assert len(spread_out(tmp_path / "a", plan(), workers)) == 16
    assert workers.alive == [2]
    assert list(RunDirectory(tmp_path / "a").manifest()["workers"]) == ["worker-1"]
    with pytest.raises(ModelError, match=r"differ: draft\.models"):
        spread_out(tmp_path / "b", plan(), crew(plan(), size=1, about={1: {"methods": others}}))


def test_a_worker_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(UsageError, match=r"it has llama\.cpp b0, here it is") as caught:
        require_same_builds({"version": __version__, "llama_cpp": "b0"})
    assert "same versions" in caught.value.hint
    with pytest.raises(UsageError, match=r"it has this program 9\.9"):
        require_same_builds({"version": "9.9"})


def test_a_method_that_can_not_run_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_loaders(monkeypatch, has_memory=False)
    with pytest.raises(ModelError):
        spread_out(tmp_path, plan(), crew(plan()))
    assert RunDirectory(tmp_path).samples() == []


def test_only_groups_that_lack_a_sample_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_loaders(monkeypatch)
    spread_out(tmp_path, plan(), crew(plan()))
    with RunDirectory(tmp_path).opened(spread_manifest(ABOUT)) as log:
        assert num_groups(plan(), log) == 0
    assert spread_out(tmp_path, plan(), crew(plan(), size=0)) == RunDirectory(tmp_path).samples()
    assert json.dumps(RunDirectory(tmp_path).manifest())
