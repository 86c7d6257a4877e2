"""The search on llama.cpp: strategies, batches and variants come to the same."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from alignbeam_local.config import Config
from alignbeam_local.events import Event, Step
from alignbeam_local.llama.context import LlamaLM
from alignbeam_local.lm.language_model import LanguageModel, Logits
from alignbeam_local.lm.prompt_cache import PromptCache
from alignbeam_local.search.anchors import BridgedAnchor
from alignbeam_local.search.beams import BeamSearch
from alignbeam_local.search.bridge import Bridge
from alignbeam_local.search.mixing import RULES, log_normaliser, mix, probabilities, top_tokens
from tests.llama_models import (
    KINDS,
    NEAR_TIE,
    PROMPT,
    QWEN,
    SMOLLM,
    STRONGER,
    Kv,
    Opened,
    chat,
    contexts_closed,
    opened,
    tiny,
    write_tiny,
)

__all__ = ["contexts_closed", "opened", "tiny"]


# --- the search on llama.cpp


class Searched:
    """A finished search, with what each mixed step chose between."""

    def __init__(self, search: BeamSearch, events: Sequence[Event]) -> None:
        self.tokens = [beam.tokens for beam in search.beams]
        steps = [event for event in events if isinstance(event, Step)]
        self.steps = {(step.beam, step.position): step for step in steps}


def searched(
    draft: LlamaLM,
    anchor: LlamaLM,
    prompts: tuple[list[int], list[int]],
    config: Config,
    alone: int | None = None,
) -> Searched:
    """All three phases, of all beams or of one alone."""
    end = draft.vocabulary.turn_end(True)
    bridge = Bridge(draft.vocabulary, anchor.vocabulary, draft_turn_end=end)
    search = BeamSearch(draft, [BridgedAnchor(anchor, bridge)], config, max_tokens=config.max_tokens)
    rows = PromptCache(draft).row(prompts[0]), PromptCache(anchor).row(prompts[1])
    events = list(search.start(rows[0], rows[1:]))
    if alone is not None:
        search.drop([beam for beam in search.beams if beam.index != alone])
    events += [*search.extend([prompts[1]]), *search.complete()]
    search.close()
    return Searched(search, events)


def greedy(**knobs: Any) -> Config:
    return Config.of({"temperature": 0, "repeat_penalty": 1.0, "ignore_eos": True, **knobs})


@pytest.mark.parametrize(("kind", "kv"), KINDS[1:])
def test_saved_states_search_as_shared_cells_do(
    tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv, tmp_path: Path
) -> None:
    other = write_tiny(tmp_path / "other.gguf", "llama", seed=1)
    config = greedy(beams=3, depth=4, max_tokens=9)
    prompts = (PROMPT, [1, 71, 72])
    draft = opened.lm(tiny[kind], kv)
    found = searched(draft, opened.lm(other, "state"), prompts, config)
    assert len({tuple(tokens) for tokens in found.tokens}) == 3
    expected = searched(opened.lm(tiny[kind]), opened.lm(other, "seq"), prompts, config)
    assert found.tokens == expected.tokens
    for alone in range(3):
        one = searched(opened.lm(tiny[kind]), opened.lm(other, "seq"), prompts, config, alone)
        assert one.tokens[alone] == found.tokens[alone]


# --- the starter's models


def assert_same_up_to_near_ties(found: Searched, other: Searched, draft: LlamaLM, prompt: list[int]) -> None:
    for beam, (left, right) in enumerate(zip(found.tokens, other.tokens, strict=True)):
        if left == right:
            continue
        at = next(i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
        assert at > 0, "the beams start from the same rows"
        if (beam, at) in found.steps:
            best, second = (top.p_mixed for top in found.steps[beam, at].top[:2])
            gap = float(np.log(best / second))
        else:
            draft.set_tokens({0: [*prompt, *left[:at]]})
            second_logit, best_logit = np.sort(draft.logits(0))[-2:]
            gap = float(best_logit - second_logit)
        assert gap < NEAR_TIE, f"beam {beam} at {at}: {left} {right}"


@pytest.mark.models
def test_real_beams_do_not_depend_on_strategy_or_batch(opened: Opened) -> None:
    config = greedy(beams=3, depth=3, max_tokens=6)
    question = "How can I stay safe when I walk home at night?"

    def run(kv: Kv, alone: int | None = None) -> Searched:
        draft, anchor = opened.lm(SMOLLM, kv), opened.lm(QWEN, kv)
        return searched(draft, anchor, (chat(draft, question), chat(anchor, question)), config, alone)

    shared = run("seq")
    assert len({tokens[0] for tokens in shared.tokens}) == 3
    referee = opened.lm(SMOLLM)
    prompt = chat(referee, question)
    assert_same_up_to_near_ties(shared, run("state"), referee, prompt)
    alone = run("seq", alone=1)
    alone.tokens[0], alone.tokens[2] = shared.tokens[0], shared.tokens[2]
    assert_same_up_to_near_ties(shared, alone, referee, prompt)


# --- the variants on one vocabulary

ANSWERS = {
    "How do I steal a car?": "I'm sorry, but I can't assist with that. Stealing is illegal.",
    "What is ibuprofen?": "Ibuprofen is a drug that is used to treat pain, fever and inflammation.",
    "Write a haiku.": "Sure, here is a haiku: Quiet morning light, a crow on the bare",
    "Sort a list in Python.": "You can use the `sorted` function: it takes any iterable and",
}


def rows_along(lm: LanguageModel, prompt: Sequence[int], answer: Sequence[int]) -> Iterator[Logits]:
    lm.set_tokens({0: prompt})
    yield lm.logits(0).copy()
    for token in answer[:-1]:
        lm.extend({0: [token]})
        yield lm.logits(0).copy()


@pytest.mark.models
def test_on_one_vocabulary_the_variants_agree(opened: Opened) -> None:
    draft = opened.lm(STRONGER if STRONGER.is_file() else QWEN)
    anchor = opened.lm(QWEN)
    bridge = Bridge(draft.vocabulary, anchor.vocabulary, draft_turn_end=draft.vocabulary.eot)
    choices = []
    for question, answer in ANSWERS.items():
        prompt, ids = chat(anchor, question), anchor.vocabulary.encode(answer)
        assert prompt == chat(draft, question)
        rows = zip(rows_along(draft, prompt, ids), rows_along(anchor, prompt, ids), strict=True)
        choices += [{variant: choice(bridge, *pair, variant) for variant in VARIANTS} for pair in rows]
    assert len(choices) > 50
    agreeing = sum(len(set(chosen.values())) == 1 for chosen in choices)
    assert agreeing / len(choices) >= 0.98


VARIANTS: tuple[Literal["drop", "first", "exact"], ...] = ("drop", "first", "exact")


def choice(
    bridge: Bridge, draft_row: Logits, anchor_row: Logits, variant: Literal["drop", "first", "exact"]
) -> int:
    """The argmax of the mixture."""
    anchor = top_tokens(anchor_row, 50, log_normaliser(anchor_row))
    crossing, normaliser = bridge.cross(anchor.tokens), log_normaliser(draft_row)
    mixture = mix(
        anchor,
        crossing,
        probabilities(draft_row, RULES[variant].targets(crossing), normaliser),
        alpha=0.5,
        rule=RULES[variant],
        draft_mass="each",
        draft_top=top_tokens(draft_row, 50, normaliser),
    )
    return int(mixture.tokens[0])
