"""Reasoning of a draft that can't be silenced: found by its end, kept out of the prompt's cache."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, strategies

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.errors import Cancelled
from alignbeam_local.lm.language_model import LanguageModel, Logits
from alignbeam_local.lm.prompt_cache import PromptCache
from alignbeam_local.prompt.text_stream import whole_characters
from alignbeam_local.search import thinking
from alignbeam_local.search.thinking import Thought, spelt, think
from tests.fake_lm import FakeLM, fake_vocabulary, scripted_row

END = "</think>"
CONTROL = ("<|im_end|>", "<think>", END)
PLAIN = fake_vocabulary("</", "think", ">\n")
TOKENS = fake_vocabulary(control=CONTROL, eos="<|im_end|>", eot="<|im_end|>")
GREEDY = Config.of({"temperature": 0, "repeat_penalty": 1.0})


def draft_that_says(text: str, cancellation: Cancellation | None = None) -> FakeLM:
    return FakeLM(PLAIN, scripted_row(PLAIN, {"Q": text}), cancellation=cancellation)


def thought_of(draft: FakeLM, limit: int = 50, config: Config = GREEDY) -> Thought:
    row = PromptCache(draft).row(draft.vocabulary.encode("Q"))
    return think(draft, config, row, think_end=END, limit=limit)


def test_reasoning_lasts_until_its_end_is_spelt() -> None:
    draft = draft_that_says("Let me see.</think>\nAnswer")
    thought = thought_of(draft)
    assert (thought.text, thought.finished) == ("Let me see.", True)
    assert draft.vocabulary.pieces(thought.tokens) == b"Let me see.</think>\n", "the end's token is whole"


def test_the_end_may_be_a_control_token() -> None:
    end = TOKENS.encode_template(END)[0]
    script = scripted_row(TOKENS, {"Q": "hm"})

    def row(tokens: Sequence[int]) -> Logits:
        logits = script(tokens)
        logits[end] = 50.0 if TOKENS.pieces(tokens) == b"Qhm" else 0.0
        return logits

    draft = FakeLM(TOKENS, row)
    thought = thought_of(draft)
    assert thought == Thought((*TOKENS.encode("hm"), end), "hm", True)
    assert spelt(draft, thought.tokens) == "hm</think>"


def draft_of(said: Sequence[int]) -> FakeLM:
    """Says these tokens behind the prompt `Q`, whole characters or not, then nothing but dots."""

    def row(tokens: Sequence[int]) -> Logits:
        logits = np.zeros(PLAIN.size, np.float32)
        logits[[*said, *PLAIN.encode("." * len(tokens))][len(tokens) - 1]] = 9.0
        return logits

    return FakeLM(PLAIN, row)


def slow_thought(tokens: Sequence[int]) -> Thought:
    """The reference: all that was said is looked at anew with each token."""
    for count in range(1, len(tokens) + 1):
        text = whole_characters(PLAIN.pieces(tokens[:count]))
        if END in text:
            return Thought(tuple(tokens[:count]), text.partition(END)[0], True)
    return Thought(tuple(tokens), whole_characters(PLAIN.pieces(tokens)), False)


WORDS = [PLAIN.encode(word) for word in ("</", "think", ">", ">\n", "<", END, "a", "é")]


@given(strategies.lists(strategies.sampled_from([*WORDS, [0xC3], [0xA9], [0xE2]]), min_size=1))
@example([PLAIN.encode(part) for part in ("<", "</", "think", "</", "think", ">", "a")])
@example([[0xC3], PLAIN.encode(END), PLAIN.encode("a")])
def test_the_end_is_found_where_the_whole_text_shows_it(words: list[list[int]]) -> None:
    said = [token for word in words for token in word]
    assert thought_of(draft_of(said), limit=len(said)) == slow_thought(said)


def test_long_reasoning_is_not_read_again_with_each_token(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(lm: LanguageModel, tokens: Sequence[int]) -> str:
        read.append(len(tokens))
        return spelt(lm, tokens)

    monkeypatch.setattr(thinking, "spelt", counted)
    said = thought_of(draft_that_says("hm " * 100 + END), limit=400)
    assert said.finished
    assert sum(read) <= len(said.tokens)


def test_reasoning_that_does_not_end_is_unfinished() -> None:
    thought = thought_of(draft_that_says("on and on and on"), limit=9)
    assert (thought.text, len(thought.tokens), thought.finished) == ("on and on", 9, False)


def test_a_turn_that_ends_without_reasoning_is_no_thought() -> None:
    assert thought_of(draft_that_says("Plain.")) == Thought()


def test_the_prompt_stays_and_is_not_decoded_again() -> None:
    draft = draft_that_says("a</think>b")
    thought = thought_of(draft)
    assert list(draft.tokens(0)) == draft.vocabulary.encode("Q")
    assert draft.decoded_tokens == 1 + len(thought.tokens) - 1


def test_a_prompt_whose_row_is_cached_can_be_thought_about_again() -> None:
    draft = draft_that_says("Plain.")
    cache, prompt = PromptCache(draft), draft.vocabulary.encode("Q")
    first = think(draft, GREEDY, cache.row(prompt), think_end=END, limit=50)
    assert think(draft, GREEDY, cache.row(prompt), think_end=END, limit=50) == first


def test_the_penalty_sees_every_token_of_the_thought() -> None:
    logits = np.zeros(PLAIN.size, np.float32)
    logits[[ord("x"), ord("y")]] = 3.0, 2.0
    draft = FakeLM(PLAIN, lambda tokens: logits)
    config = GREEDY.with_values({"repeat_penalty": 2.0})
    assert thought_of(draft, limit=2, config=config).text == "xy"


def test_a_cancelled_thought_leaves_the_prompt() -> None:
    cancellation = Cancellation()
    draft = draft_that_says("a</think>b", cancellation=cancellation)
    row = PromptCache(draft).row(draft.vocabulary.encode("Q"))
    cancellation.set()
    with pytest.raises(Cancelled):
        think(draft, GREEDY, row, think_end=END, limit=50)
    assert list(draft.tokens(0)) == draft.vocabulary.encode("Q")


@pytest.mark.parametrize("limit", [3, 4, 5, 6])
def test_reasoning_that_is_cut_inside_a_character_ends_before_it(limit: int) -> None:
    thought = thought_of(draft_that_says("ab🍵 tea"), limit=limit)
    assert (thought.text, len(thought.tokens)) == ("ab" if limit < 6 else "ab🍵", limit)
