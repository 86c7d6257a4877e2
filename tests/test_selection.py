"""The rules of the choice among judged beams, one by one (the method, section 1)."""

from typing import Any

import pytest

from alignbeam_local.config import Config
from alignbeam_local.result import Verdict
from alignbeam_local.search.choices import Candidate
from alignbeam_local.search.selection import Selection, select

UNSCORED = Verdict(None, None, {}, "unscored")


def beam(index: int, score: float | None, logprob: float = -1.0, *, degenerate: bool = False) -> Candidate:
    verdict = UNSCORED
    if score is not None:
        verdict = Verdict(score, score, {}, "safe" if score <= 2.5 else "unsafe")
    return Candidate(index, verdict, logprob, degenerate)


def chosen(*beams: Candidate, refusal_allowed: bool = False, **knobs: Any) -> Selection:
    return select(beams, Config(**knobs), refusal_allowed=refusal_allowed)


def test_the_lowest_score_wins() -> None:
    assert chosen(beam(0, 2.0), beam(1, 1.2, -9.0), beam(2, 3.0)) == Selection(1)


def test_within_a_tie_the_draft_decides() -> None:
    assert chosen(beam(0, 1.20, -2.0), beam(1, 1.24, -1.0), beam(2, 1.26, -0.1)).beam == 1


def test_then_the_order_of_the_mixture() -> None:
    assert chosen(beam(0, 1.24, -1.0), beam(1, 1.20, -1.0)).beam == 0


def test_likeliest_takes_the_first_safe_one() -> None:
    beams = beam(0, 3.0), beam(1, 2.4, -9.0), beam(2, 1.0, -0.1)
    assert chosen(*beams, choice="likeliest").beam == 1


@pytest.mark.parametrize("choice", ["safest", "likeliest"])
def test_a_degenerate_beam_is_not_chosen_though_safe(choice: str) -> None:
    assert chosen(beam(0, 1.0, degenerate=True), beam(1, 2.4), choice=choice).beam == 1


def test_degenerate_beams_alone_are_no_safe_answer() -> None:
    assert chosen(beam(0, 1.0, degenerate=True), on_unsafe="refuse").beam is None


@pytest.mark.parametrize("choice", ["safest", "likeliest"])
@pytest.mark.parametrize("score", [2.4, 4.9])
def test_unscored_is_never_chosen_over_scored(choice: str, score: float) -> None:
    beams = beam(0, None, 0.0), beam(1, score, -9.0)
    assert chosen(*beams, choice=choice, on_unsafe="lowest").beam == 1


@pytest.mark.parametrize("on_unsafe", ["auto", "refuse", "lowest"])
@pytest.mark.parametrize("allowed", [False, True])
def test_all_unscored_is_blocked_always(on_unsafe: str, allowed: bool) -> None:
    selection = chosen(beam(0, None), beam(1, None), on_unsafe=on_unsafe, refusal_allowed=allowed)
    assert selection.beam is None
    assert "could not score any draft" in selection.notice


def test_refuse_blocks() -> None:
    assert chosen(beam(0, 2.6), on_unsafe="refuse") == Selection(None)


@pytest.mark.parametrize("on_unsafe", ["auto", "lowest"])
def test_a_safe_beam_that_loops_goes_before_an_unsafe_one(on_unsafe: str) -> None:
    selection = chosen(beam(0, 1.0, degenerate=True), beam(1, 2.6), on_unsafe=on_unsafe)
    assert selection.beam == 0
    assert "empty or repeat" in selection.notice


def test_among_unsafe_beams_an_answer_goes_before_an_empty_one() -> None:
    assert chosen(beam(0, 2.6, degenerate=True), beam(1, 3.0), on_unsafe="lowest").beam == 1
    assert chosen(beam(0, 2.6, degenerate=True), on_unsafe="lowest").beam == 0


def test_lowest_gives_the_safest_with_a_notice() -> None:
    selection = chosen(beam(0, 4.0), beam(1, 3.0), on_unsafe="lowest", refusal_allowed=True)
    assert selection.beam == 1
    assert "no draft was judged safe" in selection.notice


def test_auto_refuses_where_the_record_allows() -> None:
    assert chosen(beam(0, 4.0), refusal_allowed=True) == Selection(None)


def test_auto_gives_the_lowest_where_it_does_not_and_says_why() -> None:
    selection = chosen(beam(0, 4.0), beam(1, 3.0), refusal_allowed=False)
    assert selection.beam == 1
    assert "not measured well enough to block" in selection.notice
