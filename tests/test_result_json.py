"""What is written for other programs and read from them; and shares with their intervals."""

import json
from math import inf, isclose, nan, sqrt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbeam_local.config import Config
from alignbeam_local.errors import (
    EXIT_CODES,
    AlignBeamError,
    ContextFull,
    ModelError,
    UsageError,
    did_you_mean,
)
from alignbeam_local.evaluation.methods.grid import grid_methods, parse_grid
from alignbeam_local.intervals import auc_error, wilson_interval
from alignbeam_local.result import json_safe
from alignbeam_local.result_json import (
    error_object,
    json_line,
    one_of_each,
    parsed,
    parsed_row,
    traced_object,
)
from tests.fake_engine import STEP, fake_result

# --- json_safe


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_what_is_no_number_is_null_however_deep(value: float) -> None:
    assert json_safe(value) is None
    assert json_safe({"a": [(value, 1.5)], "b": {"c": value}}) == {"a": [[None, 1.5]], "b": {"c": None}}


@pytest.mark.parametrize("value", [0, 1.5, True, None, "nan", [], {}])
def test_all_else_stays(value: Any) -> None:
    assert json_safe(value) == value
    assert type(json_safe(value)) is type(value)


def test_a_result_with_scores_that_are_none_is_json() -> None:
    found = json.loads(json_line(fake_result("x", Config()).as_dict()))
    assert found["beams"][0]["judge"]["raw"] is None
    assert found["beams"][0]["judge"]["score"] == 1.2


# --- lines


@pytest.mark.parametrize("mark", ["\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_line_is_one_line_for_every_reader(mark: str) -> None:
    line = json_line({"a": f"x{mark}y"})
    assert len(line.splitlines()) == 1
    assert json.loads(line) == {"a": f"x{mark}y"}


@settings(max_examples=50)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_value_comes_back(value: Any) -> None:
    assert json.loads(json_line(value)) == value


def test_scripts_are_written_as_they_are_and_half_characters_escaped() -> None:
    assert json_line("日本é") == '"日本é"'
    assert json_line("é\ud800") == '"\\u00e9\\ud800"'


def test_a_step_says_that_it_is_one() -> None:
    found = traced_object(STEP)
    assert found["event"] == "step"
    assert (found["token"], found["won_by"], found["top"][0]["piece"]) == (7, "anchor", "Hi")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AlignBeamError("m", "h"), "error"),
        (UsageError("m", "h"), "usage"),
        (ModelError("m", "h"), "model"),
        (ContextFull("m", "h"), "context"),
    ],
)
def test_an_error_as_an_object(error: AlignBeamError, kind: str) -> None:
    assert error_object(error) == {"type": kind, "message": "m", "hint": "h"}
    assert type(error).exit_code in EXIT_CODES


# --- what is read


@pytest.mark.parametrize("read", [parsed, parsed_row])
@pytest.mark.parametrize("text", ["", "{", '"\\ud800"', '{"a": ["\\udfff"]}', "[1,]"])
def test_what_is_not_read(read: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read(text)


def test_a_name_that_is_there_twice_is_refused_in_what_a_person_wrote() -> None:
    text = '{"a": 1, "b": {"c": 1, "c": 2}}'
    assert parsed(text) == {"a": 1, "b": {"c": 2}}
    with pytest.raises(ValueError, match="'c' is there twice"):
        parsed_row(text)
    assert one_of_each([("a", 1), ("b", 1)]) == {"a": 1, "b": 1}


# --- intervals


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (1, 100, 0.0018, 0.0545)],
)
def test_wilsons_interval_by_its_table(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@settings(max_examples=50)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_its_ends_are_where_the_share_is_196_deviations_away(drawn: tuple[int, int]) -> None:
    successes, n = drawn
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1
    for end in (low, high):
        if 1e-9 < end < 1 - 1e-9:
            deviation = sqrt(end * (1 - end) / n)
            assert isclose(abs(successes / n - end), 1.96 * deviation, rel_tol=1e-6, abs_tol=1e-9)


@settings(max_examples=30)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_failures_have_the_same_interval_from_the_other_side(drawn: tuple[int, int]) -> None:
    successes, n = drawn
    low, high = wilson_interval(successes, n)
    assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low))


