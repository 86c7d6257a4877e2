"""Choosing anew among a run's beams gives what a run with those knobs gives."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alignbeam_local.config import Config
from alignbeam_local.engine.open_judge import open_judge
from alignbeam_local.engine.open_reader import OpenHead
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.evaluation.methods.grid import parse_grid
from alignbeam_local.evaluation.methods.specs import parse_methods
from alignbeam_local.evaluation.runs.reread import anchors_now, read_anew
from alignbeam_local.evaluation.runs.rescore import judge_scorer
from alignbeam_local.evaluation.runs.reselect import (
    judged_anew,
    require_selecting,
    reselected,
    reselected_manifest,
)
from alignbeam_local.evaluation.runs.resteer import alone_samples, place_of, steering_anew
from alignbeam_local.evaluation.runs.run_directory import Log, key_of
from alignbeam_local.evaluation.runs.runner import RunPlan, run
from alignbeam_local.evaluation.runs.scored_anew import kept_config
from alignbeam_local.heads.features import RequestReader
from alignbeam_local.heads.head import RequestHead
from alignbeam_local.lm.language_model import Logits
from alignbeam_local.models.registry import Registry
from alignbeam_local.prompt.formats import prompt_format
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import ModelCard, Verdict
from alignbeam_local.search.steering import steering_of, with_judge
from tests.fake_engine import FakeEngine
from tests.fake_lm import FakeLM, hashed_row, spelt
from tests.fake_loader import FakeModel
from tests.fake_pool import ANCHOR, ASSISTANT, DRAFT, ITEMS, REGISTRY, config, fake_loader, fake_pool
from tests.running import run as run_command
from tests.templates import CHATML
from tests.test_safety_tokens import token_file
from tests.test_steering import HEAD

GRID = parse_grid(["threshold=1.5,2.9,3,3.1,5", "choice=safest,likeliest", "on_unsafe=refuse,lowest"])
#: The fake engine reads no requests.
UNREAD = ("--method", "alignbeam", "--choice", "safest")
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
        own["config"]["read_request"] = other["config"]["read_request"]  # a run of `eval` always reads it
        assert {key: own[key] for key in WHOLE} == {key: other[key] for key in WHOLE}
        assert own["refusal"]["is_refusal"] == other["refusal"]["is_refusal"]
    outcomes = {(s["result"]["finish_reason"], s["result"]["chosen"]) for s in made}
    assert len(outcomes) > 2  # the knobs made a difference


def test_a_run_by_a_gate_is_chosen_from_without_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its beams are made; a run does not say where the file of safety tokens was."""
    file = str(token_file(tmp_path / "tokens.json", "S", "I", vocabulary=DRAFT))
    fake_loader(monkeypatch, judge=FakeModel(ANCHOR, unsure_row))
    spec = f"alignbeam:anchor_row=gated,safety_file={file}"
    _, choices = reselected_manifest(
        manifest_of("alignbeam", anchor_row="gated"), parse_grid(["threshold=1.5,3", "on_unsafe=lowest"])
    )
    generated = samples_of([spec], tmp_path / "first")
    Path(file).unlink()
    found = [
        reselected(sample, name, knobs.with_values({"seed": 1}))["result"]
        for sample in generated
        for name, knobs in choices["alignbeam"]
    ]
    assert {result["config"]["anchor_row"] for result in found} == {"gated"}
    assert {result["config"]["threshold"] for result in found} == {1.5, 3.0}


def test_a_run_whose_manifest_has_a_knob_that_is_no_more_is_chosen_from() -> None:
    manifest = manifest_of("alignbeam")
    manifest["methods"]["alignbeam"]["knobs"]["header_probe"] = "off"
    changed, choices = reselected_manifest(manifest, parse_grid(["on_unsafe=lowest"]))
    assert [name for name, _ in choices["alignbeam"]] == list(changed["methods"])


#: How harmful the head finds a text that holds this.
READS = {b"": -4.0, b"Burn?": 4.0, b"2+2?": 0.0}
RULES = parse_grid(
    [
        "choice=safest,likeliest,lowest,mixture,anchor,votes,by_request",
        "min_start=0,0.4",
        "on_unsafe=refuse,lowest",
    ]
)


