"""A conversation over an engine on models without weights, and what it decodes."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pytest

from alignbeam_local.config import Config
from alignbeam_local.conversation.conversation import Conversation
from alignbeam_local.events import Done, Event
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import Result
from tests.fake_lm import fake_vocabulary, hashed_row, scripted_row
from tests.fake_loader import FakeLoader, FakeModel, fake_engine
from tests.templates import CHATML

Kv = Literal["seq", "state"]
DRAFT = fake_vocabulary("user", "assistant", "system", "sorry")
ANCHOR = fake_vocabulary("assistant", "sorry")
BEGIN = "<|im_end|>\n<|im_start|>assistant\n"
SCRIPT = {
    f"How?{BEGIN}": ["Take a pan and some rice.", "Use a pot.", "I can't help."],
    f"And then?{BEGIN}": ["Wait.", "Rest.", "No."],
    f"Why?{BEGIN}": ["Rice is good.", "It is.", "Ask."],
}
#: As many questions as a small context can't hold.
LONG = {f"{n}?{BEGIN}": f"Answer {n}." for n in range(60)}
KNOBS: dict[str, Any] = {"max_tokens": 40, "context": 1024, "beams": 1}


class Talk:
    """A conversation over fake models; `engine` is real."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *turns: Message,
        kv: Kv = "seq",
        template: str = CHATML,
        script: dict[str, Any] | None = None,
        saves: bool = True,
        **knobs: Any,
    ) -> None:
        script = SCRIPT if script is None else script
        judging = fake_vocabulary()
        models = {
            "draft": FakeModel(DRAFT, scripted_row(DRAFT, script), template, kv, saves=saves),
            "anchor": FakeModel(ANCHOR, scripted_row(ANCHOR, script), CHATML, kv, saves=saves),
            "judge": FakeModel(judging, hashed_row(judging.size), CHATML, kv, saves=saves),
        }
        self.loader = FakeLoader(models)
        self.engine, self.config = fake_engine(monkeypatch, self.loader, **{**KNOBS, **knobs})
        self.conversation = Conversation(self.engine, turns)

    def ask(self, text: str, **knobs: Any) -> Result:
        return done(self.conversation.ask(text, self.knobs(knobs)))

    def retry(self, **knobs: Any) -> Result:
        return done(self.conversation.retry(self.knobs(knobs)))

    def knobs(self, values: dict[str, Any]) -> Config:
        return self.engine.config.with_values(values)

    def read_ahead(self) -> None:
        self.conversation.read_ahead(self.config)
        self.engine.background.wait()
        self.engine.examples.wait()

    def prefilled(self) -> "Prefilled":
        return Prefilled(self.loader)

    def encoded(self, turns: Sequence[Message]) -> int:
        """Tokens of a conversation as the draft reads it."""
        assert self.engine._models is not None
        return len(self.engine._models.draft.format.encode(turns, DRAFT))


class Prefilled:
    """Counts from now on."""

    def __init__(self, loader: FakeLoader) -> None:
        self._loader = loader
        self._before = {name: loader.prefilled(name) for name in loader.opened}

    def of(self, name: str) -> int:
        return self._loader.prefilled(name) - self._before[name]


def done(events: Iterator[Event]) -> Result:
    *_, last = events
    assert isinstance(last, Done)
    return last.result


def turn(text: str) -> int:
    """Tokens of the end of the answer, a further question and the answer's beginning, in ChatML."""
    return len(DRAFT.encode_template(f"<|im_end|>\n<|im_start|>user\n{text}{BEGIN}"))
