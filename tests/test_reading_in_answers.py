"""What heads read while an answer is made, on llama.cpp: as alone, and nothing else is changed by it."""

from pathlib import Path

import numpy as np
import pytest

from alignbeam_local.heads.reading import read_answers
from alignbeam_local.lm.prompt_cache import PromptCache
from tests.llama_models import KINDS, PROMPT, ROUNDING, Kv, Opened, contexts_closed, opened, tiny
from tests.test_hidden_states import fresh_state

__all__ = ["contexts_closed", "opened", "tiny"]

#: Prompts that share beginnings of several lengths with the one that is held, and one that shares none.
BESIDE = [[*PROMPT[:2], 60, 61], [*PROMPT, 62], [90, 91, 92], [*PROMPT[:1], 63], PROMPT[:2]]


@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_prompts_beside_the_held_one_are_read_as_by_themselves(
    tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv
) -> None:
    lm = opened.lm(tiny[kind], kv)
    cache = PromptCache(lm)
    state = cache.read(PROMPT)
    assert np.abs(state - fresh_state(opened, lm, PROMPT)).max() < ROUNDING
    for found, ids in zip(cache.read_beside(BESIDE), BESIDE, strict=True):
        assert np.abs(found - fresh_state(opened, lm, ids)).max() < ROUNDING
    assert [list(lm.tokens(sequence)) for sequence in range(lm.num_sequences)] == [
        PROMPT,
        *[[]] * (lm.num_sequences - 1),
    ]
    decoded = lm.decoded_tokens
    assert (cache.read(PROMPT) is state, lm.decoded_tokens) == (True, decoded)


@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_an_answer_goes_on_as_if_it_had_not_been_read(
    tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv
) -> None:
    rows = []
    for is_read in (False, True):
        lm = opened.lm(tiny[kind], kv)
        lm.extend({0: PROMPT})
        lm.checkpoint(0)
        lm.fork(0, [1, 2])
        lm.extend({1: [60], 2: [70]})
        if is_read:
            states = read_answers(lm, {1: [*PROMPT, 60, 61], 2: [*PROMPT, 70]}, [2])
            assert np.abs(states[1] - fresh_state(opened, lm, [*PROMPT, 60, 61, 2])).max() < ROUNDING
            assert np.abs(states[2] - fresh_state(opened, lm, [*PROMPT, 70, 2])).max() < ROUNDING
        lm.extend({1: [61], 2: [71]})
        rows.append([lm.logits(1).copy(), lm.logits(2).copy()])
    for read, plain in zip(*rows, strict=True):
        assert np.abs(read - plain).max() < ROUNDING