def state_by_reads(tokens: Sequence[int]) -> Logits:
    text = spelt(ANCHOR, tokens)
    return np.array([[logit for word, logit in READS.items() if word in text][-1], 0.0], np.float32)


def read_as(monkeypatch: pytest.MonkeyPatch, head: RequestHead | None = HEAD, **models: FakeModel) -> None:
    """Models of whose anchor this is the head; its states are by `READS`."""

    loader = fake_loader(monkeypatch, BOTH, BOTH, judge=FakeModel(ANCHOR, unsure_row), **models)
    loader.models["anchor"] = replace(loader.models["anchor"], hidden=state_by_reads)
    monkeypatch.setattr("alignbeam_local.engine.engine.REQUEST_HEADS.find", lambda *_: head)


#: The anchor may refuse everything, and may help with everything.
BOTH = {
    f"{item.prompt}{ASSISTANT}": ["I can't help.", "Sure, do so.", "It is so."][:: 1 if at % 2 else -1]
    for at, item in enumerate(ITEMS)
}


def rounded(result: dict[str, Any]) -> dict[str, Any]:
    """Its scores to the digits that they have by way of the probabilities that are kept."""
    beams = [
        {**beam, "judge": {**beam["judge"], "score": round(beam["judge"]["score"], 6)}}
        for beam in result["beams"]
    ]
    return {**result, "beams": beams}


def test_every_rule_equals_a_run_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_as(monkeypatch)
    _, choices = reselected_manifest(manifest_of("alignbeam"), RULES)
    names = [name for name, _ in choices["alignbeam"]]
    generated = samples_of(["alignbeam"], tmp_path / "first")
    chosen = {
        key_of(found): found
        for sample in generated
        for name, knobs in choices["alignbeam"]
        for found in [reselected(sample, name, knobs.with_values({"seed": 1}))]
    }
    made = samples_of(names, tmp_path / "made")
    assert len(made) == len(chosen) == 28 * len(ITEMS)
    for sample in made:
        own, other = sample["result"], chosen[key_of(sample)]["result"]
        same = [key for key in WHOLE if key != "config"] + ["steering"]
        assert {key: rounded(own)[key] for key in same} == {key: rounded(other)[key] for key in same}
    decisions = {s["id"]: s["result"]["steering"]["decision"] for s in made}
    assert decisions == {"bad-1": "clear", "bad-2": "harmful", "good-1": "clear", "sums-1": "doubtful"}
    assert len({(s["id"], s["result"]["chosen"]) for s in made}) > len(ITEMS), "the rules made a difference"


def open_head() -> OpenHead:
    lm = FakeLM(ANCHOR, hashed_row(ANCHOR.size), hidden=state_by_reads, reads_layers=True)
    return OpenHead(HEAD, RequestReader(lm, prompt_format(CHATML, ANCHOR)))


def test_requests_read_again_are_as_in_a_run_that_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch)
    (off, on) = (
        samples_of([f"alignbeam:alpha=0.8,read_request={mode}"], tmp_path / mode) for mode in ("off", "on")
    )
    for unread, read in zip(off, on, strict=True):
        assert unread["result"]["steering"] is None
        again = read_anew(unread, [open_head()])
        assert again["result"]["steering"] == read["result"]["steering"]
        assert read_anew(read, [open_head(), open_head()])["result"]["steering"] == read["result"]["steering"]
    assert read_anew({"error": "too long"}, [open_head()]) == {"error": "too long"}


