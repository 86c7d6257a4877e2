"""Slots in turns: whose batch is decoded when, who gets which slot, who is told of an error."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import pytest
from greenlet import GreenletExit

from alignbeam_local.config import Config
from alignbeam_local.engine.scheduler import AnswerEvent, SlotScheduler, SlotWork
from alignbeam_local.errors import Cancelled, ContextFull, ModelError
from alignbeam_local.events import BeamText, Done, Event
from alignbeam_local.lm.language_model import SamplerSettings
from alignbeam_local.lm.slots import SharedContext, Slot
from tests.fake_engine import fake_result
from tests.fake_lm import FakeLM, fake_vocabulary, hashed_row

VOCABULARY = fake_vocabulary()
GREEDY = SamplerSettings(temperature=0, top_p=1.0, repeat_penalty=1.0, penalty_last_n=64, seed=0)


def context(num_slots: int = 2, **options: Any) -> tuple[FakeLM, SharedContext]:
    lm = FakeLM(VOCABULARY, hashed_row(VOCABULARY.size), **{"num_sequences": 4, "num_cells": 64, **options})
    return lm, SharedContext(lm, num_slots)


def done(text: str = "") -> Done:
    return Done(fake_result(text, Config()))


def text_of(happened: list[AnswerEvent]) -> list[tuple[int, str]]:
    return [(key, what.text) for key, what in happened if isinstance(what, BeamText)]


def tells(*texts: str) -> SlotWork:
    """Work that decodes nothing."""

    def work(slot: int) -> Iterator[Event]:
        yield from (BeamText(slot, text, False) for text in texts)
        yield done(texts[-1] if texts else "")

    return work


def decodes(shared: SharedContext, *ids: int, then: Callable[[Slot], Event] | None = None) -> SlotWork:
    """Work that decodes one token after the other in its slot's sequence 0, and tells each."""

    def work(slot: int) -> Iterator[Event]:
        own = shared.slots[slot]
        for token in ids:
            own.extend({0: [token]})
            yield BeamText(slot, chr(token), False)
        yield then(own) if then else done()

    return work


# --- slots are given out


def test_the_lowest_free_slot_is_taken() -> None:
    _, shared = context(num_slots=4)
    scheduler = SlotScheduler([shared], 4)
    for key, length in ((10, 3), (11, 1), (12, 3)):
        scheduler.run(key, decodes(shared, *range(65, 65 + length)))
    assert sorted(scheduler._free) == [3]
    scheduler.step()
    assert sorted(scheduler._free) == [1, 3]
    scheduler.run(13, decodes(shared, 90, 91))
    happened = scheduler.step()
    assert (13, 1) in {
        (key, what.beam) for key, what in happened + scheduler.step() if isinstance(what, BeamText)
    }


def test_work_that_waits_for_nothing_is_over_at_once() -> None:
    _, shared = context()
    scheduler = SlotScheduler([shared], 1)
    scheduler.run(5, tells("a", "b"))
    assert scheduler.has_free_slot
    assert text_of(scheduler.step()) == [(5, "a"), (5, "b")]
    assert scheduler.step() == []


def test_a_full_house_has_no_free_slot() -> None:
    _, shared = context()
    scheduler = SlotScheduler([shared], 2)
    assert scheduler.has_free_slot
    for key in range(2):
        assert scheduler.has_free_slot
        scheduler.run(key, decodes(shared, 65))
    assert not scheduler.has_free_slot
    scheduler.step()
    assert scheduler.has_free_slot


# --- batches


def test_all_that_wait_for_a_context_are_one_batch() -> None:
    lm, shared = context()
    scheduler = SlotScheduler([shared], 2)
    scheduler.run(0, decodes(shared, 65, 66))
    scheduler.run(1, decodes(shared, 67, 68))
    while not scheduler.has_free_slot:
        scheduler.step()
    assert lm.batches == [{0: 1, 2: 1}, {0: 1, 2: 1}]
    assert (list(lm.tokens(0)), list(lm.tokens(2))) == ([65, 66], [67, 68])


