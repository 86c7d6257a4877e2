"""The rules of the choice among judged beams, one by one (the method, section 1)."""

from functools import partial
from typing import Any, get_args

import pytest

from alignbeam_local.config import Config
from alignbeam_local.knobs.judging import OnUnsafe
from alignbeam_local.result import Decision, Verdict
from alignbeam_local.search.choices import RULES, Candidate
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
    assert "no draft passed the judge" in selection.notice


def test_of_the_only_draft_left_nothing_is_said_of_others() -> None:
    said = chosen(beam(0, 3.0), on_unsafe="lowest").notice
    assert said == "this answer did not pass the judge (harm up to 2.5): it is shown all the same"
    said = chosen(beam(0, 1.0, degenerate=True), on_unsafe="lowest").notice
    assert said == "this answer is empty or repeats itself: it is shown all the same"


def test_auto_refuses_where_the_record_allows() -> None:
    assert chosen(beam(0, 4.0), refusal_allowed=True) == Selection(None)


def test_auto_gives_the_lowest_where_it_does_not_and_says_why() -> None:
    selection = chosen(beam(0, 4.0), beam(1, 3.0), refusal_allowed=False)
    assert selection.beam == 1
    assert "not measured well enough to block" in selection.notice


# --- the rules that are not the paper's

SAYS_NO = {"refuses": True}


def said(index: int, score: float = 1.2, logprob: float = -1.0, **about: Any) -> Candidate:
    return beam(index, score, logprob)._replace(**about)


def test_the_drafts_liking_decides_a_tie_in_the_papers_rule_alone() -> None:
    beams = [said(0, 1.20, -3.0, mixture=-1.0, anchor=-1.0), said(1, 1.22, -0.1, mixture=-1.0, anchor=-1.0)]
    found = {rule: chosen(*beams, choice=rule).beam for rule in RULES}
    assert found == {rule: int(rule == "safest") for rule in RULES} | {"by_request": 1}
    for decision in get_args(Decision):
        lowest = Config(choice="by_request", on_unsafe="lowest")
        assert select(beams, lowest, refusal_allowed=False, decision=decision).beam == 0


def test_the_lowest_score_still_wins_where_scores_differ() -> None:
    assert chosen(said(0, 2.0), said(1, 1.2), choice="lowest").beam == 1


def test_what_the_mixture_or_the_anchor_finds_likeliest() -> None:
    beams = said(0, mixture=-2.0, anchor=-1.0), said(1, mixture=-1.0, anchor=-3.0)
    assert chosen(*beams, choice="mixture").beam == 1
    assert chosen(*beams, choice="anchor").beam == 0
    assert chosen(said(0), said(1), choice="anchor").beam == 0, "nothing was mixed"
    assert chosen(said(0), said(1, mixture=-9.0), choice="mixture").beam == 1, (
        "nothing was mixed of the other"
    )


@pytest.mark.parametrize(
    ("refuse", "taken"),
    [((0, 1, 0), 0), ((1, 0, 1), 0), ((0, 1, 1), 1), ((1, 0, 0), 1), ((1, 0), 0), ((0, 1), 0)],
)
def test_votes(refuse: tuple[int, ...], taken: int) -> None:
    beams = [said(index, refuses=bool(one)) for index, one in enumerate(refuse)]
    assert chosen(*beams, choice="votes").beam == taken


@pytest.mark.parametrize(("decision", "taken"), [("clear", 1), ("doubtful", 0), ("harmful", 0), (None, 2)])
def test_by_request(decision: Decision | None, taken: int) -> None:
    """Two of three safe beams answer, the third has the lowest score; the first refuses."""
    beams = said(0, 1.5, **SAYS_NO), said(1, 2.4), said(2, 1.0)
    found = select(beams, Config(choice="by_request"), refusal_allowed=False, decision=decision)
    assert found.beam == taken


def test_where_all_that_is_safe_refuses_a_clear_request_is_refused() -> None:
    beams = said(0, 4.0), said(1, **SAYS_NO), said(2, 1.0, **SAYS_NO)
    assert select(beams, Config(choice="by_request"), refusal_allowed=False, decision="clear").beam == 1


@pytest.mark.parametrize("on_unsafe", ["auto", "refuse"])
def test_a_harmful_request_that_no_beam_refuses_is_blocked(on_unsafe: OnUnsafe) -> None:
    config = Config(choice="by_request", on_unsafe=on_unsafe)
    harmful = partial(select, config=config, refusal_allowed=False, decision="harmful")
    assert harmful((said(0, 2.0), said(1, 1.2))) == Selection(None, "request")
    assert harmful((said(0, 4.0), said(1, 3.0))) == Selection(None)
    assert harmful((said(0, 4.0, **SAYS_NO), said(1, 2.0))) == Selection(None, "request"), "not safe"
    assert harmful((said(0, 1.0), said(1, 2.0, **SAYS_NO))) == Selection(1)


def test_the_lowest_score_answers_a_harmful_request_where_that_is_asked_for() -> None:
    config = Config(choice="by_request", on_unsafe="lowest")
    harmful = partial(select, config=config, refusal_allowed=False, decision="harmful")
    assert harmful((said(0, 2.0), said(1, 1.2))).beam == 1
    assert harmful((said(0, 4.0), said(1, 3.0))).beam == 1


@pytest.mark.parametrize("choice", RULES)
def test_a_beam_that_the_mixture_hardly_wanted_to_begin_is_the_last_resort(choice: str) -> None:
    weak, strong = said(0, 1.0, -0.1, p_first=0.03, mixture=-0.1, anchor=-0.1), said(1, 2.0, p_first=0.5)
    assert chosen(weak, strong, choice=choice, min_start=0.05).beam == 1
    assert chosen(weak, said(1, 4.0), choice=choice, min_start=0.05).beam == 0
    assert chosen(weak._replace(p_first=None), choice=choice, min_start=0.05).beam == 0
