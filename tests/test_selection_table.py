"""The table of choices says what `select` says, for every threshold, choice and `on_unsafe`."""

from dataclasses import replace
from math import nextafter
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbeam_local.config import Config
from alignbeam_local.knobs.judging import Choice, OnUnsafe
from alignbeam_local.result import Decision, Verdict, VerdictName
from alignbeam_local.search.choices import Candidate
from alignbeam_local.search.selection import select
from alignbeam_local.search.selection_table import SelectionTable, selection_table

from .test_selection import beam

scores = st.one_of(
    st.none(), st.floats(1, 5), st.sampled_from([1.0, 1.04, 1.05, 2.5, nextafter(2.5, 3), 2.55, 5.0])
)


@st.composite
def beams(draw: st.DrawFn) -> list[Candidate]:
    found = draw(st.lists(st.tuples(scores, st.floats(-9, 0), st.booleans()), max_size=6))
    return [
        beam(index, score, logprob, degenerate=degenerate)
        for index, (score, logprob, degenerate) in enumerate(found)
    ]


def judged_at(threshold: float, candidate: Candidate) -> Candidate:
    """As the judge says it."""
    verdict = candidate.verdict
    if verdict.score is None:
        return candidate
    safe = Verdict(verdict.score, verdict.raw, {}, "safe" if verdict.score <= threshold else "unsafe")
    return candidate._replace(verdict=safe)


@given(beams(), st.lists(st.floats(0, 6), max_size=3), st.lists(st.floats(1, 5), max_size=9))
def test_it_says_what_select_says(
    candidates: list[Candidate], changes: list[float], others: list[float]
) -> None:
    """At each threshold where something may change, just beside it, and in between."""

    def allowed(threshold: float) -> bool:
        return sum(at <= threshold for at in changes) % 2 == 1

    table = selection_table(candidates, Config(), refusal_allowed=allowed, allowed_changes=changes)
    edges = [*changes, *(c.verdict.score for c in candidates if c.verdict.score is not None)]
    thresholds = {1.0, 5.0, *others, *(nextafter(at, to) for at in edges for to in (0, 9)), *edges}
    for threshold in filter(lambda at: 1 <= at <= 5, thresholds):
        judged = [judged_at(threshold, candidate) for candidate in candidates]
        for choice in get_args(Choice):
            for on_unsafe in get_args(OnUnsafe):
                config = Config(threshold=threshold, choice=choice, on_unsafe=on_unsafe)
                expected = select(judged, config, refusal_allowed=allowed(threshold)).beam
                assert table.at(choice, on_unsafe, threshold) == expected


def table_of(*candidates: Candidate) -> SelectionTable:
    return selection_table(candidates, Config(), refusal_allowed=lambda _: False)


def test_its_intervals_start_where_the_choice_changes() -> None:
    table = table_of(beam(0, 3.0), beam(1, 1.5), beam(2, 1.8))
    assert table.chosen["safest"]["refuse"] == ((1.0, None), (1.5, 1))
    assert table.chosen["likeliest"]["refuse"] == ((1.0, None), (1.5, 1), (3.0, 0))
    assert table.chosen["likeliest"]["lowest"] == ((1.0, 1), (3.0, 0))


def test_it_has_every_value_of_the_knobs() -> None:
    table = table_of(beam(0, 2.0))
    assert set(table.chosen) == set(get_args(Choice))
    assert all(set(rows) == set(get_args(OnUnsafe)) for rows in table.chosen.values())


def test_of_no_beams_and_of_unscored_ones_all_is_blocked() -> None:
    for table in (table_of(), table_of(beam(0, None), beam(1, None))):
        assert {row for rows in table.chosen.values() for row in rows.values()} == {((1.0, None),)}


def test_as_json_holds_it() -> None:
    found = table_of(beam(0, 2.0)).as_dict()
    assert (found["least"], found["most"]) == (1.0, 5.0)
    assert found["chosen"]["safest"]["refuse"] == [{"from": 1.0, "beam": None}, {"from": 2.0, "beam": 0}]  # type: ignore[index]


@pytest.mark.parametrize("verdict", ["safe", "unsafe"])
def test_what_a_verdict_said_of_another_threshold_does_not_count(verdict: VerdictName) -> None:
    one = beam(0, 2.0)
    told = one._replace(verdict=replace(one.verdict, verdict=verdict))
    assert table_of(told) == table_of(one)


def test_it_goes_by_what_the_request_was_read_as() -> None:
    beams = [beam(0, 1.5), beam(1, 2.0)._replace(refuses=True)]
    found = {
        decision: selection_table(beams, Config(), refusal_allowed=lambda _: False, decision=decision).at(
            "by_request", "lowest", 5.0
        )
        for decision in get_args(Decision)
    }
    assert found == {"clear": 0, "doubtful": 0, "harmful": 1}
