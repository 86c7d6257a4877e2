"""Whatever was asked, retried, undone, cancelled or read ahead: the next answer is that of a fresh engine."""

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbeam_local.config import Config
from alignbeam_local.conversation.conversation import Conversation
from alignbeam_local.engine.engine import Engine
from tests.fake_lm import fake_vocabulary, hashed_row
from tests.fake_loader import FakeLoader, FakeModel, fake_engine
from tests.talk import done
from tests.templates import CHATML, QWEN3

DRAFT, ANCHOR = fake_vocabulary("user", "assistant", "é"), fake_vocabulary("assistant", "st")
Knobs = dict[str, int | float]

knobs = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.sampled_from([1, 4, 9]),
        "depth": st.sampled_from([0, 1, 3]),
        "alpha": st.sampled_from([0.1, 0.9]),
    },
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), knobs, st.integers(0, 40)),  # cancelled after so many events
        st.tuples(st.just("retry"), knobs, st.integers(0, 40)),
        st.tuples(st.just("undo"), st.just({}), st.just(0)),
        st.tuples(st.sampled_from(["ahead", "stopped"]), st.just({}), st.just(0)),
    ),
    max_size=7,
)


def opened(patch: pytest.MonkeyPatch, kv: Literal["seq", "state"], template: str) -> tuple[Engine, Config]:
    """Models whose rows look random: their answers are any bytes, and no text encodes back to them."""
    models = {
        "draft": FakeModel(DRAFT, hashed_row(DRAFT.size), template, kv),
        "anchor": FakeModel(ANCHOR, hashed_row(ANCHOR.size, seed=1), CHATML, kv),
    }
    return fake_engine(patch, FakeLoader(models), beams=1, max_tokens=6, depth=2)


def play(conversation: Conversation, engine: Engine, verb: str, values: Knobs, events: int) -> None:
    config = engine.config.with_values(dict(values))
    if verb == "undo":
        conversation.undo()
    elif verb in ("ahead", "stopped"):
        conversation.read_ahead(config)
        if verb == "ahead":
            engine.background.wait()
    elif verb == "ask" or conversation.messages:
        stream = conversation.ask("é?", config) if verb == "ask" else conversation.retry(config)
        engine.cancellation.clear()
        for index, _ in enumerate(stream):
            if index == events:
                engine.cancellation.set()
        engine.cancellation.clear()


@settings(max_examples=40)
@given(steps, st.sampled_from(["seq", "state"]), st.sampled_from([CHATML, QWEN3]))
def test_no_history_is_told_from_another(
    history: list[tuple[str, Knobs, int]], kv: Literal["seq", "state"], template: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        engine, config = opened(patch, kv, template)
        conversation = Conversation(engine)
        for step in history:
            play(conversation, engine, *step)
        cold, _ = opened(patch, kv, template)
        expected = done(Conversation(cold, conversation.messages).ask("And?", config))
        found = done(conversation.ask("And?", config))
    assert (found.text, found.beams, found.usage) == (expected.text, expected.beams, expected.usage)