def test_the_context_that_has_not_decoded_for_longest_decodes_next() -> None:
    (one, first), (two, second) = context(), context()
    scheduler = SlotScheduler([first, second], 2)
    scheduler.run(0, decodes(second, 65))
    scheduler.run(1, decodes(first, 66, 67, 68))
    order = []
    for _ in range(4):
        before = one.decodes, two.decodes
        scheduler.step()
        order.append((one.decodes - before[0], two.decodes - before[1]))
    assert order == [(1, 0), (0, 1), (1, 0), (1, 0)]


@pytest.mark.parametrize("is_read", [False, True])
def test_a_long_prompt_is_read_in_pieces_between_which_the_others_go_on(is_read: bool) -> None:
    lm = FakeLM(VOCABULARY, hashed_row(VOCABULARY.size), num_sequences=4, num_cells=64)
    shared = SharedContext(lm, 2)
    shared.piece_tokens = 4
    prompt, rows = list(range(40, 50)), []

    def reads(slot: int) -> Iterator[Event]:
        own = shared.slots[slot]
        own.read({0: prompt}) if is_read else own.set_tokens({0: prompt})
        rows.append(own.logits(0).copy())
        yield done()

    scheduler = SlotScheduler([shared], 2)
    scheduler.run(0, reads)
    scheduler.run(1, decodes(shared, 65, 66, 67, 68))
    told = [text_of(scheduler.step()) for _ in range(3)]
    assert told == [[(1, "A")], [(1, "B")], [(1, "C")]]
    assert [batch[0] for batch in lm.batches if 0 in batch] == ([4, 4, 1, 1] if is_read else [4, 4, 2])
    assert np.array_equal(rows[0], hashed_row(VOCABULARY.size)(prompt))


def test_a_step_where_nobody_waits_decodes_nothing() -> None:
    lm, shared = context()
    assert SlotScheduler([shared], 2).step() == []
    assert lm.decodes == 0


def test_a_slot_keeps_its_row_while_it_waits_elsewhere_and_the_context_decodes_for_others() -> None:
    (lm, shared), (_, other) = context(), context()
    seen = []

    def two_models(slot: int) -> Iterator[Event]:
        shared.slots[slot].extend({0: [65]})
        other.slots[slot].extend({0: [70]})
        other.slots[slot].extend({0: [71]})
        seen.append(shared.slots[slot].logits(0).copy())
        yield done()

    scheduler = SlotScheduler([shared, other], 2)
    scheduler.run(0, two_models)
    scheduler.run(1, decodes(shared, 66, 67, 68))
    while not seen:
        scheduler.step()
    assert lm.decodes == 2
    assert np.array_equal(seen[0], hashed_row(VOCABULARY.size)([65]))


# --- run_all


@pytest.mark.parametrize("num_slots", [1, 2, 4])
def test_all_results_come_in_the_order_of_the_works(num_slots: int) -> None:
    _, shared = context(num_slots)
    lengths = [4, 1, 3, 1, 2]
    works = [
        decodes(shared, *range(65, 65 + n), then=lambda _, n=n: done(f"{n}"))  # type: ignore[misc]
        for n in lengths
    ]
    found = SlotScheduler([shared], num_slots).run_all(works)
    assert [one.text for one in found if not isinstance(one, Exception)] == ["4", "1", "3", "1", "2"]


def test_no_works_are_no_results() -> None:
    assert SlotScheduler([context()[1]], 2).run_all([]) == []


def test_an_error_of_one_stands_in_its_place() -> None:
    _, shared = context()

    def fails(slot: int) -> Iterator[Event]:
        shared.slots[slot].extend({0: [65]})
        raise ContextFull("no room", "Make some.")
        yield

    found = SlotScheduler([shared], 2).run_all([tells("a"), fails, decodes(shared, 66)])
    assert [type(one).__name__ for one in found] == ["Result", "ContextFull", "Result"]


def test_a_bug_in_one_ends_all_and_frees_every_slot() -> None:
    _, shared = context()

    def breaks(slot: int) -> Iterator[Event]:
        shared.slots[slot].extend({0: [65]})
        raise ZeroDivisionError
        yield

    scheduler = SlotScheduler([shared], 2)
    with pytest.raises(ZeroDivisionError):
        scheduler.run_all([decodes(shared, 66, 67, 68), breaks])
    assert sorted(scheduler._free) == [0, 1]
    assert not shared.is_wanted


