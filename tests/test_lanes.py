"""Slots on one context: each is as if it had the context to itself, whatever the others do between."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from greenlet import greenlet
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbeam_local.errors import AlignBeamError, ContextFull
from alignbeam_local.lm.language_model import LanguageModel, Logits, SamplerSettings
from alignbeam_local.lm.slots import SharedContext, Slot
from tests.fake_lm import FakeLM, fake_vocabulary, hashed_row
from tests.llama_models import KINDS, ROUNDING, Kv, Opened, contexts_closed, opened, tiny

__all__ = ["contexts_closed", "opened", "tiny"]

VOCABULARY = fake_vocabulary()
GREEDY = SamplerSettings(temperature=0, top_p=1.0, repeat_penalty=1.0, penalty_last_n=64, seed=0)


def slots(lm: LanguageModel, num_slots: int = 2) -> tuple[SharedContext, Sequence[Slot]]:
    shared = SharedContext(lm, num_slots)
    return shared, shared.slots


def fake(num_sequences: int = 4, **options: Any) -> FakeLM:
    return FakeLM(VOCABULARY, hashed_row(VOCABULARY.size), num_sequences=num_sequences, **options)


class Sleeper:
    """Code on a slot, up to where it waits."""

    def __init__(self, work: Any) -> None:
        self.error: AlignBeamError | None = None
        self.found: Any = None
        self._task = greenlet(self._run)
        self._task.switch(work)

    def _run(self, work: Any) -> None:
        try:
            self.found = work()
        except AlignBeamError as error:
            self.error = error


def test_rows_stay_while_the_context_decodes_for_others() -> None:
    shared, (left, right) = slots(fake())
    expected = fake()
    expected.extend({0: [1, 2], 1: [3]})
    Sleeper(lambda: left.extend({0: [1, 2], 1: [3]}))
    shared.decode()
    Sleeper(lambda: right.extend({0: [4]}))
    shared.decode()
    Sleeper(lambda: right.extend({0: [5]}))
    shared.decode()
    for sequence in (0, 1):
        assert (left.logits(sequence) == expected.logits(sequence)).all()
    left.truncate(0, 0)
    with pytest.raises(AssertionError):
        left.logits(0)
    assert left.tokens(1) == [3]


def test_the_lane_that_does_not_fit_fails_alone() -> None:
    lm = fake(num_cells=10)
    shared, (left, right) = slots(lm)
    sampler = right.sampler(GREEDY)

    def steps() -> int:
        right.extend({0: [4, 5]})
        right.extend({0: [6]})
        return sampler.sample(0)

    large, small = Sleeper(lambda: left.set_tokens({0: range(12)})), Sleeper(steps)
    shared.decode()
    shared.decode()
    assert isinstance(large.error, ContextFull)
    assert (left.tokens(0), right.tokens(0)) == ([], [4, 5, 6])
    expected = fake()
    expected.extend({0: [4, 5, 6]})
    assert (small.error, small.found) == (None, int(expected.logits(0).argmax()))


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_a_lane_that_is_cut_holds_what_is_left(kv: Kv) -> None:
    shared, (left, right) = slots(fake(kv_strategy=kv))

    def cut() -> None:
        left.extend({0: [1, 2, 3]})
        left.fork(0, [1])
        left.truncate(1, 2)
        left.extend({1: [7]})

    Sleeper(cut)
    Sleeper(lambda: right.extend({0: [4]}))
    while shared.is_wanted:
        shared.decode()
    expected = fake()
    expected.extend({0: [1, 2, 7], 1: [4]})
    assert (left.tokens(0), left.tokens(1)) == ([1, 2, 3], [1, 2, 7])
    assert (left.logits(1) == expected.logits(0)).all()
    assert (right.logits(0) == expected.logits(1)).all()


def test_a_row_that_was_kept_is_saved_with_its_sequence() -> None:
    shared, (left, right) = slots(fake())
    Sleeper(lambda: left.extend({0: [1]}))
    shared.decode()
    row = left.logits(0).copy()
    Sleeper(lambda: right.extend({0: [2]}))
    shared.decode()
    left.restore(1, left.save(0))
    assert left.tokens(1) == [1]
    assert (left.logits(1) == row).all()


class Script:
    """Random work on one model, with waits for another one: its rows, and what was sampled from them."""

    def __init__(self, seed: int, lm: LanguageModel, other: LanguageModel, longest: int) -> None:
        self.rows: list[Logits] = []
        self.sampled: list[tuple[int, Logits]] = []
        self._random = np.random.default_rng(seed)
        self._lm = lm
        self._other = other
        self._longest = longest

    def __call__(self) -> None:
        lm, random = self._lm, self._random
        prompt = self._ids(self._longest)
        lm.set_tokens({0: prompt})
        lm.checkpoint(0)
        self._look([0])
        lm.fork(0, [1, 2])
        for _ in range(random.integers(1, 6)):
            lm.extend({s: self._ids(3) for s in (1, 2)})
            self._look([1, 2])
        lm.set_tokens({1: [*prompt, *self._ids(5)]})
        self._look([1])
        sampler = lm.sampler(GREEDY)
        for _ in range(random.integers(1, 6)):
            lm.extend({1: self._ids(1)})
            token = sampler.sample(1)
            self.sampled.append((token, lm.logits(1).copy()))
        sampler.close()
        lm.truncate(1, 0)

    def _look(self, sequences: Sequence[int]) -> None:
        if self._random.random() < 0.5:
            self._other.extend({0: self._ids(2)})
        self.rows += [self._lm.logits(sequence).copy() for sequence in sequences]

    def _ids(self, longest: int) -> list[int]:
        size = self._random.integers(1, longest + 1)
        return [int(token) for token in self._random.integers(3, 250, size)]


Make = Callable[[int], LanguageModel]


def assert_as_alone(make: Make, seeds: Sequence[int], longest: int, tolerance: float) -> None:
    """Scripts in slots, begun at different times, against each on models of its own."""
    first, second = (SharedContext(make(len(seeds)), len(seeds)) for _ in range(2))
    together = [
        Script(seed, *pair, longest)
        for seed, pair in zip(seeds, zip(first.slots, second.slots, strict=True), strict=True)
    ]
    for script in together:
        Sleeper(script)
        first.decode()
    while waiting := [shared for shared in (second, first) if shared.is_wanted]:
        waiting[0].decode()
    for seed, script in zip(seeds, together, strict=True):
        alone = Script(seed, make(1), make(1), longest)
        alone()
        for row, expected in zip(script.rows, alone.rows, strict=True):
            assert np.abs(row - expected).max() <= tolerance
        for token, row in script.sampled:
            assert row[token] == row.max()
        for (_, row), (_, expected) in zip(script.sampled, alone.sampled, strict=True):
            assert np.abs(row - expected).max() <= tolerance


@settings(max_examples=30)
@given(seeds=st.lists(st.integers(0, 999), min_size=1, max_size=5), kv=st.sampled_from(["seq", "state"]))
def test_lanes_are_as_models_of_their_own(seeds: list[int], kv: Kv) -> None:
    def make(num_slots: int) -> LanguageModel:
        return fake(3 * num_slots, kv_strategy=kv)

    assert_as_alone(make, seeds, longest=20, tolerance=0)


@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_lanes_of_llama_cpp_are_as_contexts_of_their_own(
    tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv
) -> None:
    def make(num_slots: int) -> LanguageModel:
        return opened.lm(tiny[kind], kv, num_sequences=3 * num_slots, num_cells=2560 * num_slots)

    assert_as_alone(make, range(3), longest=700, tolerance=ROUNDING)


def test_a_row_of_a_batch_before_the_last_can_be_sampled(tiny: dict[str, Path], opened: Opened) -> None:
    lm, alone = (opened.lm(tiny["llama"]) for _ in range(2))
    settings = SamplerSettings(temperature=0.7, top_p=0.9, repeat_penalty=1.15, penalty_last_n=64, seed=3)
    lm.extend({1: [70, 80], 0: [60] * 600})
    alone.extend({1: [70, 80]})
    assert np.abs(lm.logits(1) - alone.logits(1)).max() < ROUNDING
    ours, theirs = lm.sampler(settings), alone.sampler(settings)
    for sampler in (ours, theirs):
        sampler.accept(70)
    assert [ours.sample(1) for _ in range(40)] == [theirs.sample(1) for _ in range(40)]
