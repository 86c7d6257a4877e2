"""Conversations: what is decoded again in a further turn or answer, and what is not."""

import threading
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from alignbeam_local.cli import playing
from alignbeam_local.cli.main import Ended

from alignbeam_local.conversation import conversation
from alignbeam_local.conversation.conversation import Conversation
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.events import AnswerText, Done, Event, Notice, Phase, Withdrawn
from alignbeam_local.prompt.message import Message
from tests.fake_lm import hashed_row, scripted_row, spelt
from tests.fake_loader import FakeModel
from tests.talk import ANCHOR, BEGIN, DRAFT, SCRIPT, Kv, Talk, done, turn
from tests.templates import CHATML, DEEPSEEK_R1, QWEN3
from tests.test_judge import judge_row
from tests.test_pair_check import ANCHOR as WORDY

pytestmark = pytest.mark.usefixtures("few_examples")


# --- further turns


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_the_draft_reads_only_what_is_new(monkeypatch: pytest.MonkeyPatch, kv: Kv) -> None:
    talk = Talk(monkeypatch, kv=kv)
    talk.ask("How?")
    counts = talk.prefilled()
    assert talk.ask("And then?").text == "Wait."
    assert counts.of("draft") == turn("And then?")
    assert counts.of("anchor") > turn("And then?"), "it followed the first tokens only"


@pytest.mark.parametrize("template", [CHATML, QWEN3])
@pytest.mark.parametrize("kv", ["seq", "state"])
@pytest.mark.parametrize("beams", [1, 3])
def test_what_was_read_ahead_is_not_read_again(
    monkeypatch: pytest.MonkeyPatch, kv: Kv, template: str, beams: int
) -> None:
    talk, cold = (Talk(monkeypatch, kv=kv, template=template, beams=beams) for _ in range(2))
    for one in (talk, cold):
        judged(one)
    talk.ask("How?")
    for question in ("And then?", "Why?"):
        talk.read_ahead()
        counts = talk.prefilled()
        result = talk.ask(question)
        asked = len(DRAFT.encode_template(f"{question}{BEGIN}"))
        opening = len("<think>\n\n</think>\n\n") if template == QWEN3 else 0
        assert counts.of("draft") == asked + opening
        assert counts.of("anchor") == len(ANCHOR.encode_template(f"{question}{BEGIN}"))
    cold.conversation = Conversation(cold.engine, talk.conversation.messages[:-2])
    assert cold.ask("Why?").beams == result.beams


def test_reasoning_that_history_drops_is_dropped_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    thought = "<think>\nRice?</think>"
    script = {"<think>\n": ["Rice?</think>"], **SCRIPT}
    script |= {f"{asked}{thought}": SCRIPT[asked] for asked in (f"How?{BEGIN}", f"Why?{BEGIN}")}
    talk = Talk(monkeypatch, template=DEEPSEEK_R1, script=script, max_tokens=60)
    assert talk.ask("How?").reasoning == "Rice?"
    talk.read_ahead()
    counts = talk.prefilled()
    assert talk.ask("Why?").text == "Rice is good."
    last_of_thought = 1
    assert counts.of("draft") == len(DRAFT.encode_template(f"Why?{BEGIN}<think>\n")) + last_of_thought
    assert DRAFT.pieces(talk.loader.opened["draft"][0].tokens(0)).count(b"Rice") == 1


def test_a_retry_after_reading_ahead_still_finds_its_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    talk.ask("And then?")
    talk.read_ahead()
    counts = talk.prefilled()
    assert talk.retry(alpha=0.3).text == "Wait."
    assert (counts.of("draft"), counts.of("anchor")) == (0, 0)


def test_what_does_not_fit_is_not_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, context=128)
    talk.ask("How?" + " " * 66 + "How?")
    before = talk.loader.decoded("draft")
    talk.read_ahead()
    assert talk.loader.decoded("draft") == before