def test_the_command_that_reads_requests_again(
    engines: list[FakeEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    @contextmanager
    def opening(config: Config, _: object) -> Iterator[OpenHead]:
        opened.append(str(config.anchor))
        assert (config.context, config.max_tokens) == (700, 99), "as the run"
        yield open_head()

    monkeypatch.setattr("alignbeam_local.engine.open_reader.open_head", opening)
    suite = tmp_path / "s.jsonl"
    prompts = ("judged Burn?", "Why?")
    rows = [json.dumps({"prompt": prompt, "label": "harmful"}) for prompt in prompts]
    suite.write_text("\n".join(rows), encoding="utf-8")
    first, out = str(tmp_path / "first"), tmp_path / "again"
    methods = ("--method", "draft", "--method", "alignbeam", "--read-request", "off")
    room = ("--context", "700", "--max-tokens", "99")
    run_command("eval", "run", "--suite", str(suite), *methods, *room, "--out", first)
    words = ("eval", "reselect", first, "--grid", "steer=by_request", "--grid", "on_unsafe=refuse")
    assert "does not hold" in run_command(*words, "--out", str(out)).err
    assert run_command(*words, "--read-again", "--out", str(out)).code == 0
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [s["result"]["steering"]["decision"] for s in samples] == ["harmful", "clear"]
    assert [s["result"]["steering"]["alpha"] is None for s in samples] == [False, True]
    assert len(opened) == 1
    (about,) = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["methods"].values()
    assert about["knobs"]["read_request"] == "auto"


def test_anchors_that_are_not_the_runs_read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(**anchors: str) -> dict[str, Any]:
        models = {role: {"name": name, "sha256": name[:1]} for role, name in anchors.items()}
        return {"models": models, "knobs": {}}

    monkeypatch.setattr(
        "alignbeam_local.evaluation.runs.reread.about_model", lambda file, _: of(x=file)["models"]["x"]
    )
    registry: Any = type("Named", (), {"require": lambda _, name: name})()
    run = {"a": of(draft="d", anchor="old", anchor2="b"), "b": of(draft="e", anchor="old", anchor2="b")}
    assert list(anchors_now(run, registry)) == ["anchor", "anchor2"]
    with pytest.raises(UsageError, match="different anchors"):
        anchors_now(run | {"c": of(anchor="old")}, registry)
    by_path = {"models": {"anchor": {"name": "my-anchor"}}, "knobs": {}}
    with pytest.raises(UsageError, match="my-anchor was given by its file") as told:
        anchors_now({"alignbeam": by_path}, Registry({}, {}, ""))
    assert "models import FILE --name my-anchor" in told.value.hint
    with pytest.raises(UsageError, match="left clear requests to the draft alone"):
        anchors_now({"a": {**run["a"], "knobs": {"steer": "by_request"}}}, registry)
    run["a"]["models"]["anchor"]["sha256"] = run["b"]["models"]["anchor"]["sha256"] = "another"
    with pytest.raises(ModelError, match="another file"):
        anchors_now(run, registry)


def test_the_judges_reading_of_requests_equals_a_run_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch)
    grid = parse_grid(
        ["choice=by_request", "request_by=head,judge,both", "threshold=2,5", "on_unsafe=refuse"]
    )
    _, choices = reselected_manifest(manifest_of("alignbeam"), grid)
    kept = samples_of(["alignbeam"], tmp_path / "first")
    names = [name for name, _ in choices["alignbeam"]]
    made = {key_of(sample): sample["result"] for sample in samples_of(names, tmp_path / "made")}
    for sample in kept:
        for name, knobs in choices["alignbeam"]:
            found = reselected(sample, name, knobs.with_values({"seed": 1}))
            own = made[key_of(found)]
            assert (found["result"]["chosen"], found["result"]["text"]) == (own["chosen"], own["text"])
    assert all(beam["judge"]["request"] is not None for s in kept for beam in s["result"]["beams"])
    (doubtful,) = [s for s in kept if s["result"]["steering"]["decision"] == "doubtful"]
    for beam in doubtful["result"]["beams"]:
        beam["judge"]["request"] = None
    for reader in ("judge", "both"):
        with pytest.raises(UsageError, match="does not hold what its judge made of the requests"):
            reselected(doubtful, "x", config(depth=2, beams=3, choice="by_request", request_by=reader))
    by_head = config(depth=2, beams=3, steer="by_request", choice="likeliest", request_by="judge")
    assert reselected(doubtful, "x", by_head)["result"]["steering"]["by"] == "head"


def test_a_run_whose_requests_both_read_holds_no_thresholds_of_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch)
    made = samples_of(["alignbeam:choice=by_request,request_by=both"], tmp_path / "first")
    (doubtful,) = [s for s in made if s["result"]["steering"]["by"] == "both"]
    again = reselected(doubtful, "x", config(depth=2, beams=3, choice="by_request", request_by="both"))
    assert again["result"]["steering"] == doubtful["result"]["steering"]
    with pytest.raises(UsageError, match="read by head and judge"):
        reselected(doubtful, "x", config(depth=2, beams=3, choice="by_request"))


