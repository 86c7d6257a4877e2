"""Runs: what is asked of whom, kept at once, and gone on with."""

import json
import os
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.engine import about_model
from alignbeam_local.engine.engine import Engine
from alignbeam_local.errors import Cancelled, ContextFull, ModelError, UsageError
from alignbeam_local.evaluation.methods.specs import parse_method, parse_methods
from alignbeam_local.evaluation.runs import runner
from alignbeam_local.evaluation.runs.run_directory import SAMPLES, RunDirectory, key_of, partial_notes
from alignbeam_local.evaluation.runs.runner import RunPlan, manifest, run
from alignbeam_local.evaluation.suites.suites import Item
from alignbeam_local.models.registry import ModelFile, Registry
from alignbeam_local.result import Result
from tests.fake_pool import ITEMS, REGISTRY, config, fake_loader, fake_pool
from tests.llama_models import write_tiny
from tests.running import no_file_beyond

MANIFEST: dict[str, Any] = {
    "methods": {"draft": {}, "alignbeam:N=2": {}},
    "suites": {"bad": {"prompts": 2}, "good": {"prompts": 1}, "sums": {"prompts": 1}},
    "seeds": [1, 2],
}


def plan() -> RunPlan:
    return RunPlan(parse_methods(["draft", "alignbeam:N=2,beams=1"], config()), ITEMS, [1, 2])


def whole(folder: Path, stop_after: int | None = None) -> list[dict[str, Any]]:
    """Run, or go on; stopped after so many samples as a crash stops it."""
    directory = RunDirectory(folder)
    with directory.opened(MANIFEST) as log, closing(fake_pool()) as pool:
        list(islice(run(plan(), log, pool), stop_after))
    return directory.samples()