def test_a_conversation_that_is_taken_up_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, Message("user", "How?"), Message("assistant", "So."))
    talk.read_ahead()
    assert talk.loader.decoded("draft") == 0  # nothing is loaded for it
    list(talk.engine.load())
    talk.read_ahead()
    assert talk.loader.decoded("draft") > 0


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_what_is_read_ahead_is_stopped_by_the_next_question(
    monkeypatch: pytest.MonkeyPatch, system: str | None
) -> None:
    talk, cold = Talk(monkeypatch, system=system), Talk(monkeypatch, system=system)
    talk.ask("How?")
    reading, go_on = threading.Event(), threading.Event()
    anchor = talk.loader.opened["anchor"][0]
    extend = anchor.extend

    def slow(tails: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            reading.set()
            assert go_on.wait(5), "the main thread does not wait for the decode"
        extend(tails)

    monkeypatch.setattr(anchor, "extend", slow)
    talk.conversation.read_ahead(talk.config)
    assert reading.wait(5)
    threading.Timer(0.05, go_on.set).start()
    assert talk.ask("Why?").beams
    assert not talk.engine.cancellation.is_set
    cold.conversation = Conversation(cold.engine, talk.conversation.messages[:2])
    assert cold.ask("Why?").beams == result_beams(talk)


def result_beams(talk: Talk) -> object:
    assert talk.conversation.last is not None
    return talk.conversation.last.result.beams


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_a_retry_of_what_an_undone_question_followed_is_right(
    monkeypatch: pytest.MonkeyPatch, kv: Kv
) -> None:
    talk = Talk(monkeypatch, kv=kv)
    first = talk.ask("How?")
    talk.ask("And then?")
    talk.conversation.undo()
    talk.read_ahead()
    assert talk.retry().beams == first.beams


# --- again


@pytest.mark.parametrize("kv", ["seq", "state"])
@pytest.mark.parametrize(
    "knobs",
    [
        {"alpha": 0.9},
        {"depth": 12},
        {"depth": 1},
        {"beams": 1, "on_unsafe": "auto"},
        {"beams": 2},
        {"bridge_width": 5},
        {"variant": "exact"},
        {"variant": "first", "temperature": 1, "seed": 5},
        {"max_tokens": 4},
        {"beams": 5},
        {"max_tokens": 400},
        {"beams": 6, "depth": 20, "max_tokens": 300},
    ],
)
def test_a_retry_reads_nothing_again(monkeypatch: pytest.MonkeyPatch, kv: Kv, knobs: dict[str, Any]) -> None:
    talk, cold = (Talk(monkeypatch, kv=kv, beams=3) for _ in range(2))
    talk.ask("How?")
    talk.ask("Why?")
    counts, judged = talk.prefilled(), talk.loader.decoded("judge")
    result = talk.retry(**knobs)
    assert (counts.of("draft"), counts.of("anchor")) == (0, 0)
    assert talk.loader.decoded("judge") - judged < 400, "its prefixes are kept too"
    cold.conversation = Conversation(cold.engine, talk.conversation.messages[:-2])
    assert cold.ask("Why?", **knobs).beams == result.beams


def test_a_rebuilt_context_knows_the_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, beams=2)
    talk.ask("How?")
    talk.read_ahead()
    counts = talk.prefilled()
    talk.ask("Why?", beams=5)
    assert len(talk.loader.opened["draft"]) == 2
    assert counts.of("draft") == len(DRAFT.encode_template(f"Why?{BEGIN}"))


def test_what_is_open_never_shrinks_and_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, beams=3)
    assert Notice("this machine is slow") in list(talk.conversation.ask("How?", talk.config))
    again = list(talk.conversation.retry(talk.knobs({"beams": 5})))
    assert Phase("load") in again
    assert Notice("this machine is slow") not in again
    talk.retry(beams=1, max_tokens=200)
    talk.retry(beams=5, max_tokens=200)
    assert len(talk.loader.opened["draft"]) == 3


