"""From readings to scores: the fit, its record, and what `check` tells."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.intervals import Z95, auc_error, auc_interval, wilson_interval
from alignbeam_local.judge import calibration
from alignbeam_local.judge.calibration import (
    LABELS,
    Calibration,
    auc,
    class_weights,
    find_calibration,
    fit_line,
    fit_scores,
    load_calibration,
    record_file,
    save_calibration,
    sigmoid,
)
from alignbeam_local.judge.check import (
    PAIRS_FILE,
    Measured,
    Pair,
    calibrate,
    held_out,
    read_pairs,
    report,
    require_splits,
)
from alignbeam_local.judge.formats import UNREADABLE, JudgeReading
from alignbeam_local.result import ModelCard

LINE = {"slope": 1.0, "intercept": 0.0}


def record(**changes: object) -> Calibration:
    values = {
        "judge": "fake",
        "judge_sha256": "ab",
        "key": "cd",
        "fit": {"answer": LINE, "request": LINE, "final": LINE},
        "held_out": {"compliance": (4.5, 3.0), "refusal": (1.0,) * 20, "benign": (1.0,) * 9 + (3.0,)},
        "figures": {},
        "pairs_sha256": "ef",
        "date": "2026-01-01",
        "version": "0.1.0",
    }
    return Calibration.model_validate({**values, **changes})


# --- the fit


def test_the_fit_recovers_known_coefficients() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=40_000) * 5.0 + 2.0
    line = fit_line(x, random.random(len(x)) < sigmoid(0.3 * x - 0.7), np.ones(len(x)))
    assert (line.slope, line.intercept) == pytest.approx((0.3, -0.7), abs=0.05)


def test_separable_data_give_a_finite_slope() -> None:
    line = fit_line(np.array([0.0, 1.0, 9.0, 10.0]), np.array([False, False, True, True]), np.ones(4))
    assert 0 < line.slope < 5
    assert -line.intercept / line.slope == pytest.approx(5.0, abs=0.1)


def test_a_feature_that_falls_is_refused() -> None:
    with pytest.raises(ModelError, match="above harmful"):
        fit_scores(np.array([[0.0], [1.0]] * 5), ["compliance", "benign"] * 5)


def test_request_and_answer_are_fitted_apart_and_multiplied() -> None:
    helps, harmful = np.array([3.0, -3.0, 3.0, 3.0] * 20), np.array([2.0, 2.0, -2.0, -2.0] * 20)
    fit = fit_scores(np.column_stack([helps, harmful]), ["compliance", "refusal", "benign", "alarming"] * 20)
    complied, very_harmful_but_refused, benign = fit.score([[3.0, 2.0], [-3.0, 9.0], [3.0, -2.0]])
    assert complied > 4
    assert very_harmful_but_refused < 2
    assert benign < 2


def test_classes_weigh_one_to_one_and_harmless_labels_alike() -> None:
    labels = ["compliance"] * 2 + ["refusal"] * 6 + ["benign"] * 3 + ["alarming"]
    weights = dict(zip(labels, class_weights(labels), strict=True))
    assert class_weights(labels).sum() == pytest.approx(len(labels))
    assert weights["compliance"] * 2 == pytest.approx(len(labels) / 2)
    assert (
        weights["refusal"] * 6 == pytest.approx(weights["benign"] * 3) == pytest.approx(weights["alarming"])
    )


def test_one_class_alone_cannot_be_fitted() -> None:
    with pytest.raises(ModelError, match="both"):
        fit_scores(np.array([[0.0], [1.0]]), ["benign", "refusal"])


def test_the_score_is_worked_by_hand() -> None:
    assert record().score((0.0, 50.0)) == pytest.approx(3.0)  # 1/2 * 1: even odds
    assert record().score((0.0, 0.0)) == pytest.approx(2.0)  # 1/2 * 1/2: a quarter
    assert record(fit={"final": {"slope": 1, "intercept": 0}}).score((np.log(3),)) == pytest.approx(4.0)


@given(st.floats(-50, 50), st.floats(0, 10), st.floats(-50, 50), st.floats(0, 10))
def test_the_score_rises_with_every_feature(answer: float, more: float, request: float, worse: float) -> None:
    low, high = record().score((answer, request)), record().score((answer + more, request + worse))
    assert 1 <= low <= high + 1e-9 <= 5 + 2e-9


def test_auc_counts_ties_half() -> None:
    assert auc([2.0, 3.0], [1.0, 2.0]) == pytest.approx(3.5 / 4)
    assert np.isnan(auc([], [1.0]))


def test_a_pair_may_hold_any_line_separator(tmp_path: Path) -> None:
    pair = {"question": "Q", "answer": "one\u2028two\u0085three", "label": "benign"}
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(pair, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [one.answer for one in read_pairs(file)] == [pair["answer"]]


def test_auc_of_what_was_not_scored_is_a_tie() -> None:
    unscored = float("inf")
    assert auc([unscored], [unscored]) == 0.5
    assert auc([unscored, unscored, 3.0], [unscored, unscored, 1.0]) == pytest.approx(5 / 9)


def test_files_of_one_name_have_a_record_each() -> None:
    one, other = "ab" * 32, "cd" * 32
    assert len({record_file(one, "e" * 64), record_file(other, "e" * 64), record_file(one, "f" * 64)}) == 3


# --- the record


def test_a_record_may_block_if_it_spares_harmless_answers() -> None:
    assert record().allows_refusal(2.5)
    many = {"compliance": (5.0,), "refusal": (1.0,) * 10, "benign": (3.0,) * 3 + (1.0,) * 7}
    assert not record(held_out=many).allows_refusal(2.5)
    assert record(held_out=many).allows_refusal(3.0)
    loud = {"refusal": (3.0,) * 2 + (1.0,) * 18, "benign": (1.0,)}
    assert not record(held_out=loud).allows_refusal(2.5)
    assert not record(held_out={}).allows_refusal(2.5)


def test_benign_and_alarming_count_together() -> None:
    scores = {"refusal": (1.0,), "benign": (1.0,) * 8, "alarming": (3.0,) * 2}
    assert record(held_out=scores).allows_refusal(2.5)


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGNBEAM_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(calibration, "SHIPPED", tmp_path / "shipped")
    return tmp_path


def test_a_record_is_found_by_hash_and_key_alone(data_dir: Path) -> None:
    save_calibration(record(), data_dir / "shipped" / "any-name.json")
    assert find_calibration("fake", "ab", "cd") == record()
    assert find_calibration("fake", "ab", "other") is None
    assert find_calibration("fake", "other", "cd") is None


def test_the_users_own_record_comes_first(data_dir: Path) -> None:
    save_calibration(record(), data_dir / "shipped" / "fake.json")
    save_calibration(record(judge="mine"), data_dir / "judges" / "fake.json")
    found = find_calibration("fake", "ab", "cd")
    assert found is not None
    assert found.judge == "mine"


@pytest.mark.parametrize(("file", "text"), [("fake", ""), ("fake", "{"), ("copy", '{"judge_sha256": "ab"')])
def test_a_damaged_record_is_an_error_of_its_own_judge_alone(data_dir: Path, file: str, text: str) -> None:
    path = data_dir / "judges" / f"{file}.json"
    save_calibration(record(judge_sha256="ef"), data_dir / "judges" / "other.json")
    path.write_text(text)
    with pytest.raises(ModelError, match=rf"{file}\.json"):
        find_calibration("fake", "ab", "cd")
    assert find_calibration("other", "ef", "cd") is not None


def test_a_record_made_anew_takes_the_place_of_damaged_and_older_ones(data_dir: Path) -> None:
    save_calibration(record(judge="old"), data_dir / "judges" / "0.json")
    (data_dir / "judges" / "fake.json").write_text("{")
    save_calibration(record(judge="new"), record_file("ab", "cd"))
    found = find_calibration("fake", "ab", "cd")
    assert found is not None
    assert found.judge == "new"
    record_file("ab", "cd").write_text("{")
    load_calibration.cache_clear()
    with pytest.raises(ModelError, match=r"ab-cd\.json"):
        find_calibration("renamed", "ab", "cd")


def test_slopes_of_a_record_do_not_fall() -> None:
    with pytest.raises(ValueError, match="slope"):
        record(fit={"final": {"slope": -0.1, "intercept": 0.0}})


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_record_holds_no_number_that_would_call_everything_safe(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        record(fit={"final": {"slope": 1.0, "intercept": value}})


# --- check


def test_the_shipped_pairs_are_read_and_split() -> None:
    pairs = read_pairs(PAIRS_FILE)
    assert len(held_out(pairs)) == len(pairs) // 2 == 160


@pytest.mark.parametrize(
    "line",
    [
        '{"question": "a", "answer": "b"}',
        '{"question": "a", "answer": "b", "label": "bad"}',
        '{"question": "a", "answer": "b", "answer": "c", "label": "benign"}',
        *("[]", "x", "[" * 9999),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, line: str) -> None:
    good = json.dumps({"question": "a", "answer": "b", "label": "benign", "more": 1})
    (tmp_path / "pairs.jsonl").write_text(f"{good}\n\n{line}\n")
    with pytest.raises(UsageError, match=r"pairs\.jsonl, line 3"):
        read_pairs(tmp_path / "pairs.jsonl")


def test_a_file_without_pairs_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("\n\n")
    with pytest.raises(UsageError, match=r"pairs\.jsonl holds no pair"):
        read_pairs(tmp_path / "pairs.jsonl")


def test_wilson_interval_by_hand() -> None:
    low, high = wilson_interval(0, 20)
    assert low == 0.0
    assert high == pytest.approx(0.161, abs=1e-3)
    assert wilson_interval(10, 20) == pytest.approx((0.299, 0.701), abs=1e-3)


def test_auc_error_by_hand() -> None:
    assert auc_error(1.0, 10, 10) == 0.0
    assert auc_error(0.5, 50, 50) == pytest.approx(0.058, abs=1e-3)


def test_an_area_of_one_is_no_surer_than_so_few_answers_are() -> None:
    assert auc_interval(1.0, 40, 90) == pytest.approx(wilson_interval(40, 40))
    assert auc_interval(0.0, 3, 2) == pytest.approx(wilson_interval(0, 2))
    low, high = auc_interval(0.5, 50, 50)
    assert (low, high) == pytest.approx((0.5 - Z95 * 0.058, 0.5 + Z95 * 0.058), abs=2e-3)


def measured(label: str, split: str, features: tuple[float, ...], raw: float = 3.0) -> Measured:
    pair = Pair.model_validate({"question": f"Q {split}", "answer": "A", "label": label, "split": split})
    return Measured(pair, JudgeReading({f"{raw:g}": 1.0}, 1.0, features))


def some_measured() -> list[Measured]:
    """Compliance has higher features; its raw reading says nothing."""
    centres = {"compliance": 3.0, "refusal": -3.0, "benign": -1.0, "alarming": 0.0}
    return [
        measured(label, split, (centre + 0.1 * i,))
        for label, centre in centres.items()
        for split in ("fit", "held_out")
        for i in range(10)
    ]


CARD = ModelCard("fake", "fake.gguf", "ab", "Q4")


def test_calibrating_keeps_the_held_out_scores() -> None:
    found = calibrate(some_measured(), "cd", CARD, threshold=2.5)
    assert (found.judge_sha256, found.key) == ("ab", "cd")
    assert {label: len(scores) for label, scores in found.held_out.items()} == dict.fromkeys(LABELS, 10)
    assert found.figures["above_compliance"] == 1.0
    assert found.figures["above_refusal"] == 0.0
    assert found.figures["auc_over_alarming"] == 1.0
    assert found.allows_refusal(2.5)


@pytest.mark.parametrize("split", ["fit", "held_out"])
@pytest.mark.parametrize("kept", [(), ("compliance",), ("refusal", "benign")])
def test_both_splits_hold_both_classes(split: str, kept: tuple[str, ...]) -> None:
    pairs = [one.pair for one in some_measured()]
    require_splits(pairs)
    with pytest.raises(UsageError, match=f"needs pairs of split '{split}'"):
        require_splits(pair for pair in pairs if pair.split != split or pair.label in kept)


def test_no_question_is_in_both_splits() -> None:
    """Figures of what was fitted on would flatter, and decide whether answers are blocked."""
    (first, *_), leaked = held_out_ones(), some_measured()[0]
    assert leaked.pair.split == "fit"
    pairs = [one.pair for one in some_measured()]
    with pytest.raises(UsageError, match="a question is in both splits"):
        require_splits([*pairs, leaked.pair.model_copy(update={"question": first.pair.question})])


def test_a_label_that_no_held_out_pair_has_has_no_figure() -> None:
    kept = [one for one in some_measured() if (one.pair.split, one.pair.label) != ("held_out", "alarming")]
    found = calibrate(kept, "cd", CARD, threshold=2.5)
    assert "auc_over_alarming" not in found.figures
    assert Calibration.model_validate_json(found.model_dump_json()) == found


def test_what_was_not_scored_cannot_be_calibrated() -> None:
    broken = Measured(some_measured()[0].pair, UNREADABLE)
    with pytest.raises(ModelError, match="score every pair"):
        calibrate([*some_measured(), broken], "cd", CARD, 2.5)


def test_the_report_counts_per_label_and_unscored_as_above() -> None:
    answers = [*held_out_ones(), Measured(measured("refusal", "held_out", (0.0,)).pair, UNREADABLE)]
    record = calibrate(some_measured(), "cd", CARD, threshold=2.5)
    found = report(answers, record, "fake", 2.5)
    rows = {row.label: row for row in found.rows}
    assert rows["compliance"].above == 1.0
    assert (rows["refusal"].n, rows["refusal"].unscored) == (11, 1)
    assert rows["refusal"].above == pytest.approx(1 / 11)
    assert rows["benign"].raw_above == 1.0
    assert {row.over: row.raw for row in found.aucs}["benign"] == 0.5


def held_out_ones() -> list[Measured]:
    return [one for one in some_measured() if one.pair.split == "held_out"]


def test_without_a_record_the_raw_reading_is_reported() -> None:
    found = report(held_out_ones(), None, "fake", 2.5)
    assert not found.calibrated
    assert all(row.above == row.raw_above == 1.0 for row in found.rows)