def test_the_error_of_an_area_by_hand() -> None:
    # AUC .5: q1 = q2 = 1/3; (.25 + 2 * (n - 1) / 12) / n**2 with n = 4 of each
    assert auc_error(0.5, 4, 4) == pytest.approx(sqrt((0.25 + 2 * 3 * (1 / 3 - 0.25)) / 16))
    assert auc_error(1.0, 5, 9) == 0.0


def test_more_pairs_are_a_smaller_error() -> None:
    errors = [auc_error(0.8, n, 2 * n) for n in (2, 5, 20, 100)]
    assert errors == sorted(errors, reverse=True)


# --- hints


@pytest.mark.parametrize(
    ("name", "hint"),
    [("dra", "Did you mean draft?"), ("anchr", "Did you mean anchor?"), ("zzz", "else"), ("", "else")],
)
def test_what_may_have_been_meant(name: str, hint: str) -> None:
    assert did_you_mean(name, iter(["draft", "anchor"]), "else") == hint


def test_several_may_have_been_meant() -> None:
    assert did_you_mean("al", ["alpha", "alps", "x"], "-", num=2) == "Did you mean alpha or alps?"


# --- grids

BASE = Config.of({"draft": "d", "anchor": "a", "judge": "j"})


def names(*specs: str) -> list[str]:
    return [entry.name for entry in grid_methods(parse_grid(specs), BASE)]


def test_values_are_trimmed_and_each_counts_once() -> None:
    assert parse_grid(["alpha= 0, 0.5 ,0,", "K=1,2"]) == {"alpha": ["0", "0.5"], "beams": ["1", "2"]}


def test_the_last_knob_moves_fastest() -> None:
    assert names("alpha=0,1", "depth=2,3") == [
        *("alignbeam:alpha=0,depth=2", "alignbeam:alpha=0,depth=3"),
        *("alignbeam:alpha=1,depth=2", "alignbeam:alpha=1,depth=3"),
    ]


def test_what_comes_to_the_same_is_one() -> None:
    assert names("alpha=0.5,0.50,.5") == ["alignbeam:alpha=0.5"]


def test_without_a_judge_one_beam_is_left_whatever_their_number() -> None:
    assert names("judge=on,off", "K=2,3", "on_unsafe=refuse") == [
        *("alignbeam:beams=2,on_unsafe=refuse", "alignbeam:beams=3,on_unsafe=refuse"),
        "alignbeam:beams=1,on_unsafe=auto",
    ]


def test_no_grid_is_the_method_itself() -> None:
    assert names() == ["alignbeam"]


@pytest.mark.parametrize(
    ("specs", "message", "hint"),
    [
        (["alpha"], "--grid alpha: no values", "Write KNOB=VALUE,VALUE."),
        (["alpha=,"], "--grid alpha=,: no values", "Write KNOB=VALUE,VALUE."),
        (["beems=1"], "--grid beems=1: 'beems' is not a knob that can be swept", "Knobs: alpha, "),
        (["seed=1"], "--grid seed=1: 'seed' is not a knob that can be swept", "Knobs: "),
        (["parallel=2"], "--grid parallel=2: 'parallel' is not a knob that can be swept", "Knobs: "),
        (["profile=x"], "--grid profile=x: 'profile' is not a knob that can be swept", "Knobs: "),
        (["K=1", "beams=2"], "--grid: beams is given twice", "Give all its values at once."),
        (["judge=on,x"], "--grid judge=on,x: the judge is on or off", "Choose the model with --judge."),
    ],
)
def test_a_grid_that_cannot_be(specs: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_grid(specs)
    assert (caught.value.message, caught.value.hint.startswith(hint)) == (message, True)


def test_no_judge_contradicts_judging_early() -> None:
    with pytest.raises(UsageError, match="--grid judge=off contradicts judge_at"):
        grid_methods(parse_grid(["judge=off", "judge_at=8"]), BASE)


def test_a_value_out_of_range_is_named() -> None:
    with pytest.raises(UsageError, match="alpha = '2'"):
        grid_methods(parse_grid(["alpha=2"]), BASE)