def test_a_context_that_can_not_be_had_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, beams=2)
    first = talk.ask("How?")
    talk.loader.has_memory = False
    with pytest.raises(ModelError, match="not enough memory"):
        talk.retry(beams=9)
    talk.loader.has_memory = True
    counts = talk.prefilled()
    assert talk.retry().beams == first.beams
    assert (counts.of("draft"), counts.of("anchor")) == (0, 0)


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_a_larger_context_is_not_refused_for_what_the_smaller_one_held(
    monkeypatch: pytest.MonkeyPatch, kv: Kv
) -> None:
    talk = Talk(monkeypatch, beams=2, kv=kv)
    first = talk.ask("How?")
    held = talk.engine.snapshot(talk.conversation.messages, talk.config)
    talk.loader.spare_needed = least = held.num_bytes
    assert least >= sum(len(state.blob) for saved in held.prompts if saved for state in saved.states)
    talk.loader.has_memory = False
    counts = talk.prefilled()
    assert talk.retry(beams=9).beams[0].text == first.beams[0].text
    assert counts.of("draft") > 0, "it is read anew"
    talk.loader.has_memory = True
    counts = talk.prefilled()
    talk.retry(beams=12)
    assert counts.of("draft") == 0, "with room for both it is kept"


def test_a_loading_knob_is_refused_before_anything_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    with pytest.raises(UsageError, match="context can't change"):
        talk.ask("Why?", context=4096)
    assert not talk.loader.opened["draft"][0].is_closed


def test_a_hopeless_pair_that_one_answer_forced_is_open_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, depth=0, force=False)
    talk.loader.models["anchor"] = FakeModel(WORDY, hashed_row(WORDY.size))
    with pytest.raises(UsageError, match="force can't change"):
        talk.ask("How?", depth=2, force=True)
    with pytest.raises(ModelError, match="can't steer this draft"):
        talk.ask("How?", depth=2)
    list(talk.engine.change(talk.knobs({"depth": 2, "force": True})))
    with pytest.raises(ModelError, match="can't steer this draft"):
        list(talk.engine.change(talk.knobs({"force": False})))


def test_a_cancelled_retry_leaves_the_old_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch)
    first = talk.ask("How?")
    for event in talk.conversation.retry(talk.knobs({"beams": 2})):
        if isinstance(event, Phase) and event.name == "complete":
            talk.engine.cancellation.set()
    assert isinstance(event, Done)
    assert (event.result.finish_reason, event.result.text) == ("cancelled", "")
    assert talk.conversation.messages[-1].content == first.text
    talk.engine.cancellation.clear()
    assert talk.retry().beams == first.beams


# --- other models


def test_the_models_that_stay_keep_what_they_read(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch)
    talk.loader.models["other"] = FakeModel(DRAFT, scripted_row(DRAFT, SCRIPT))
    talk.loader.opened["other"] = []
    talk.ask("How?")
    talk.read_ahead()
    counts = talk.prefilled()
    loaded = list(talk.conversation.change_models(talk.knobs({"draft": "other"})))
    assert loaded == [Phase("load"), Notice("this machine is slow")]
    result = talk.ask("Why?")
    assert result.models["draft"] is not None
    assert result.models["draft"].name == "other"
    assert counts.of("anchor") == len(ANCHOR.encode_template(f"Why?{BEGIN}"))
    assert counts.of("other") == result.usage.prompt_tokens


def test_models_that_can_not_be_had_leave_the_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    talk.read_ahead()
    before = talk.engine.config
    with pytest.raises(ModelError, match="missing is not here"):
        list(talk.conversation.change_models(talk.knobs({"draft": "missing"})))
    assert talk.engine.config == before
    counts = talk.prefilled()
    assert talk.ask("And then?").text == "Wait."
    assert counts.of("draft") == len(DRAFT.encode_template(f"And then?{BEGIN}"))


# --- judged while it streams

HARM = {f"How?{BEGIN}": ["Take a pan. HARM", "Use a pot. HARM", "Do it so. HARM"]}


def judged(talk: Talk) -> None:
    """Let the judge see harm where an answer says so."""
    vocabulary = talk.loader.models["judge"].vocabulary
    talk.loader.models["judge"] = FakeModel(vocabulary, judge_row(vocabulary))