def test_a_run_with_thresholds_of_its_own_holds_none_of_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch)
    (sample, *_) = samples_of(["alignbeam:clear_below=0.1"], tmp_path / "first")
    kept = config(depth=2, beams=3, choice="by_request", clear_below=0.1)
    assert reselected(sample, "x", kept)["result"]["steering"] == sample["result"]["steering"]
    (clamped, *_) = samples_of(["alignbeam:clear_below=0.99"], tmp_path / "second")
    with pytest.raises(UsageError, match=r"made with clear_below = 0\.99, and the head's own"):
        reselected(clamped, "x", kept.with_values({"clear_below": 0.2}))
    for other in ({"clear_below": None}, {"request_by": "both"}):
        with pytest.raises(UsageError, match=r"made with clear_below = 0\.1, and the head's own"):
            reselected(sample, "x", kept.with_values(other))


def test_thresholds_of_the_mean_of_two_readers_hide_none_of_the_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch)
    kept = config(
        depth=2, beams=3, choice="by_request", request_by="both", clear_below=0.3, harmful_above=0.6
    )
    own = "alignbeam:choice=by_request,request_by=both,clear_below=0.3,harmful_above=0.6"
    made = samples_of([own], tmp_path / "made")
    assert {one["result"]["steering"]["by"] for one in made} == {"head", "both"}
    for sample in made:
        assert reselected(sample, "x", kept)["result"]["steering"] == sample["result"]["steering"]


@pytest.mark.parametrize("reader", ["head", "both"])
def test_steering_by_request_takes_the_drafts_own_answers(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch)
    grid = parse_grid(
        ["steer=by_request", "threshold=5", "choice=by_request", "on_unsafe=refuse", f"request_by={reader}"]
    )
    about = manifest_of("alignbeam", "draft")
    about["methods"]["draft"]["knobs"] = {**about["methods"]["draft"]["knobs"], "depth": 0, "beams": 1}
    _, choices = reselected_manifest(about, grid)
    ((name, knobs),) = choices["alignbeam"]
    kept = samples_of(["draft", "alignbeam"], tmp_path / "first")
    alone = alone_samples(kept)
    made = {s["id"]: s["result"] for s in samples_of([name], tmp_path / "made")}
    for sample in kept:
        if sample["method"] != "alignbeam":
            continue
        found = reselected(sample, name, knobs.with_values({"seed": 1}), alone[place_of(sample)])["result"]
        own = made[sample["id"]]
        assert (found["text"], found["finish_reason"]) == (own["text"], own["finish_reason"])
        assert {**found["steering"], "unsteered": None} == {**own["steering"], "unsteered": None}
        if own["steering"]["decision"] == "clear":
            assert found["notices"] == ["the draft's own answer was not judged"]
            assert found["timings"]["total_ms"] > 0


def test_an_own_answer_that_another_judge_calls_unsafe_gives_way_to_the_beams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch)
    knobs = config(depth=2, beams=3, steer="by_request", on_unsafe="lowest", seed=1)
    kept = samples_of(["draft", "alignbeam"], tmp_path / "first")
    card = ModelCard("other", "other", "0" * 64, "Q4")
    judged = [judged_anew(sample, CountingJudge(), card, 2.5) for sample in kept]  # type: ignore[arg-type]
    alone = alone_samples(judged)
    (sample,) = [s for s in judged if (s["method"], s["id"]) == ("alignbeam", "good-1")]
    found = reselected(sample, "x", knobs, alone[place_of(sample)])["result"]
    assert found["steering"]["decision"] == "clear"
    assert found["steering"]["unsteered"]["verdict"] == "unsafe"
    assert len(found["beams"]) == 3


