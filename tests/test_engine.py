"""An engine on the starter's models, end to end."""

import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from alignbeam_local.config import Config
from alignbeam_local.conversation.conversation import Conversation
from alignbeam_local.engine import loader as loading
from alignbeam_local.engine.engine import Engine
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.events import AnswerText, BeamText, Done, Event, Phase
from alignbeam_local.llama.context import LlamaLM
from alignbeam_local.llama.weights import LlamaWeights
from alignbeam_local.lm.language_model import Logits, common_prefix
from alignbeam_local.lm.prompt_cache import PromptCache
from alignbeam_local.machine.context_size import context_sizes
from alignbeam_local.models.registry import Registry
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import Result

from .llama_models import NEAR_TIE, SHAPE
from .talk import done

QUESTION = [Message("user", "How do I pick the lock of my neighbour's door?")]


def starter(**knobs: Any) -> tuple[Config, Registry]:
    registry = Registry.load()
    return Config.of({**registry.profile("starter"), "max_tokens": 16, "context": 512, **knobs}), registry


def asked(engine: Engine, config: Config) -> tuple[list[Event], Result]:
    events = list(engine.stream(QUESTION, config))
    assert isinstance(events[-1], Done)
    return events, events[-1].result


@pytest.mark.models
def test_the_starter_answers_judged_and_unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    class Counted(LlamaWeights):
        def __init__(self, path: Path, **options: Any) -> None:
            loaded.append(path.stem)
            super().__init__(path, **options)

    monkeypatch.setattr(loading, "LlamaWeights", Counted)
    config, registry = starter(prompt_cache="none")
    with Engine(config, registry) as engine:
        events, result = asked(engine, config)
        assert sorted(loaded) == ["qwen2.5-coder-0.5b-instruct", "smollm2-135m-instruct"], (
            "anchor and judge share their weights"
        )
        assert [e.name for e in events if isinstance(e, Phase)] == [
            "load",
            "examples",
            "prefill",
            "mix",
            "complete",
            "judge",
        ]
        assert len(result.beams) == 3
        assert len({beam.text for beam in result.beams}) == 3
        assert all(beam.judge and beam.judge.verdict != "unscored" for beam in result.beams)
        assert all(beam.mixed == 6 or beam.finish_reason == "stop" for beam in result.beams)
        assert all(beam.tokens <= 16 for beam in result.beams)
        assert "".join(event.text for event in events if isinstance(event, AnswerText)) == result.text != ""
        assert result.bridge.covered_mass is not None
        assert result.bridge.covered_mass > 0.8
        cards = result.models
        assert cards["judge"] == cards["anchor"] != cards["draft"]

        one = config.with_values({"beams": 1})
        events, unjudged = asked(engine, one)
        assert [e.name for e in events if isinstance(e, Phase)] == ["prefill", "mix", "complete"]
        assert (unjudged.chosen, unjudged.beams[0].judge) == (0, None)
        assert unjudged.timings.judge_ms == 0
        assert len(loaded) == 2, "fewer beams need nothing new"
        with pytest.raises(UsageError, match="context can't change"):
            list(engine.stream(QUESTION, config.with_values({"context": 1024})))


TURNS = (
    "What is a noun?",
    "And what is a verb?",
    "Give me one example of each.",
    "Which of the two is more common in English?",
    "Why is that so?",
)


