"""Conversations: what enters history, what a retry replaces, what is left when something fails."""

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from alignbeam_local.config import Config
from alignbeam_local.conversation.conversation import Conversation
from alignbeam_local.engine.engine import Engine
from alignbeam_local.errors import ContextFull, ModelError, UsageError
from alignbeam_local.events import AnswerText, Done, Event
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import Result
from tests.fake_engine import REFUSED, FakeEngine, fake_result
from tests.talk import done

CONFIG = Config.of({})


class Talk:
    """A conversation over an engine without models."""

    def __init__(self, *turns: Message, unread: Container[int] = ()) -> None:
        self.engine = FakeEngine(CONFIG)
        self.conversation = Conversation(cast(Engine, self.engine), turns, unread=unread)

    def ask(self, text: str) -> Result:
        return done(self.conversation.ask(text, CONFIG))

    def retry(self, **knobs: Any) -> Result:
        return done(self.conversation.retry(CONFIG.with_values(knobs)))

    @property
    def asked(self) -> list[str]:
        """What the engine was asked last, turn by turn."""
        return [turn.content for turn in self.engine.asked[-1][0]]

    @property
    def said(self) -> list[str]:
        return [turn.content for turn in self.conversation.messages]


def test_both_turns_enter_history_and_are_asked_with_the_next() -> None:
    talk = Talk()
    assert talk.conversation.last is None
    assert talk.ask("echo: one").text == "one"
    talk.ask("echo: two")
    assert talk.said == ["echo: one", "one", "echo: two", "two"]
    assert [turn.role for turn in talk.conversation.messages] == ["user", "assistant"] * 2
    asked, _ = talk.engine.asked[-1]
    assert [turn.content for turn in asked] == ["echo: one", "one", "echo: two"]
    assert talk.conversation.last is not None
    assert (talk.conversation.last.question, talk.conversation.last.result.text) == ("echo: two", "two")


@pytest.mark.parametrize("question", ["refuse", "withdraw"])
def test_a_blocked_answer_is_shown_as_the_refusal_and_not_asked_with_the_next(question: str) -> None:
    talk = Talk()
    talk.ask("echo: one")
    talk.ask(question)
    talk.ask("echo: three")
    assert talk.said == ["echo: one", "one", question, REFUSED, "echo: three", "three"]
    assert talk.asked == ["echo: one", "one", "echo: three"]


def test_a_blocked_answer_can_be_retried_and_undone() -> None:
    talk = Talk()
    talk.ask("echo: one")
    talk.ask("refuse")
    talk.retry()
    assert (talk.asked, talk.said[2:]) == (["echo: one", "one", "refuse"], ["refuse", REFUSED])
    assert talk.conversation.undo()
    assert talk.said == ["echo: one", "one"]


def test_blocked_turns_of_a_conversation_taken_up_again_are_not_read_either() -> None:
    turns = [Message("user", "a"), Message("assistant", REFUSED)]
    talk = Talk(*turns, Message("user", "b"), Message("assistant", "B"), unread={0, 1})
    talk.ask("echo: c")
    assert talk.asked == ["b", "B", "echo: c"]
    assert talk.said[:3] == ["a", REFUSED, "b"]


def test_of_a_conversation_that_was_blocked_all_through_nothing_is_kept(tmp_path: Path) -> None:
    talk = Talk()
    talk.ask("refuse")
    talk.conversation.save_state(tmp_path)
    assert not list(tmp_path.iterdir())


def test_history_is_there_when_done_is_seen() -> None:
    talk = Talk()
    events = talk.conversation.ask("echo: hi", CONFIG)
    next(event for event in events if isinstance(event, Done))
    assert talk.said == ["echo: hi", "hi"]


def test_an_answer_that_fails_or_is_left_leaves_history_alone() -> None:
    talk = Talk()
    talk.ask("echo: hi")
    with pytest.raises(ContextFull):
        talk.ask("full")
    events = talk.conversation.ask("echo: left", CONFIG)
    next(event for event in events if isinstance(event, AnswerText))
    events.close()
    assert talk.said == ["echo: hi", "hi"]


