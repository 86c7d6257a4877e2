"""The chat as it is, in a pseudo-terminal, on the starter's models."""

import pytest

from alignbeam_local.config import Config
from alignbeam_local.conversation.conversation import Conversation
from alignbeam_local.conversation.log import ConversationLog
from alignbeam_local.engine.engine import Engine
from alignbeam_local.models.registry import Registry
from alignbeam_local.prompt.message import Message

from .talk import done
from .test_chat_terminal import CTRL_C, ENTER, REAL, Terminal
from .test_engine import assert_same_up_to_a_near_tie

_SECONDS = 600  # on a busy machine


@pytest.mark.models
def test_a_question_after_ctrl_c_is_answered_as_by_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    knobs = ("--beams", "1", "--temperature", "0", "--depth", "2", "--context", "1024", "--max-tokens", "400")
    question = "Write a long story about a ship."
    with Terminal(*knobs, program=REAL, seconds=_SECONDS) as terminal:
        terminal.type(question, ENTER)
        terminal.expect("the draft completes them")
        terminal.until(lambda: len(terminal.screen.text.partition(question)[2].split()) >= 12)
        terminal.type(CTRL_C)
        terminal.prompt_after("stopped · ")
        terminal.type("/set max_tokens 8", ENTER, "What is a noun?", ENTER)
        terminal.prompt_after("1 draft, not judged")
        assert terminal.leave() == 0
    with ConversationLog() as log:
        (kept,) = log.conversations()
        first, second = log.exchanges(kept.id)
    assert first.result["finish_reason"] == "cancelled" != second.result["finish_reason"]
    assert first.answer
    config = Config.of(second.result["config"])
    assert not config.judged
    turns = [Message("user", first.question), Message("assistant", first.answer)]
    with Engine(config, Registry.load()) as engine:
        fresh = done(Conversation(engine, turns).ask(second.question, config))
        assert_same_up_to_a_near_tie(engine, second.answer, fresh.text)