@pytest.fixture
def prefilled(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Tokens that prompts cost, by the model's name."""
    tokens, row = Counter[str](), PromptCache.row

    def counted(cache: PromptCache, ids: Sequence[int]) -> Logits:
        lm = cast(LlamaLM, cache._lm)
        before = lm.decoded_tokens
        found = row(cache, ids)
        tokens[lm.weights.path.stem] += lm.decoded_tokens - before
        return found

    monkeypatch.setattr(PromptCache, "row", counted)
    return tokens


@pytest.mark.models
def test_a_conversation_reads_only_what_is_new(tmp_path: Path, prefilled: Counter[str]) -> None:
    config, registry = starter(beams=1, depth=3, max_tokens=8)
    with Engine(config, registry) as engine:
        conversation = Conversation(engine)
        for question in TURNS[:-1]:
            list(conversation.ask(question, config))
            conversation.read_ahead(config)
            engine.background.wait()
        prefilled.clear()
        list(conversation.ask(TURNS[-1], config))
        warm = dict(prefilled)
        prefilled.clear()
        list(conversation.retry(config.with_values({"alpha": 0.8, "depth": 5})))  # in a larger context
        again = dict(prefilled)
        conversation.save_state(tmp_path)
    turns = conversation.messages
    with Engine(config, registry) as engine:
        conversation = Conversation(engine, turns)
        assert conversation.load_state(tmp_path)
        prefilled.clear()
        list(conversation.ask(TURNS[-1], config))
        resumed = dict(prefilled)
    with Engine(config, registry) as engine:
        prefilled.clear()
        list(Conversation(engine, turns[:-2]).ask(TURNS[-1], config))
        cold = dict(prefilled)
    print(f"cold {cold}, warm {warm}, again {again}, resumed {resumed}")
    assert len(cold) == 2
    assert set(again.values()) == {0}
    assert warm == resumed
    assert max(warm.values()) < 15
    assert min(cold.values()) > 100


@pytest.mark.models
@pytest.mark.parametrize("after", ["read", "mixed", "completing"])
def test_a_turn_after_ctrl_c_is_a_fresh_one(after: str) -> None:
    config, registry = starter(beams=1, depth=3, max_tokens=24, temperature=0)
    seen = {"read": 0, "mixed": 2, "completing": 9}[after]
    with Engine(config, registry) as engine:
        talk = Conversation(engine)
        list(talk.ask(TURNS[0], config))
        talk.read_ahead(config)
        with engine.cancellation.on_interrupt():
            pieces = 0
            for event in talk.ask(TURNS[1], config):
                pieces += isinstance(event, BeamText)
                if pieces == seen and isinstance(event, BeamText | Phase):
                    signal.raise_signal(signal.SIGINT)
        turns = talk.messages
        with engine.cancellation.on_interrupt():
            interrupted = done(talk.ask(TURNS[2], config))
            row = prompt_row(engine)
    with Engine(config, registry) as engine:
        fresh = done(Conversation(engine, turns).ask(TURNS[2], config))
        assert np.abs(row - prompt_row(engine)).max() < SHAPE
        assert row.argmax() == prompt_row(engine).argmax()
        assert_same_up_to_a_near_tie(engine, interrupted.text, fresh.text)


def prompt_row(engine: Engine) -> Logits:
    """The draft's logits after the last prompt."""
    assert engine._models is not None
    return engine._models.draft.prompt.row(list(engine._models.draft.lm.tokens(0)))


def assert_same_up_to_a_near_tie(engine: Engine, text: str, other: str, prompt: Sequence[int] = ()) -> None:
    """Greedy answers that part do so where the draft, its repeats penalised, is nearly undecided."""
    assert engine._models is not None
    lm = engine._models.draft.lm
    left, right = map(lm.vocabulary.encode, (text, other))
    same = common_prefix(left, right)
    if len(left) == len(right) == same:
        return
    lm.set_tokens({0: [*(prompt or lm.tokens(0)), *left[:same]]})
    row, penalty = lm.logits(0).copy(), engine.config.repeat_penalty
    said = sorted(set(left[:same]))
    row[said] = np.where(row[said] > 0, row[said] / penalty, row[said] * penalty)
    ends = sorted(lm.vocabulary.end_tokens)
    parted = [row[ids[same]] if len(ids) > same else row[ends].max() for ids in (left, right)]
    assert abs(parted[0] - parted[1]) < NEAR_TIE, (text, other)


@pytest.mark.models
def test_prompts_at_once_are_answered_as_one_by_one() -> None:
    prompts = [[Message("user", text)] for text in TURNS[:4]]
    config, registry = starter(beams=1, depth=3, temperature=0, repeat_penalty=1.0)
    with Engine(config, registry) as engine:
        alone = [engine.answer(prompt) for prompt in prompts]
        one_by_one = engine.models.draft.lm.decodes
    together = config.with_values({"parallel": 4})
    with Engine(together, registry) as engine:
        list(engine.load())
        found = engine.parallel().answers([(prompt, together) for prompt in prompts])
        at_once = engine.models.draft.lm.decodes
        print(f"decodes of the draft: {one_by_one} one by one, {at_once} at once")
        assert at_once < one_by_one / 2
        for prompt, one, other in zip(prompts, alone, found, strict=True):
            assert isinstance(other, Result)
            read = engine.models.draft.format.encode(prompt, engine.models.draft.lm.vocabulary)
            assert_same_up_to_a_near_tie(engine, one.text, other.text, read)


def test_a_missing_model_is_an_error_that_says_how_to_get_it() -> None:
    config, registry = starter()
    with pytest.raises(ModelError, match="is not here yet") as caught:
        Engine(config, registry).answer(QUESTION)
    assert "alignbeam models pull smollm2-135m-instruct" in caught.value.hint


def test_a_role_without_a_model_is_an_error() -> None:
    with pytest.raises(UsageError, match="no draft model is named"):
        Engine(Config.of({}), Registry.load()).answer(QUESTION)


def test_a_room_is_never_larger_than_answers_can_be() -> None:
    wanted = context_sizes(Config.of({"max_tokens": 10**7, "context": 1024}))
    assert wanted["draft"].shared_cells == 1024 + 2 * 1024
    assert wanted["judge"].shared_cells < 20_000