# --- ends


def test_an_answer_that_is_failed_hears_the_error_where_it_waits() -> None:
    _, shared = context()
    heard = []

    def work(slot: int) -> Iterator[Event]:
        try:
            shared.slots[slot].extend({0: [65]})
        except ModelError as error:
            heard.append(error.message)
            raise
        yield done()

    scheduler = SlotScheduler([shared], 2)
    scheduler.run(0, work)
    scheduler.run(1, decodes(shared, 66))
    scheduler.fail(0, ModelError("enough"))
    happened = scheduler.step()
    assert heard == ["enough"]
    assert [(key, type(what).__name__) for key, what in happened] == [
        (0, "ModelError"),
        (1, "BeamText"),
        (1, "Done"),
    ]


def test_what_is_forgotten_is_not_decoded() -> None:
    lm, shared = context()
    scheduler = SlotScheduler([shared], 2)
    scheduler.run(0, decodes(shared, 65))
    scheduler.fail(0, GreenletExit())
    assert scheduler.step() == []
    assert (lm.decodes, scheduler.has_free_slot) == (0, True)


def test_closing_lets_work_put_things_in_order() -> None:
    _, shared = context()
    closed = []

    def work(slot: int) -> Iterator[Event]:
        try:
            shared.slots[slot].extend({0: [65]})
            yield done()
        finally:
            closed.append(slot)

    scheduler = SlotScheduler([shared], 2)
    scheduler.run(0, work)
    scheduler.run(1, work)
    scheduler.close()
    assert (closed, scheduler.step(), sorted(scheduler._free)) == ([0, 1], [], [0, 1])


# --- errors of a batch


class Full(FakeLM):
    """Has no room for a batch of several sequences."""

    def set_tokens(self, targets: Any) -> None:
        self._one(targets)
        super().set_tokens(targets)

    def extend(self, tails: Any) -> None:
        self._one(tails)
        super().extend(tails)

    def _one(self, asked: Any) -> None:
        if len(asked) > 1:
            raise ContextFull("not together")


def test_what_does_not_fit_together_is_decoded_one_by_one() -> None:
    lm = Full(VOCABULARY, hashed_row(VOCABULARY.size), num_sequences=4)
    shared = SharedContext(lm, 2)
    found = SlotScheduler([shared], 2).run_all([decodes(shared, 65, 66), decodes(shared, 67)])
    assert [type(one).__name__ for one in found] == ["Result", "Result"]
    assert (list(lm.tokens(0)), list(lm.tokens(2))) == ([65, 66], [67])


def test_what_does_not_fit_alone_either_fails_alone() -> None:
    _, shared = context(num_cells=4)
    scheduler = SlotScheduler([shared], 2)
    scheduler.run(0, decodes(shared, 65))
    scheduler.run(1, lambda slot: wide(shared, slot))
    happened = scheduler.step()
    assert {key: type(what).__name__ for key, what in happened} == {0: "Done", 1: "ContextFull"}


def wide(shared: SharedContext, slot: int) -> Iterator[Event]:
    shared.slots[slot].extend({0: [65] * 9})
    yield done()


def test_an_error_of_the_model_reaches_each_that_asked() -> None:
    class Broken(FakeLM):
        def extend(self, tails: Any) -> None:
            raise ModelError("llama.cpp failed")

    shared = SharedContext(Broken(VOCABULARY, hashed_row(VOCABULARY.size), num_sequences=4), 2)
    found = SlotScheduler([shared], 2).run_all([decodes(shared, 65), decodes(shared, 66), tells("a")])
    assert [type(one).__name__ for one in found] == ["ModelError", "ModelError", "Result"]


def test_cancelled_is_an_error_like_any_other() -> None:
    lm, shared = context()
    lm._cancellation.set()
    found = SlotScheduler([shared], 2).run_all([decodes(shared, 65)])
    assert [type(one) for one in found] == [Cancelled]