def timeless(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what hangs on the machine: times, and that other programs slowed the models down."""
    return [{**sample, "result": _timeless(sample["result"])} for sample in samples]


def _timeless(result: dict[str, Any]) -> dict[str, Any]:
    notices = [notice for notice in result["notices"] if "other programs slow" not in notice]
    return {**result, "timings": None, "notices": notices}


def test_every_method_answers_every_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loader(monkeypatch)
    samples = whole(tmp_path / "run")
    assert [key_of(sample) for sample in samples] == [
        key for entry in plan().entries for key, _ in plan().samples(entry)
    ]
    texts = {(s["method"], s["id"]): s["result"]["text"] for s in samples}
    assert texts["draft", "bad-1"] == "Sure, do so."
    assert texts["alignbeam:N=2,beams=1", "sums-1"] != ""
    sums = next(s for s in samples if s["id"] == "sums-1")
    assert (sums["reference"], sums["label"], sums["prompt"]) == ("4", "utility", "2+2?")
    assert {s["result"]["config"]["seed"] for s in samples} == {1, 2}


@pytest.mark.parametrize("tail", [b"", b'{"method": "draft", "suite": "ba', b'{"half": "\xe4\xb8'])
def test_a_run_killed_twice_equals_an_uninterrupted_one(
    tail: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_loader(monkeypatch)
    expected = whole(tmp_path / "whole")
    for stop_after in (3, 7):
        whole(tmp_path / "killed", stop_after)
        with open(tmp_path / "killed" / SAMPLES, "ab") as file:
            file.write(tail)
    assert timeless(whole(tmp_path / "killed")) == timeless(expected)
    assert len(expected) == len(plan()) == 16


def together(folder: Path, stop_after: int | None = None) -> list[dict[str, Any]]:
    """The same with three prompts at once."""
    entries = parse_methods(["draft", "alignbeam:N=2", "hard-prefix"], config(parallel=3, context=4096))
    items = [Item("many", f"many-{n}", f"{n} Cook?", "benign") for n in range(4)] + ITEMS
    directory = RunDirectory(folder)
    with directory.opened(MANIFEST) as log, closing(fake_pool()) as pool:
        list(islice(run(RunPlan(entries, items, [1]), log, pool), stop_after))
    return directory.samples()


def test_a_run_of_several_at_once_that_is_killed_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts, log-probabilities and batches: a prompt goes with the same others, in the same order."""
    loader = fake_loader(monkeypatch)
    expected = together(tmp_path / "whole")
    batches = [lm.batches for lm in loader.opened["draft"]]
    assert [key_of(sample)[:3] for sample in expected] == [
        (method, *item)
        for method in ("draft", "alignbeam:N=2", "hard-prefix")
        for item in [*(("many", f"many-{n}") for n in range(4)), *((i.suite, i.id) for i in ITEMS)]
    ]
    together(tmp_path / "killed", 2)
    loader = fake_loader(monkeypatch)
    together(tmp_path / "killed", 9)
    assert loader.opened["draft"][0].batches == batches[0], "the group that was begun is made anew, as it was"
    together(tmp_path / "killed", 4)
    assert timeless(together(tmp_path / "killed")) == timeless(expected)


def test_how_many_go_together_is_in_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(about_model, "model_sha256", lambda _: "0")
    monkeypatch.setattr(Registry, "require", lambda _, spec: ModelFile(spec, Path(spec)))
    abouts = [
        manifest(RunPlan(parse_methods(["draft"], config(parallel=p)), ITEMS, [1]), REGISTRY) for p in (1, 3)
    ]
    with RunDirectory(tmp_path / "run").opened(abouts[0]):
        pass
    with (
        pytest.raises(UsageError, match=r"methods\.draft\.knobs\.parallel"),
        RunDirectory(tmp_path / "run").opened(abouts[1]),
    ):
        pass


def test_an_answer_does_not_depend_on_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of another shape moves logits: every prompt must be decoded whole, whatever came before."""
    loader = fake_loader(monkeypatch)
    entry = parse_method("draft", config())
    with closing(fake_pool()) as pool:
        answer = entry.method.open(entry.config, pool)
        for prompt in ("Steal?", "Steal? Now?", "Steal? Now?"):
            before = loader.prefilled("draft")
            answer([(prompt, entry.config)])
            assert loader.prefilled("draft") - before > len(prompt)


def test_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    with directory.opened(MANIFEST):
        pass
    other = {**MANIFEST, "seeds": [3], "methods": {"draft": {"knobs": {"alpha": 1}}}}
    with pytest.raises(UsageError) as caught, directory.opened(other):
        pass
    assert "methods.alignbeam:N=2; methods.draft.knobs; seeds differ" in caught.value.message


def test_a_directory_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(UsageError, match="is not empty and holds no run"),
        RunDirectory(tmp_path).opened(MANIFEST),
    ):
        pass
    with pytest.raises(UsageError, match="holds no run"):
        RunDirectory(tmp_path).manifest()


def test_two_processes_do_not_write_one_run(tmp_path: Path) -> None:
    with (
        RunDirectory(tmp_path).opened(MANIFEST),
        pytest.raises(UsageError, match="another process writes"),
        RunDirectory(tmp_path).opened(MANIFEST),
    ):
        pass


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / SAMPLES).write_text('{"method": "draft"}\n{}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="line 1 is damaged"):
        RunDirectory(tmp_path).samples()


def test_what_is_partial_is_said() -> None:
    done = [("draft", "bad")] * 4 + [("draft", "good")]
    assert partial_notes(MANIFEST, done)[:2] == [
        "draft on good: 1 of 2 samples",
        "draft on sums: 0 of 2 samples",
    ]
    several = {"methods": ["guard"], "suites": {name: {"prompts": 3} for name in "abcd"}, "seeds": [1, 2]}
    assert partial_notes(several, [("guard", "a")] * 6 + [("guard", "b")]) == [
        "guard on b: 1 of 6 samples",
        "guard on c and 1 more: 0 of 12 samples",
    ]


def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Callable[..., Result]) -> list[Any]:
    """The samples of a run whose engine answers like this."""
    monkeypatch.setattr(Engine, "answer", answer)
    directory = RunDirectory(tmp_path)
    with directory.opened(MANIFEST) as log, closing(fake_pool()) as pool:
        list(run(RunPlan([parse_method("draft", config())], ITEMS[:1], [1]), log, pool))
    return directory.samples()


def test_a_prompt_that_does_not_fit_is_a_failed_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Result:
        raise ContextFull("too long", "Shorten it.")

    (sample,) = failing(monkeypatch, tmp_path, full)
    assert sample["error"] == {"type": "context", "message": "too long", "hint": "Shorten it."}
    assert "result" not in sample


def test_a_model_that_fails_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Result:
        raise ModelError("broken")

    with pytest.raises(ModelError):
        failing(monkeypatch, tmp_path, broken)
    assert RunDirectory(tmp_path).samples() == []


def test_a_cancelled_answer_is_no_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loader(monkeypatch)
    cancellation = Cancellation()
    directory = RunDirectory(tmp_path)
    with directory.opened(MANIFEST) as log, closing(fake_pool(cancellation)) as pool:
        samples = run(plan(), log, pool)
        next(samples)
        cancellation.set()
        with pytest.raises(Cancelled):
            next(samples)
    assert len(directory.samples()) == 1


# --- methods by name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("alignbaem", "no method 'alignbaem'"),
        ("alignbeam:alhpa=1", "unknown knob 'alhpa'"),
        ("alignbeam:alpha=2", "alpha = '2'"),
        ("alignbeam:alpha", "'alpha' has no value"),
        ("alignbeam:seed=3", "seed is an option of the run"),
        ("draft:N=3", "draft sets depth itself"),
        ("anchor:draft=other", "anchor sets draft itself"),
    ],
)
def test_a_method_that_can_not_be(spec: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_method(spec, config())
    assert message in caught.value.message


def test_a_method_given_twice() -> None:
    with pytest.raises(UsageError, match="given twice"):
        parse_methods(["draft", "draft"], config())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("alignbeam:boost=3", "boost is without effect: it is about safety_tokens = boost"),
        ("alignbeam:beams=1,on_unsafe=auto,threshold=2", "threshold is without effect"),
        ("draft:alpha=0.8", "alpha is without effect: nothing is mixed"),
        ("system-prompt:alpha=0.8", "alpha is without effect: nothing is mixed"),
        ("anchor:threshold=3", "threshold is without effect: nothing is judged"),
        ("guard:on_unsafe=lowest", "on_unsafe is without effect: guard does not read it"),
        ("nudging:anchor_row=gated", "anchor_row is without effect"),
    ],
)
def test_an_arm_that_its_own_knob_does_not_change_is_refused(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_methods([spec], config())
    parse_methods(["guard:threshold=2", "hard-prefix:temperature=0", "anchor:anchor=other"], config())


def test_knobs_and_parameters_of_a_method() -> None:
    entry = parse_method("system-prompt:text=Be good, please,max_tokens=9", config(system="You teach."))
    assert (entry.config.max_tokens, entry.config.system) == (9, "Be good, please\n\nYou teach.")
    assert (entry.config.depth, entry.config.beams) == (0, 1)


@pytest.mark.parametrize(("given", "own"), [("none", None), ("same", "S"), ("Be good", "Be good")])
def test_the_anchor_reads_what_an_anchor_reads(given: str, own: str | None) -> None:
    entry = parse_method("anchor", config(system="S", anchor_system=given))
    assert (entry.config.draft, entry.config.system, entry.config.depth) == (
        "anchor",
        own,
        0,
    )
    assert not entry.config.judged


def test_best_of_k_mixes_nothing_and_judges() -> None:
    entry = parse_method("best-of-k:K=2", config())
    assert (entry.config.depth, entry.config.beams, entry.config.judged) == (0, 2, True)
    assert entry.method.models(entry.config) == {"draft": "draft", "judge": "judge"}


def test_methods_with_the_same_models_share_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = fake_loader(monkeypatch)
    with closing(fake_pool()) as pool:
        for spec in ("draft", "system-prompt", "anchor", "draft"):
            entry = parse_method(spec, config())
            entry.method.open(entry.config, pool)([("Steal?", entry.config)])
    assert len(loader.opened["draft"]) == 2
    assert len(loader.opened["anchor"]) == 1


def test_no_method_finds_the_room_that_another_one_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run is gone on with, the methods before were not run in this process."""
    loader = fake_loader(monkeypatch)
    with closing(fake_pool()) as pool:
        for spec in ("draft", "alignbeam:K=2,N=2", "draft"):
            entry = parse_method(spec, config())
            entry.method.open(entry.config, pool)([("Steal?", entry.config)])
    assert [lm.num_sequences for lm in loader.opened["draft"]] == [2, 3, 2]


def test_a_manifest_says_what_decides_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Known:
        def require(self, spec: str) -> Any:
            file = tmp_path / f"{spec}.gguf"
            file.write_bytes(spec.encode())
            return runner_file(spec, file)

    about = runner.manifest(plan(), Known())  # type: ignore[arg-type]
    assert about["suites"]["bad"] == {
        "prompts": 2,
        "labels": {"harmful": 2},
        "sha256": about["suites"]["bad"]["sha256"],
    }
    draft = about["methods"]["draft"]
    assert draft["models"]["draft"]["name"] == "draft"
    assert len(draft["models"]["draft"]["sha256"]) == 64
    assert "seed" not in draft["knobs"]
    assert str(tmp_path) not in json.dumps(about)
    assert os.uname().nodename not in json.dumps(about["machine"])


def test_a_split_model_in_a_manifest_is_known_by_all_its_parts(tmp_path: Path) -> None:
    """Other weights behind the same first part are another model: such a run must not be gone on with."""

    class Known:
        def require(self, spec: str) -> Any:
            return runner_file(spec, first)

    def known_as() -> str:
        about = runner.manifest(RunPlan(parse_methods(["draft"], config()), ITEMS, [1]), Known())  # type: ignore[arg-type]
        return str(about["methods"]["draft"]["models"]["draft"]["sha256"])

    first = write_tiny(tmp_path / "a.gguf", "llama", part_tensors=6)
    before = known_as()
    with max(tmp_path.glob("a-*.gguf")).open("ab") as last:
        last.write(b"0" * 32)
    assert known_as() != before


def runner_file(spec: str, file: Path) -> Any:
    from alignbeam_local.models.registry import ModelFile

    return ModelFile(spec, file)


def test_a_role_without_a_model_is_told_before_anything_is_asked() -> None:
    bare = Config.of({"draft": None})
    with pytest.raises(UsageError, match="method draft: no draft is named"):
        runner.manifest(RunPlan([parse_method("draft", bare)], ITEMS, [1]), fake_pool()._registry)


@pytest.mark.parametrize("spare", [0, 100])
def test_a_disk_that_fills_loses_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    fake_loader(monkeypatch)
    folder = tmp_path / "run"
    whole(folder, stop_after=3)
    size = (folder / SAMPLES).stat().st_size
    with no_file_beyond(size + spare), pytest.raises(OSError, match="too large"):
        whole(folder)
    assert len(RunDirectory(folder).samples()) == 3
    assert timeless(whole(folder)) == timeless(whole(tmp_path / "uninterrupted"))
