"""Conversations that a context does not hold."""

from typing import Any

import pytest

from alignbeam_local.errors import ContextFull
from alignbeam_local.events import Notice, Phase
from tests.talk import ANCHOR, DRAFT, LONG, Kv, Talk, done

pytestmark = pytest.mark.usefixtures("few_examples")


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_forty_turns_fit_a_small_context(monkeypatch: pytest.MonkeyPatch, kv: Kv) -> None:
    talk = Talk(monkeypatch, kv=kv, script=LONG, system="Be brief.", max_tokens=30)
    notices = []
    for n in range(40):
        counts = talk.prefilled()
        events = list(talk.conversation.ask(f"{'long ' * 12}{n}?", talk.knobs({})))
        assert done(iter(events)).text == f"Answer {n}."
        told = [e.message for e in events if isinstance(e, Notice) and "oldest" in e.message]
        notices += told
        assert told or not n or counts.of("draft") < 200, "warm"
        assert b"Be brief." in DRAFT.pieces(talk.loader.opened["draft"][0].tokens(0))
        talk.read_ahead()
    assert 3 <= len(notices) <= 12
    assert len(talk.conversation.messages) == 80, "the conversation itself is whole"


def test_room_for_a_long_start_is_left_however_small_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a quarter of it: what the anchor is asked for is what is left out for it."""
    knobs: dict[str, Any] = {"prefix": "adaptive", "max_depth": 400, "max_tokens": 400}
    talk = Talk(monkeypatch, script=LONG, **knobs)
    for n in range(20):
        assert talk.ask(f"{'long ' * 12}{n}?").finish_reason in ("stop", "length")


def test_both_models_leave_out_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, script=LONG)
    for n in range(20):
        talk.ask(f"{'long ' * 12}{n}?")
    draft, anchor = (talk.loader.opened[name][0].tokens(0) for name in ("draft", "anchor"))
    assert 1 < DRAFT.pieces(draft).count(b"?") == ANCHOR.pieces(anchor).count(b"?") < 20


def test_a_retry_of_a_trimmed_conversation_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, script=LONG)
    for n in range(20):
        talk.ask(f"{'long ' * 12}{n}?")
    counts = talk.prefilled()
    assert talk.retry(alpha=0.1).text == "Answer 19."
    assert (counts.of("draft"), counts.of("anchor")) == (0, 0)
    while talk.conversation.undo():
        pass
    assert talk.ask("3?").text == "Answer 3."


def test_a_question_that_does_not_fit_alone_is_refused_and_nothing_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talk = Talk(monkeypatch, script=LONG)
    talk.ask("1?")
    with pytest.raises(ContextFull, match="its context holds 1024"):
        talk.ask("long " * 300)
    counts = talk.prefilled()
    talk.ask("2?")
    assert counts.of("draft") < 60


def test_a_stopped_turn_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, context=256)
    first = talk.ask("How?")
    told = []
    for event in talk.conversation.ask("é" * 90, talk.config):
        told += [event.message] if isinstance(event, Notice) else []
        if isinstance(event, Phase) and event.name == "prefill":
            talk.engine.cancellation.set()
    assert "the oldest 2 are left out" in told[-1]
    talk.engine.cancellation.clear()
    assert talk.retry().text == first.text


def test_a_question_as_long_as_the_context_goes_without_history(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, script=LONG)
    talk.ask("1?")
    assert talk.ask("long " * 180 + "2?").text == "Answer 2."