@pytest.mark.parametrize("has_alone", [True, False])
def test_an_own_answer_that_was_taken_back_stays_so(
    has_alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's judge called it unsafe; a looser threshold may let it stand, if the run has its text."""
    read_as(monkeypatch)
    specs = ["draft", "alignbeam:steer=by_request,on_unsafe=refuse,read_clear=always,threshold=1.5"]
    kept = samples_of(specs, tmp_path / "first")
    alone = alone_samples(kept)
    again = [s for s in kept if s["method"] != "draft" and s["result"]["steering"]["unsteered"]]
    assert again
    for sample in again:
        knobs = kept_config(sample["result"]["config"])
        own = alone[place_of(sample)] if has_alone else None
        found = reselected(sample, sample["method"], knobs, own)["result"]
        for name in ("text", "finish_reason", "refusal", "beams", "steering", "chosen"):
            assert found[name] == sample["result"][name], name
        loose = knobs.with_values({"threshold": 5})
        if own:
            assert reselected(sample, "x", loose, own)["result"]["text"] == own["result"]["text"]
        else:
            with pytest.raises(UsageError, match="lacks the draft's own answer"):
                reselected(sample, "x", loose, own)


def test_what_was_read_in_part_no_threshold_clears_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch)
    (sample, *_) = samples_of(["alignbeam"], tmp_path / "read")
    kept = sample["result"]["steering"]
    kept |= {"p": 0.4, "whole": 0.4, "decision": "doubtful", "low": 0.2, "high": 0.8}
    clear = config(steer="by_request", clear_below=0.5)
    found = steering_anew(sample["result"], clear)
    assert found is not None
    assert found.decision == "clear"
    kept["partial"] = True
    as_unread = steering_anew(sample["result"], clear)
    assert as_unread is not None
    assert (as_unread.p, as_unread.decision, as_unread.alpha) == (None, None, 0.5)
    doubtful = steering_anew(sample["result"], config(steer="by_request"))
    assert doubtful is not None
    assert (doubtful.decision, doubtful.partial) == ("doubtful", True)


@pytest.mark.parametrize(("judged", "decision"), [(0.01, "doubtful"), (0.99, "harmful")])
def test_what_was_read_in_part_and_by_both_is_the_same_anew(judged: float, decision: str) -> None:
    both = config(steer="by_request", request_by="both")
    read = replace(steering_of(both, 0.3, 0.3, 0.2, 0.8), partial=True)
    live = with_judge(both, read, judged)
    verdict = {"score": 1.0, "raw": 1.0, "probabilities": {}, "verdict": "safe", "request": judged}
    found = steering_anew({"steering": asdict(live), "beams": [{"judge": verdict}]}, both)
    assert found == live
    assert (live.decision, live.partial) == (decision, True)


def test_answers_by_other_safety_tokens_are_another_drafts() -> None:
    manifest = manifest_of("alignbeam", "draft")
    grid = parse_grid(["steer=by_request", "on_unsafe=refuse"])
    for method, tokens in ("draft", "a"), ("alignbeam", "b"):
        about = manifest["methods"][method]
        about["knobs"] = {**about["knobs"], "safety_tokens": "boost"}
        about["safety_tokens"] = {"sha256": tokens}
    with pytest.raises(UsageError, match="method `draft` differs from alignbeam: safety_file"):
        reselected_manifest(manifest, grid)
    manifest["methods"]["draft"]["safety_tokens"] = {"sha256": "b"}
    reselected_manifest(manifest, grid)


