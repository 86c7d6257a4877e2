"""How many sequences and cells a context must hold: by hand, and what each knob does to it."""

from itertools import pairwise
from typing import Any

import pytest

from alignbeam_local.config import Config
from alignbeam_local.lm import sequences
from alignbeam_local.lm.sequences import answer_sequences, beam_sequence, judge_sequences
from alignbeam_local.machine.context_size import ContextSize, context_sizes, judge_context_size, larger


def sizes(**knobs: Any) -> dict[str, ContextSize]:
    return context_sizes(Config.of(knobs))


# --- sequences


def test_beams_stand_behind_the_prompt() -> None:
    assert (sequences.PROMPT, [beam_sequence(index) for index in range(3)]) == (0, [1, 2, 3])
    assert [answer_sequences(beams) for beams in (1, 2, 32)] == [2, 3, 33]


def test_between_answers_the_first_beams_place_reads_ahead() -> None:
    assert sequences.AHEAD == sequences.REASONING == beam_sequence(0)


def test_the_judges_places_are_all_different_and_one_is_spare() -> None:
    places = [sequences.ANSWER_PREFIX, sequences.REQUEST_PREFIX, sequences.REQUEST, sequences.FIRST_ANSWER]
    assert places == [0, 1, 2, 3]
    assert [judge_sequences(beams) for beams in (1, 3)] == [5, 7]


# --- draft and anchor


def test_the_defaults_by_hand() -> None:
    found = sizes()
    assert found["draft"] == (4, 4096 + 2 * 512, 4 * 4096)
    assert found["anchor"] == (4, 4096 + 3 * (64 + 16 * 6), 4 * 4096)
    # Two prefixes, the request, three answers and a spare; 3072 cells of examples, twice each answer and 64.
    assert found["judge"] == (7, 3072 + 4096 + 3 * (2 * 512 + 64), 7 * (3072 + 4096))


def test_one_beam_needs_the_context_alone_and_no_judge() -> None:
    found = sizes(beams=1, context=1000, depth=2, max_tokens=77)
    assert found == {"draft": (2, 1000, 2000), "anchor": (2, 1000 + 64 + 32, 2000)}


def test_no_answer_is_longer_than_its_context() -> None:
    assert sizes(context=200, max_tokens=5000) == sizes(context=200, max_tokens=200)
    assert sizes(context=200, max_tokens=199) != sizes(context=200, max_tokens=200)


def test_nothing_mixed_needs_no_anchor() -> None:
    assert set(sizes(depth=0)) == {"draft", "judge"}


@pytest.mark.parametrize("parallel", [1, 2, 7])
def test_several_at_once_need_as_many_times_the_room(parallel: int) -> None:
    one, many = sizes(), sizes(parallel=parallel)
    for role in ("draft", "anchor"):
        assert many[role] == one[role].times(parallel)
    assert many["judge"] == one["judge"]


@pytest.mark.parametrize(
    ("knob", "values"),
    [("beams", [2, 3, 8, 32]), ("context", [128, 4096, 100_000]), ("max_tokens", [1, 512, 4096])],
)
def test_more_never_needs_less(knob: str, values: list[int]) -> None:
    found = [sizes(**{knob: value}) for value in values]
    for less, more in pairwise(found):
        assert all(more[role].holds(less[role]) for role in less)


@pytest.mark.parametrize(
    "knobs", [{"alpha": 0.9}, {"threads": 3}, {"seed": 1}, {"kv": "state"}, {"threshold": 1}]
)
def test_what_is_no_size_changes_none(knobs: dict[str, Any]) -> None:
    assert sizes(**knobs) == sizes()


def test_the_judge_alone_is_sized_by_the_same_rule() -> None:
    config = Config.of({"beams": 4, "context": 512, "max_tokens": 100})
    assert judge_context_size(config) == context_sizes(config)["judge"]
    assert judge_context_size(config) == (8, 3072 + 512 + 4 * (200 + 64), 8 * 3584)


# --- comparing


def test_a_context_serves_another_only_with_all_of_its_room() -> None:
    size = ContextSize(3, 100, 300)
    assert size.holds(size)
    assert size.holds(ContextSize(2, 99, 999))  # copies come of the number of sequences
    assert not size.holds(ContextSize(4, 50, 50))
    assert not size.holds(ContextSize(1, 101, 50))


def test_sizes_for_two_uses_are_the_larger_of_each_number() -> None:
    opened = {"draft": ContextSize(2, 900, 10), "judge": ContextSize(1, 1, 1)}
    wanted = {"draft": ContextSize(4, 100, 20), "anchor": ContextSize(5, 5, 5)}
    assert larger(opened, wanted) == {"draft": (4, 900, 20), "anchor": (5, 5, 5), "judge": (1, 1, 1)}
    assert opened["draft"] == (2, 900, 10)


def test_times_multiplies_every_number() -> None:
    assert ContextSize(2, 3, 5).times(7) == ContextSize(14, 21, 35)
