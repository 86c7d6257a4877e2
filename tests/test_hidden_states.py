"""Hidden states through the seam: beside the logits, in the decode of the last token, and only there."""

import logging
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.errors import Cancelled, ContextFull
from alignbeam_local.llama.context import LlamaLM
from alignbeam_local.lm.language_model import Hidden, LanguageModel
from alignbeam_local.lm.sequences import BATCH_TOKENS
from alignbeam_local.lm.slots import SharedContext
from tests.fake_lm import WIDTH as FAKE_WIDTH
from tests.fake_lm import FakeLM, fake_vocabulary, hashed_row
from tests.llama_models import (
    KINDS,
    PROMPT,
    QWEN,
    ROUNDING,
    SMOLLM,
    WIDTH,
    Kv,
    Opened,
    chat,
    contexts_closed,
    opened,
    tiny,
)
from tests.test_lanes import Sleeper

__all__ = ["contexts_closed", "opened", "tiny"]

VOCABULARY = fake_vocabulary()


def fake(**options: object) -> FakeLM:
    return FakeLM(VOCABULARY, hashed_row(VOCABULARY.size), **options)  # type: ignore[arg-type]


def fresh_state(opened: Opened, lm: LlamaLM, tokens: Sequence[int]) -> Hidden:
    """From a context that never held anything else."""
    return opened.lm(lm.weights.path, num_sequences=1).read({0: tokens})[0]


# --- llama.cpp


@pytest.mark.parametrize(("kind", "kv"), KINDS)
@pytest.mark.parametrize("length", [1, 2, BATCH_TOKENS + 40])
def test_logits_are_the_same_to_the_bit_with_and_without(
    tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv, length: int
) -> None:
    ids = [1, *(3 + n % 250 for n in range(length - 1))]
    reading, plain = opened.lm(tiny[kind], kv), opened.lm(tiny[kind], kv)
    state = reading.read({0: ids})[0]
    if length > 1:
        plain.extend({0: ids[:-1]})
    plain.extend({0: ids[-1:]})
    assert state.shape == (WIDTH,)
    assert state.dtype == np.float32
    assert np.array_equal(reading.logits(0), plain.logits(0))
    for lm in (reading, plain):
        lm.extend({0: [60, 61]})
    assert np.array_equal(reading.logits(0), plain.logits(0)), "what follows is the same too"
    assert list(reading.tokens(0)) == [*ids, 60, 61]


def test_the_state_is_what_the_logits_are_made_of(tiny: dict[str, Path], opened: Opened) -> None:
    """After the final norm only the output matrix is left."""
    from gguf import GGUFReader

    lm = opened.lm(tiny["llama"])
    state = lm.read({0: PROMPT})[0]
    output = next(t.data for t in GGUFReader(tiny["llama"]).tensors if t.name == "output.weight")
    assert np.allclose(output @ state, lm.logits(0), atol=1e-3)


@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_states_behind_a_fork_and_a_restored_state_are_those_of_a_fresh_prefill(
    tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv
) -> None:
    lm = opened.lm(tiny[kind], kv)
    lm.extend({0: PROMPT})
    lm.checkpoint(0)
    lm.fork(0, [1, 2])
    found = lm.read({1: [*PROMPT, 60], 2: [*PROMPT, 61, 62]})
    other = opened.lm(tiny[kind], kv)
    other.restore(3, lm.save(0))
    restored = other.read({3: [*PROMPT, 60]})[3]
    expected = fresh_state(opened, lm, [*PROMPT, 60])
    for state in (found[1], restored):
        assert np.abs(state - expected).max() < ROUNDING
    assert np.abs(found[2] - fresh_state(opened, lm, [*PROMPT, 61, 62])).max() < ROUNDING
    assert np.abs(found[1] - found[2]).max() > 10 * ROUNDING