def test_what_a_run_does_not_hold_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_as(monkeypatch)
    with pytest.raises(UsageError, match="this run has no method `draft`"):
        reselected_manifest(manifest_of("alignbeam"), parse_grid(["steer=by_request", "on_unsafe=refuse"]))
    differing = manifest_of("alignbeam", "draft")
    differing["methods"]["draft"]["knobs"] = {**differing["methods"]["draft"]["knobs"], "temperature": 1.0}
    for grid in (["steer=by_request", "on_unsafe=refuse"], ["clear_below=0.5", "on_unsafe=refuse"]):
        with pytest.raises(UsageError, match="method `draft` differs from alignbeam: temperature"):
            reselected_manifest(differing, parse_grid(grid))
        differing["methods"]["alignbeam"]["knobs"] |= {"steer": "by_request"}
    assert reselected_manifest(manifest_of("alignbeam", steer="by_request"), parse_grid(["on_unsafe=refuse"]))
    several = manifest_of("alignbeam")
    several["methods"]["alignbeam"]["models"] = {"draft": {}, "anchor": {}, "anchor2": {}, "judge": {}}
    with pytest.raises(UsageError, match="one head's reading of a request is kept"):
        reselected_manifest(several, parse_grid(["clear_below=0.3", "on_unsafe=refuse"]))
    (sample, *_) = samples_of(["alignbeam"], tmp_path / "unread")
    for beam in sample["result"]["beams"]:
        del beam["p_first"]
    for knobs in ({"choice": "anchor"}, {"choice": "mixture"}, {"min_start": 0.1}):
        with pytest.raises(UsageError, match="does not hold what choice="):
            reselected(sample, "x", config(depth=2, beams=3, **knobs))
    sample["result"]["steering"] = None
    with pytest.raises(UsageError, match="does not hold what its requests were read as"):
        reselected(sample, "x", config(depth=2, beams=3, choice="by_request"))
    assert reselected(sample, "x", config(depth=2, beams=3, choice="votes"))
    (steered, *_) = samples_of(["alignbeam:steer=by_request,threshold=5"], tmp_path / "steered")
    assert steered["result"]["steering"]["alpha"] is None
    with pytest.raises(UsageError, match="would steer a request that the run left to the draft alone"):
        reselected(steered, "x", config(depth=2, beams=3))
    sample["result"]["steering"] = {**steered["result"]["steering"], "alpha": 0.5}
    with pytest.raises(UsageError, match="lacks the draft's own answer"):
        reselected(sample, "x", config(depth=2, beams=3, steer="by_request"))
    again = reselected(steered, "x", config(depth=2, beams=3, steer="by_request", threshold=5))
    assert again["result"]["text"] == steered["result"]["text"]
    assert again["result"]["timings"] == steered["result"]["timings"]


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
    beams = [{"index": 0, "tokens": 3, "text": "See above."}]
    result = {"beams": beams, "chosen": None, "reasoning": None, "usage": {"completion_tokens": 9}}
    sample = {"id": "x-1", "prompt": "Steal?", "result": result}
    with pytest.raises(UsageError, match="what the draft reasoned before an answer that was blocked"):
        judged_anew(sample, None, None, 2.5)  # type: ignore[arg-type]
    shown = {**result, "text": "See above.", "chosen": 0, "config": {}}
    with pytest.raises(UsageError, match="or that a server made, is not kept"):
        judge_scorer(SimpleNamespace(forget=lambda: None), 2.5)("Steal?", shown)  # type: ignore[arg-type]


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
    with pytest.raises(UsageError, match="can't stand for both"):
        reselected_manifest(manifest_of("alignbeam", head_votes=True), GRID, {"name": "another"})


def test_a_run_that_answered_earlier_turns_itself_is_not_chosen_from_anew() -> None:
    """Its last questions were asked behind answers that the old threshold and choice had given."""
    with pytest.raises(UsageError, match="earlier turns"):
        reselected_manifest(manifest_of("alignbeam") | {"turns": "own"}, GRID)
    assert reselected_manifest(manifest_of("alignbeam") | {"turns": "given"}, GRID)


def test_the_command(engines: list[FakeEngine], tmp_path: Path) -> None:
    suite = tmp_path / "s.jsonl"
    suite.write_text(json.dumps({"prompt": "judged", "label": "harmful"}), encoding="utf-8")
    first, out = str(tmp_path / "first"), str(tmp_path / "chosen")
    assert run_command("eval", "run", "--suite", str(suite), *UNREAD, "--out", first).code == 0
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

    def judge(
        self, turns: Sequence[Message], answers: Sequence[str], threshold: float, asked: Any = None
    ) -> list[Verdict]:
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
    run_command("eval", "run", "--suite", str(suite), *UNREAD, "--out", str(first))
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