@pytest.mark.parametrize("text", ["", "begun"])
def test_a_cancelled_answer_counts_if_it_has_text(text: str) -> None:
    talk = Talk()

    def stream(*_: object) -> Iterator[Event]:
        yield Done(fake_result(text, CONFIG, "cancelled"))

    talk.engine.stream = stream  # type: ignore[assignment]
    talk.ask("slow")
    assert talk.said == (["slow", "begun"] if text else [])


def test_a_retry_asks_the_same_and_replaces_the_answer() -> None:
    talk = Talk()
    talk.ask("echo: one")
    talk.ask("refuse")
    assert talk.retry(alpha=0.9).config["alpha"] == 0.9
    assert talk.engine.asked[-1][0] == talk.engine.asked[-2][0]
    assert talk.said == ["echo: one", "one", "refuse", REFUSED]
    assert talk.conversation.last is not None
    assert talk.conversation.last.result.config["alpha"] == 0.9


def test_a_retry_that_fails_leaves_the_old_answer() -> None:
    talk = Talk()
    talk.ask("echo: one")

    def stream(*_: object) -> Iterator[Event]:
        yield AnswerText("half")
        raise ModelError("broken")

    talk.engine.stream = stream  # type: ignore[assignment]
    with pytest.raises(ModelError):
        talk.retry()
    assert talk.said == ["echo: one", "one"]


def test_another_question_takes_the_last_ones_place_with_its_answer() -> None:
    talk = Talk(Message("user", "echo: zero"), Message("assistant", "0"))
    done(talk.conversation.retry(CONFIG, "echo: one"))
    assert talk.said == ["echo: one", "one"]
    with pytest.raises(ContextFull):
        done(talk.conversation.retry(CONFIG, "full"))
    assert talk.said == ["echo: one", "one"]


def test_a_stopped_retry_leaves_the_whole_answer() -> None:
    talk = Talk()
    talk.ask("echo: one")
    talk.engine.cancellation.set()
    assert done(talk.conversation.retry(CONFIG, "slow")).text == "begun"
    assert talk.said == ["echo: one", "one"]


def test_without_a_question_nothing_can_be_retried_or_undone() -> None:
    talk = Talk()
    with pytest.raises(UsageError, match="no question"):
        talk.retry()
    assert not talk.conversation.undo()


def test_undo_and_clear() -> None:
    talk = Talk()
    for word in ("one", "two", "three"):
        talk.ask(f"echo: {word}")
    assert talk.conversation.undo()
    assert talk.said == ["echo: one", "one", "echo: two", "two"]
    assert talk.conversation.last is not None
    assert talk.conversation.last.question == "echo: two"
    talk.conversation.clear()
    assert talk.said == []
    assert not talk.conversation.last


def test_earlier_turns_can_be_retried_and_undone() -> None:
    earlier = [Message("user", "echo: one"), Message("assistant", "1")]
    talk = Talk(*earlier)
    assert (talk.conversation.messages, talk.conversation.last) == (earlier, None)
    talk.retry()
    assert talk.said == ["echo: one", "one"]
    talk.ask("echo: two")
    assert talk.conversation.undo()
    assert talk.conversation.undo()
    assert not talk.conversation.undo()


def test_an_unanswered_question_can_be_answered() -> None:
    talk = Talk(Message("user", "echo: lost"))
    talk.retry()
    assert talk.said == ["echo: lost", "lost"]


def test_other_models_or_the_old_ones_if_that_fails() -> None:
    talk = Talk()
    list(talk.conversation.change_models(CONFIG.with_values({"draft": "other"})))
    with pytest.raises(ModelError):
        list(talk.conversation.change_models(CONFIG.with_values({"draft": "missing"})))
    assert talk.engine.config.draft == "other"