def test_no_other_token_is_put_out(
    tiny: dict[str, Path], opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While hidden states are on llama.cpp overrides what a batch wants, with a warning."""
    lm, seen, is_on = opened.lm(tiny["llama"]), list[tuple[int, int, bool]](), [False]
    decode, switch = llama_cpp.llama_decode, llama_cpp.llama_set_embeddings

    def noted_switch(handle: object, value: bool) -> None:
        is_on[0] = value
        switch(handle, value)

    def noted_decode(handle: object, batch: llama_cpp.llama_batch) -> int:
        seen.append((batch.n_tokens, sum(batch.logits[i] for i in range(batch.n_tokens)), is_on[0]))
        return int(decode(handle, batch))

    monkeypatch.setattr(llama_cpp, "llama_set_embeddings", noted_switch)
    monkeypatch.setattr(llama_cpp, "llama_decode", noted_decode)
    with caplog.at_level(logging.WARNING, "llama.cpp"):
        lm.extend({0: PROMPT})
        lm.read({0: [*PROMPT, 60, 61, 62], 1: [1, 70]})
        lm.extend({0: [63, 64]})
    assert seen == [(len(PROMPT), 1, False), (3, 0, False), (2, 2, True), (2, 1, False)]
    assert not caplog.records


def test_a_read_that_is_cancelled_leaves_no_trace(tiny: dict[str, Path], opened: Opened) -> None:
    cancellation = Cancellation()
    lm = opened.lm(tiny["llama"], cancellation=cancellation)
    lm.extend({0: PROMPT})
    cancellation.set()
    with pytest.raises(Cancelled):
        lm.read({0: [*PROMPT, 60, 61]})
    cancellation.clear()
    assert list(lm.tokens(0)) == PROMPT
    lm.extend({0: [60]})
    assert np.abs(lm.logits(0)).max() > 0


@pytest.mark.models
@pytest.mark.parametrize("path", [SMOLLM, QWEN], ids=lambda path: path.stem)
def test_real_logits_are_the_same_to_the_bit_with_and_without(opened: Opened, path: Path) -> None:
    reading, plain = opened.lm(path), opened.lm(path)
    ids = chat(plain, "How do I brew green tea?")
    state = reading.read({0: ids})[0]
    plain.extend({0: ids[:-1]})
    plain.extend({0: ids[-1:]})
    assert np.array_equal(reading.logits(0), plain.logits(0))
    assert np.isfinite(state).all()
    assert np.abs(state).max() > 1


# --- slots, and the fake


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_a_slot_reads_while_others_decode(kv: Kv) -> None:
    assert_slots_read(fake(num_sequences=4, kv_strategy=kv), fake(num_sequences=4, kv_strategy=kv), 0.0)


@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_a_slot_of_llama_cpp_reads_while_others_decode(
    tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv
) -> None:
    assert_slots_read(opened.lm(tiny[kind], kv), opened.lm(tiny[kind], kv), ROUNDING)


def assert_slots_read(lm: LanguageModel, alone: LanguageModel, tolerance: float) -> None:
    shared = SharedContext(lm, 2)
    left, right = shared.slots
    reading = Sleeper(lambda: left.read({0: [1, 70, 80], 1: [1, 90]}))
    writing = Sleeper(lambda: right.extend({1: [1, 60]}))
    shared.decode()
    expected = alone.read({0: [1, 70, 80], 1: [1, 90]})
    for sequence in (0, 1):
        assert np.abs(reading.found[sequence] - expected[sequence]).max() <= tolerance
        assert np.abs(left.logits(sequence) - alone.logits(sequence)).max() <= tolerance, "kept, or there"
    alone.extend({3: [1, 60]})
    assert writing.error is None
    assert np.abs(right.logits(1) - alone.logits(3)).max() <= tolerance


def test_a_slot_that_has_no_room_to_read_fails_alone() -> None:
    shared = SharedContext(fake(num_sequences=4, num_cells=10), 2)
    left, right = shared.slots
    large, small = Sleeper(lambda: left.read({0: range(12)})), Sleeper(lambda: right.read({0: [4, 5]}))
    shared.decode()
    assert isinstance(large.error, ContextFull)
    assert small.found[0].shape == (FAKE_WIDTH,)


def test_a_fake_state_depends_on_the_tokens_alone() -> None:
    model = fake()
    first = model.read({0: [1, 2, 3], 1: [7]})
    assert model.batches == [{0: 2}, {0: 1, 1: 1}]
    again = fake().read({5: [1, 2, 3]})[5]
    assert np.array_equal(first[0], again)
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(model.logits(0), hashed_row(VOCABULARY.size)([1, 2, 3]))