# --- a slot as a model


def test_a_context_is_split_evenly() -> None:
    _, shared = context(num_slots=3, num_sequences=10, num_cells=100)
    assert [(slot.num_sequences, slot.num_cells) for slot in shared.slots] == [(3, 33)] * 3


def in_slots(shared: SharedContext, *works: Callable[[Slot], None]) -> None:
    """Run code in the slots, each to its end."""

    def work(code: Callable[[Slot], None]) -> SlotWork:
        def run(slot: int) -> Iterator[Event]:
            code(shared.slots[slot])
            yield done()

        return run

    found = SlotScheduler([shared], len(shared.slots)).run_all([work(code) for code in works])
    assert not [one for one in found if isinstance(one, Exception)]


def test_a_slot_has_its_sequences_and_the_contexts_name() -> None:
    lm, shared = context()

    def second(slot: Slot) -> None:
        slot.set_tokens({0: [70, 71], 1: [80]})
        slot.fork(0, [1])
        slot.truncate(0, 1)

    in_slots(shared, lambda slot: slot.extend({1: [65]}), second)
    assert [list(lm.tokens(sequence)) for sequence in range(4)] == [[], [65], [70], [70, 71]]
    slot = shared.slots[1]
    assert slot.tokens(1) == [70, 71]
    assert (slot.state_key, slot.kv_strategy, slot.vocabulary) == (lm.state_key, "seq", VOCABULARY)
    assert (slot.decodes, slot.decoded_tokens, slot.compute_seconds) == (lm.decodes, lm.decoded_tokens, 0.0)


def test_closing_a_slot_leaves_the_context_open() -> None:
    lm, shared = context()
    shared.slots[0].close()
    assert not lm.is_closed


def test_a_state_is_saved_with_the_row_that_was_kept() -> None:
    _, shared = context()
    states = []

    def first(slot: Slot) -> None:
        slot.extend({0: [65]})
        shared.slots[0].keep_rows()
        states.append(slot.save(0))
        slot.restore(1, states[0])
        assert np.array_equal(slot.logits(1), hashed_row(VOCABULARY.size)([65]))

    in_slots(shared, first)
    assert states[0].tokens == (65,)
    assert states[0].logits is not None
    assert np.array_equal(states[0].logits, hashed_row(VOCABULARY.size)([65]))


@pytest.mark.parametrize(("kv", "decodes"), [("seq", 1), ("state", 2)])
def test_where_the_cache_can_be_cut_a_cut_decodes_nothing(kv: Literal["seq", "state"], decodes: int) -> None:
    lm, shared = context(kv_strategy=kv)

    def first(slot: Slot) -> None:
        slot.extend({0: [65, 66, 67], 1: [70]})
        slot.truncate(0, 2)
        if kv == "seq":
            assert np.array_equal(slot.logits(1), hashed_row(VOCABULARY.size)([70]))

    in_slots(shared, first)
    assert (lm.decodes, list(lm.tokens(0))) == (decodes, [65, 66])


def test_truncating_to_what_is_held_changes_nothing() -> None:
    lm, shared = context()

    def first(slot: Slot) -> None:
        slot.extend({0: [65, 66]})
        slot.truncate(0, 2)
        slot.truncate(0, 9)
        assert np.array_equal(slot.logits(0), hashed_row(VOCABULARY.size)([65, 66]))
        slot.truncate(0, 0)

    in_slots(shared, first)
    assert (lm.decodes, list(lm.tokens(0))) == (1, [])


def test_a_slots_sampler_counts_its_sequences_from_0() -> None:
    _, shared = context()
    drawn = []

    def second(slot: Slot) -> None:
        sampler = slot.sampler(GREEDY)
        slot.extend({0: [66]})
        drawn.append(sampler.sample(0))
        sampler.accept(5)
        sampler.close()

    in_slots(shared, lambda slot: slot.extend({0: [65]}), second)
    assert drawn == [int(lm_row([66]).argmax())]


def lm_row(tokens: list[int]) -> Any:
    return hashed_row(VOCABULARY.size)(tokens)
