"""Intervals, tests and a judge's error against values worked out by hand or printed elsewhere."""

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbeam_local.evaluation.reports.statistics import (
    Estimate,
    JudgeError,
    bootstrap_mean,
    corrected_share,
    mcnemar,
    mean_difference,
    share,
)


def test_a_share_has_wilsons_interval() -> None:
    found = share([[1.0]] * 35 + [[0.0]] * 13)
    # p = 35/48, z = 1.96: centre (p + z²/96) / (1 + z²/48)
    assert found == pytest.approx((0.7292, 0.5900, 0.8343), abs=1e-4)


def test_where_all_prompts_say_the_same_there_is_still_an_interval() -> None:
    assert share([[0.0] * 3] * 20) == share([[0.0]] * 20)
    assert share([[0.5, 0.5]] * 20).low > 0
    assert mean_difference([[0.0]] * 2) == pytest.approx((0, -0.49, 0.49))
    always = mean_difference([[1.0, 1.0]] * 100)
    assert (always.value, always.high) == (1, 1)
    assert 0.9 < always.low < 1
    assert mean_difference([[1.0], [0.0]]) == bootstrap_mean([[1.0], [0.0]])


def test_several_answers_to_a_prompt_are_no_independent_ones() -> None:
    once = share([[1.0]] * 20 + [[0.0]] * 20)
    thrice = share([[1.0, 1.0, 1.0]] * 20 + [[0.0, 0.0, 0.0]] * 20)
    assert thrice.value == once.value == 0.5
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, abs=0.04)


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=3), min_size=1, max_size=8))
def test_a_bootstrap_holds_its_mean_and_repeats_itself(groups: list[list[float]]) -> None:
    found = bootstrap_mean(groups, resamples=200)
    assert found == bootstrap_mean(groups, resamples=200)
    assert 0 <= found.low <= found.high <= 1
    assert found.value == pytest.approx(sum(map(sum, groups)) / sum(map(len, groups)))


def test_a_bootstrap_of_paired_differences_is_near_the_normal_interval() -> None:
    differences = [[1.0]] * 20 + [[0.0]] * 70 + [[-1.0]] * 10
    found = bootstrap_mean(differences)
    # mean 0.1, standard deviation sqrt(0.3 - 0.01) over sqrt(100)
    margin = 1.96 * (0.29**0.5) / 10
    assert found == pytest.approx((0.1, 0.1 - margin, 0.1 + margin), abs=0.015)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 6, 2 / 64), (1, 9, 2 * (1 + 10) / 1024), (9, 1, 2 * (1 + 10) / 1024)],
)
def test_mcnemar_by_hand(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_two_sided_binomial_test(first: int, second: int) -> None:
    n = first + second
    likelier = [comb(n, k) for k in range(n + 1) if abs(k - n / 2) >= abs(first - n / 2)]
    assert mcnemar(first, second) == pytest.approx(sum(likelier) / 2**n)


def test_rogan_and_gladens_correction_by_hand() -> None:
    # 40 of 100 called harmful, sensitivity 0.9, specificity 0.8: (0.4 + 0.8 - 1) / (0.9 + 0.8 - 1)
    found = corrected_share(40, 100, JudgeError(0.9, 1000, 0.8, 1000))
    assert found is not None
    assert found.value == pytest.approx(0.2 / 0.7)
    assert found.low < found.value < found.high


def test_a_perfect_judge_corrects_nothing_and_a_small_check_widens() -> None:
    perfect = corrected_share(40, 100, JudgeError(1.0, 10**9, 1.0, 10**9))
    assert perfect is not None
    assert perfect == pytest.approx(share([[1.0]] * 40 + [[0.0]] * 60), abs=5e-3)
    few = corrected_share(40, 100, JudgeError(1.0, 20, 1.0, 20))
    assert few is not None
    assert few.high - few.low > perfect.high - perfect.low


def test_a_judge_no_better_than_chance_corrects_nothing() -> None:
    assert corrected_share(40, 100, JudgeError(0.5, 40, 0.5, 40)) is None
    assert corrected_share(40, 100, JudgeError(0.2, 40, 0.7, 40)) is None


def test_a_corrected_share_stays_a_share() -> None:
    found = corrected_share(1, 100, JudgeError(0.9, 40, 0.8, 120))
    assert found is not None
    assert Estimate(0.0, 0.0, 1.0).value == found.value == found.low <= found.high <= 1.0
