"""Scores of kept runs, made anew with another reading of the request, are those of a run with it."""

from pathlib import Path

import pytest

from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.methods.grid import parse_grid
from alignbeam_local.evaluation.runs.reread import read_anew
from alignbeam_local.evaluation.runs.reselect import reselected, reselected_manifest
from alignbeam_local.evaluation.runs.run_directory import key_of
from tests.fake_pool import config
from tests.test_eval_reselect import manifest_of, open_head, read_as, rounded, samples_of


def test_another_reading_in_the_score_equals_a_run_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch)
    grid = parse_grid(["score_by=judge,head,both", "threshold=2,3", "on_unsafe=refuse"])
    _, choices = reselected_manifest(manifest_of("alignbeam"), grid)
    names = [name for name, _ in choices["alignbeam"]]
    made = {key_of(sample): sample["result"] for sample in samples_of(names, tmp_path / "made")}
    verdicts: dict[str, set[str]] = {}
    for kept_by in ("judge", "head", "both"):
        for sample in samples_of([f"alignbeam:score_by={kept_by}"], tmp_path / kept_by):
            for name, knobs in choices["alignbeam"]:
                found = reselected({**sample, "method": "alignbeam"}, name, knobs.with_values({"seed": 1}))
                own, other = made[key_of(found)], found["result"]
                assert (own["chosen"], own["text"]) == (other["chosen"], other["text"])
                for one, two in zip(own["beams"], other["beams"], strict=True):
                    assert one["judge"]["score"] == pytest.approx(two["judge"]["score"], abs=1e-5)
                    assert one["judge"]["verdict"] == two["judge"]["verdict"]
                    verdicts.setdefault(name, set()).add(f"{sample['id']} {two['judge']['verdict']}")
    assert len({frozenset(each) for each in verdicts.values()}) > 2, "the readings made a difference"


def test_scores_that_a_head_had_a_say_in_are_the_judges_own_once_it_reads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch)
    by_judge, by_both = (samples_of([f"alignbeam:score_by={by}"], tmp_path / by) for by in ("judge", "both"))
    for own, mixed in zip(by_judge, by_both, strict=True):
        again = read_anew(mixed, [open_head()])["result"]
        assert again["config"]["score_by"] == "judge"
        for one, two in zip(own["result"]["beams"], again["beams"], strict=True):
            assert one["judge"]["score"] == pytest.approx(two["judge"]["score"], abs=1e-5)


def test_a_head_that_came_after_the_run_counts_in_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch, head=None)
    without = samples_of(["alignbeam"], tmp_path / "without")
    read_as(monkeypatch)
    having = samples_of(["alignbeam"], tmp_path / "having")
    same = config(depth=2, beams=3, choice="by_request", seed=1)
    for unread, read in zip(without, having, strict=True):
        again = reselected(read_anew(unread, [open_head()]), "alignbeam", same)["result"]
        assert rounded(again)["beams"] == rounded(read["result"])["beams"]
        assert again["chosen"] == read["result"]["chosen"]


def test_what_was_chosen_anew_can_be_chosen_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_as(monkeypatch)
    by_both = config(depth=2, beams=3, choice="by_request", score_by="both")
    by_head = by_both.with_values({"score_by": "head"})
    for unread in samples_of(["alignbeam:read_request=off"], tmp_path / "off"):
        first = reselected(read_anew(unread, [open_head()]), "x", by_both)
        again, at_once = (reselected(s, "y", by_head) for s in (first, read_anew(unread, [open_head()])))
        assert rounded(again["result"])["beams"] == rounded(at_once["result"])["beams"]


def test_scores_without_the_record_that_made_them_are_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch)
    (sample, *_) = samples_of(["alignbeam:score_by=judge"], tmp_path / "first")
    other = config(depth=2, beams=3, choice="by_request", score_by="both")
    for beam in sample["result"]["beams"]:
        beam["judge"]["score"] = 1.0 + beam["judge"]["raw"] / 2
    with pytest.raises(UsageError, match="the record that this run's judge was calibrated with is not here"):
        reselected(sample, "x", other)
    sample["result"]["config"]["head_votes"] = True
    with pytest.raises(UsageError, match="not told apart"):
        reselected(sample, "x", other)


def test_an_answer_that_no_judge_read_is_not_called_unsafe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as(monkeypatch)
    knobs = "steer=by_request,threshold=4"
    always, needed = (
        samples_of([f"alignbeam:{knobs},read_clear={how}"], tmp_path / how) for how in ("always", "needed")
    )
    unread = [
        (read, sample)
        for read, sample in zip(always, needed, strict=True)
        if any(beam["judge"] and beam["judge"]["unread"] for beam in sample["result"]["beams"])
    ]
    assert unread, "some requests leave no answer unsafe"
    for read, sample in unread:
        assert read["result"]["text"] == sample["result"]["text"]
        assert read["result"]["beams"][0]["judge"]["score"] <= sample["result"]["beams"][0]["judge"]["score"]
        same = config(depth=2, beams=3, steer="by_request", threshold=4)
        assert reselected(sample, "x", same)["result"]["text"] == sample["result"]["text"]
        with pytest.raises(UsageError, match="did not read the draft's own answers"):
            reselected(sample, "x", same.with_values({"threshold": 1}))


def test_a_run_of_before_goes_by_the_judge_as_it_did() -> None:
    about = manifest_of("alignbeam")
    del about["methods"]["alignbeam"]["knobs"]["score_by"]
    _, choices = reselected_manifest(about, parse_grid(["on_unsafe=refuse"]))
    ((_, knobs),) = choices["alignbeam"]
    assert knobs.score_by == "judge"