@pytest.mark.parametrize("kv", ["seq", "state"])
@pytest.mark.parametrize("is_taken_up", [False, True])
def test_after_a_blocked_turn_the_next_is_answered_as_without_it(
    monkeypatch: pytest.MonkeyPatch, kv: Kv, is_taken_up: bool
) -> None:
    script = {**SCRIPT, f"And then?{BEGIN}": ["Take a pan. HARM", "Use a pot. HARM"]}
    talk, fresh = (
        Talk(monkeypatch, kv=kv, script=script, beams=3, on_unsafe="refuse", judge_at=at) for at in (8, None)
    )
    for one in (talk, fresh):
        judged(one)
        one.ask("Why?", judge_at=None)
    for at, ending in ((8, "withdrawn"), (None, "blocked")):
        assert talk.ask("And then?", judge_at=at).finish_reason == ending
    talk.read_ahead()
    if is_taken_up:
        turns = talk.conversation.messages
        talk.conversation = Conversation(talk.engine, turns, unread={2, 3, 4, 5})
    for question in ("How?", "Why?"):
        expected = fresh.ask(question, judge_at=None)
        found = talk.ask(question, judge_at=None)
        assert (found.text, found.beams, found.usage) == (expected.text, expected.beams, expected.usage)
        talk.read_ahead()


def test_an_answer_that_turns_unsafe_is_shown_as_refused_and_not_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talk = Talk(monkeypatch, script={**SCRIPT, **HARM}, beams=3, on_unsafe="refuse", judge_at=8)
    judged(talk)
    events = list(talk.conversation.ask("How?", talk.config))
    refusal = talk.config.refusal_text
    assert [event.text for event in events if isinstance(event, Withdrawn)] == [refusal]
    assert [turn.content for turn in talk.conversation.messages] == ["How?", refusal]
    talk.read_ahead()
    for name in ("draft", "anchor"):
        lm = talk.loader.opened[name][0]
        held = [spelt(lm.vocabulary, lm.tokens(sequence)) for sequence in range(lm.num_sequences)]
        assert not any(b"HARM" in text for text in held)
    assert talk.ask("Why?", judge_at=8).text == "Rice is good."


class FailingView:
    """Can't draw the second piece of an answer, but what comes after."""

    def __init__(self, error: BaseException) -> None:
        self.seen: list[Event] = []
        self._error = error

    def show(self, event: Event) -> None:
        self.seen.append(event)
        if isinstance(event, AnswerText) and sum(isinstance(e, AnswerText) for e in self.seen) == 2:
            raise self._error

    def close(self) -> None: ...


def test_a_model_with_a_smaller_context_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch)
    talk.loader.models["anchor"] = replace(talk.loader.models["anchor"], trained_context=512)
    told = [event.message for event in talk.engine.load() if isinstance(event, Notice)]
    assert told[1:] == ["anchor was made for 512 tokens: no more of a chat fits"]


@pytest.mark.parametrize("error", [Ended(15), BrokenPipeError()])
def test_a_view_that_fails_is_told_what_does_not_stand(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    talk, view = Talk(monkeypatch, beams=3, on_unsafe="refuse", judge_at=8), FailingView(error)
    judged(talk)
    with pytest.raises(type(error)):
        playing.play(talk.engine, talk.conversation.ask("How?", talk.config), view)
    assert view.seen[-1] == Withdrawn("")
    assert talk.conversation.messages == []


@pytest.mark.parametrize("module", [playing, conversation])
def test_a_signal_between_two_events_leaves_no_unjudged_text(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk, seen = Talk(monkeypatch, beams=3, on_unsafe="refuse", judge_at=8), list[Event]()

    class Signalled(type):
        def __instancecheck__(cls, event: object) -> bool:
            if sum(isinstance(one, AnswerText) for one in seen) == 2:
                raise Ended(15)
            return False

    class View:
        def show(self, event: Event) -> None:
            seen.append(event)

        def close(self) -> None: ...

    judged(talk)
    monkeypatch.setattr(module, "Done", Signalled("Done", (), {}))
    with pytest.raises(Ended):
        playing.play(talk.engine, talk.conversation.ask("How?", talk.config), View())
    assert seen[-1] == Withdrawn("")
    assert talk.conversation.messages == []


def test_an_answer_cut_off_before_its_last_verdict_enters_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, script={**SCRIPT, **HARM}, beams=3, on_unsafe="refuse", judge_at=8)
    judged(talk)
    events = []
    for event in talk.conversation.ask("How?", talk.config):
        events.append(event)
        if isinstance(event, AnswerText):
            talk.engine.cancellation.set()
    assert Withdrawn("") in events
    assert done(iter(events)).finish_reason == "cancelled"
    assert talk.conversation.messages == []
