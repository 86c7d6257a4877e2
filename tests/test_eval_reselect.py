"""Choosing anew among a run's beams gives what a run with those knobs gives."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.engine.open_judge import open_judge
from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.methods.grid import parse_grid
from alignbeam_local.evaluation.methods.specs import parse_methods
from alignbeam_local.evaluation.runs.reselect import (
    judged_anew,
    require_selecting,
    reselected,
    reselected_manifest,
)
from alignbeam_local.evaluation.runs.run_directory import Log, key_of
from alignbeam_local.evaluation.runs.runner import RunPlan, run
from alignbeam_local.lm.language_model import Logits
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import ModelCard, Verdict
from tests.fake_engine import FakeEngine
from tests.fake_lm import hashed_row
from tests.fake_loader import FakeModel
from tests.fake_pool import ANCHOR, ITEMS, REGISTRY, config, fake_loader, fake_pool
from tests.running import run as run_command

GRID = parse_grid(["threshold=1.5,2.9,3,3.1,5", "choice=safest,likeliest", "on_unsafe=refuse,lowest"])
WHOLE = ("text", "finish_reason", "chosen", "beams", "usage", "config", "bridge")


def unsure_row(tokens: Sequence[int]) -> Logits:
    """A judge that says Yes and No by turns, and nothing else."""
    row = hashed_row(ANCHOR.size, scale=1.0)(tokens).copy()
    row[list(b"YN")] += 20
    return row


def samples_of(methods: list[str], file: Path) -> list[dict[str, Any]]:
    plan = RunPlan(parse_methods(methods, config(depth=2, beams=3)), ITEMS, [1])
    with Log(file) as log, closing(fake_pool()) as pool:
        return [sample for _, sample in run(plan, log, pool)]


def manifest_of(*names: str, **knobs: Any) -> dict[str, Any]:
    dumped = config(depth=2, beams=3, **knobs).model_dump(exclude={"seed", "draft", "anchor", "judge"})
    return {"methods": {name: {"knobs": dumped, "models": {}} for name in names}, "seeds": [1]}


def test_it_equals_a_run_with_those_knobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loader(monkeypatch, judge=FakeModel(ANCHOR, unsure_row))
    _, choices = reselected_manifest(manifest_of("alignbeam"), GRID)
    names = [name for name, _ in choices["alignbeam"]]
    assert len(names) == 20
    generated = samples_of(["alignbeam"], tmp_path / "first")
    chosen = {
        key_of(found): found
        for sample in generated
        for name, knobs in choices["alignbeam"]
        for found in [reselected(sample, name, knobs.with_values({"seed": 1}))]
    }
    made = samples_of(names, tmp_path / "made")
    assert len(made) == len(chosen) == 20 * len(ITEMS)
    for sample in made:
        own, other = sample["result"], chosen[key_of(sample)]["result"]
        assert {key: own[key] for key in WHOLE} == {key: other[key] for key in WHOLE}
        assert own["refusal"]["is_refusal"] == other["refusal"]["is_refusal"]
    outcomes = {(s["result"]["finish_reason"], s["result"]["chosen"]) for s in made}
    assert len(outcomes) > 2  # the knobs made a difference


def hedging_row(tokens: Sequence[int]) -> Logits:
    """A judge that says Yes and No by other turns."""
    row = hashed_row(ANCHOR.size, scale=2.0)(tokens)[::-1].copy()
    row[list(b"YN")] += 20
    return row


@pytest.mark.usefixtures("few_examples")
def test_beams_judged_anew_equal_a_run_with_that_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = fake_loader(
        monkeypatch, judge=FakeModel(ANCHOR, unsure_row), other=FakeModel(ANCHOR, hedging_row)
    )
    monkeypatch.setattr("alignbeam_local.engine.open_judge.Loader", loader)
    generated = samples_of(["alignbeam:on_unsafe=lowest"], tmp_path / "first")
    made = samples_of(["alignbeam:judge=other,on_unsafe=refuse"], tmp_path / "made")
    knobs = config(depth=2, beams=3, judge="other", on_unsafe="refuse", seed=1)
    with open_judge(knobs, REGISTRY) as (judge, card):
        anew = [judged_anew(sample, judge, card, knobs.threshold) for sample in generated]
    found = [reselected(sample, "alignbeam:judge=other,on_unsafe=refuse", knobs) for sample in anew]
    same = [key for key in WHOLE if key != "config"] + ["models"]
    for own, other in zip(made, found, strict=True):
        assert key_of(own) == key_of(other)
        assert {key: own["result"][key] for key in same} == {key: other["result"][key] for key in same}
    assert [s["result"]["beams"] for s in generated] != [s["result"]["beams"] for s in anew]


def test_reasoning_that_is_gone_is_not_judged_without() -> None:
    beams = [{"index": 0, "tokens": 3}]
    result = {"beams": beams, "chosen": None, "reasoning": None, "usage": {"completion_tokens": 9}}
    sample = {"id": "x-1", "prompt": "Steal?", "result": result}
    with pytest.raises(UsageError, match="x-1: what the draft reasoned before a blocked answer is not kept"):
        judged_anew(sample, None, None, 2.5)  # type: ignore[arg-type]


def test_what_has_no_answer_stays_as_it_is() -> None:
    failed = {"method": "alignbeam", "suite": "s", "id": "1", "seed": 1, "error": {"type": "context"}}
    assert reselected(failed, "other", config()) == {**failed, "method": "other"}
    reasoning = {**failed, "result": {"beams": [], "text": "", "finish_reason": "length"}}
    assert reselected(reasoning, "other", config())["result"] == reasoning["result"]
    for sample in (failed, reasoning):
        assert judged_anew(sample, None, None, 2.5) == sample  # type: ignore[arg-type]


def test_names_go_on_from_the_methods() -> None:
    run_made = manifest_of("alignbeam:alpha=0.2", on_unsafe="refuse")
    manifest, _ = reselected_manifest(run_made, {"threshold": ["3"]})
    (name,) = manifest["methods"]
    assert name == "alignbeam:alpha=0.2,threshold=3"
    assert manifest["methods"][name]["knobs"]["threshold"] == 3


def test_what_can_not_be_chosen_from() -> None:
    with pytest.raises(UsageError, match="no method of this run has judged beams"):
        reselected_manifest(manifest_of("alignbeam", judge_at=8), GRID)
    with pytest.raises(UsageError, match="no method of this run has judged beams"):
        reselected_manifest(manifest_of("guard", "nudging"), GRID)
    with pytest.raises(UsageError, match="depends on the judge's record"):
        reselected_manifest(manifest_of("alignbeam"), {"threshold": ["3"]})
    with pytest.raises(UsageError, match="depth decides how beams are made"):
        require_selecting(parse_grid(["threshold=2", "depth=1"]))
    with pytest.raises(UsageError, match="threshold"):
        reselected_manifest(manifest_of("alignbeam"), parse_grid(["threshold=high", "on_unsafe=lowest"]))


def test_the_command(engines: list[FakeEngine], tmp_path: Path) -> None:
    suite = tmp_path / "s.jsonl"
    suite.write_text(json.dumps({"prompt": "judged", "label": "harmful"}), encoding="utf-8")
    first, out = str(tmp_path / "first"), str(tmp_path / "chosen")
    assert (
        run_command("eval", "run", "--suite", str(suite), "--method", "alignbeam", "--out", first).code == 0
    )
    words = ("eval", "reselect", first, "--grid", "threshold=1,5", "--grid", "on_unsafe=refuse", "--out", out)
    for _ in range(2):  # the second time all is there
        ran = run_command(*words)
        assert (ran.code, ran.out) == (0, "")
    report = run_command("eval", "report", out, "--format", "csv")
    assert [line.split(",")[1] for line in report.out.splitlines()[1:]] == [
        '"alignbeam:threshold=1',
        '"alignbeam:threshold=5',
    ]
    assert run_command("eval", "reselect", first, "--grid", "alpha=1", "--out", out).code == 2
    samples = tmp_path / "first" / "samples.jsonl"
    samples.write_text(samples.read_text(encoding="utf-8").replace('"degenerate"', '"old"'), encoding="utf-8")
    old = run_command(*words[:-1], str(tmp_path / "other"))
    assert (old.code, "of an older version" in old.err) == (2, True)
    assert not (tmp_path / "other").exists()


class CountingJudge:
    """Calls every beam unsafe."""

    def __init__(self) -> None:
        self.asked = 0

    def forget(self) -> None: ...

    def judge(self, turns: Sequence[Message], answers: Sequence[str], threshold: float) -> list[Verdict]:
        self.asked += 1
        return [Verdict(4.5, 4.5, {}, "unsafe") for _ in answers]


def test_the_command_with_another_judge_goes_on_where_it_stopped(
    engines: list[FakeEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, name = CountingJudge(), "smollm2-135m-instruct"

    @contextmanager
    def opened(*_: object) -> Iterator[tuple[CountingJudge, ModelCard]]:
        yield judge, ModelCard(name, name, "0" * 64, "Q4")

    monkeypatch.setattr("alignbeam_local.engine.open_judge.open_judge", opened)
    suite = tmp_path / "s.jsonl"
    rows = [{"prompt": f"judged {n}", "label": "harmful"} for n in range(3)]
    suite.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    first, out = tmp_path / "first", tmp_path / "strict"
    run_command("eval", "run", "--suite", str(suite), "--method", "alignbeam", "--out", str(first))
    words = ("eval", "reselect", str(first), "--judge", name, "--grid", "on_unsafe=refuse", "--out", str(out))
    assert run_command(*words).code == 0
    whole = (out / "samples.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["result"]["finish_reason"] for line in whole.splitlines()] == ["blocked"] * 3
    (out / "samples.jsonl").write_text(whole.splitlines(keepends=True)[0], encoding="utf-8")
    assert run_command(*words).code == 0
    assert (out / "samples.jsonl").read_text(encoding="utf-8") == whole
    assert judge.asked == 3 + 2
    assert run_command(*words[:3], *words[5:]).code == 2  # the directory holds another judge's
    damaged = first / "samples.jsonl"
    damaged.write_text(damaged.read_text(encoding="utf-8").replace('"reasoning"', '"old"'), encoding="utf-8")
    ran = run_command(*words[:-1], str(tmp_path / "other"))
    assert (ran.code, "can't choose among the answers" in ran.err, judge.asked) == (2, True, 5)
    assert not (tmp_path / "other").exists()
