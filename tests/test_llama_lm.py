"""What only llama.cpp can show: caches that hold what they say.

Tiny models show the mechanics in milliseconds; the starter's models show the same on real weights, where
batch shapes move logits by up to about one.
"""

import threading
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.engine.background import Background
from alignbeam_local.errors import Cancelled, ContextFull, ModelError
from alignbeam_local.knobs.machine import CacheType
from alignbeam_local.llama import gpus as offload
from alignbeam_local.llama.context import LlamaLM
from alignbeam_local.llama.weights import LlamaWeights
from alignbeam_local.lm.devices import Offload
from alignbeam_local.lm.language_model import Logits, SamplerSettings
from alignbeam_local.lm.prefix_store import PrefixStore
from alignbeam_local.lm.prompt_cache import PromptCache
from alignbeam_local.lm.sequences import BATCH_TOKENS
from tests.llama_models import (
    GREEDY,
    KINDS,
    PROMPT,
    QWEN,
    ROUNDING,
    SHAPE,
    SMOLLM,
    Kv,
    Opened,
    assert_close,
    chat,
    contexts_closed,
    fresh,
    opened,
    tiny,
    write_tiny,
)

__all__ = ["contexts_closed", "opened", "tiny"]


@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_fork_and_step_is_a_fresh_prefill(tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv) -> None:
    lm: LlamaLM = opened.lm(tiny[kind], kv)
    assert lm.kv_strategy == ("seq" if kv == "seq" else "state")
    lm.extend({0: PROMPT})
    lm.fork(0, [1, 3])
    before = lm.decoded_tokens
    lm.extend({1: [60], 3: [61, 62]})
    assert lm.decoded_tokens - before == 3
    assert_close(lm.logits(1), fresh(opened, lm, [*PROMPT, 60]))
    assert_close(lm.logits(3), fresh(opened, lm, [*PROMPT, 61, 62]))
    assert (list(lm.tokens(0)), list(lm.tokens(3))) == (PROMPT, [*PROMPT, 61, 62])
    lm.extend({0: [63]})
    assert_close(lm.logits(0), fresh(opened, lm, [*PROMPT, 63]))
    lm.extend({1: [63]})
    assert np.abs(lm.logits(1) - fresh(opened, lm, [*PROMPT, 63])).max() > 10 * ROUNDING, "history matters"


@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_rewinding_is_a_fresh_prefill(tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv) -> None:
    lm = opened.lm(tiny[kind], kv)
    lm.extend({0: PROMPT})
    lm.checkpoint(0)
    lm.fork(0, [1])
    lm.extend({1: [60, 61, 62]})
    lm.set_tokens({1: [*PROMPT, 60, 65], 0: PROMPT})
    assert_close(lm.logits(1), fresh(opened, lm, [*PROMPT, 60, 65]))
    assert_close(lm.logits(0), fresh(opened, lm, PROMPT))
    lm.truncate(1, len(PROMPT) + 1)
    assert list(lm.tokens(1)) == [*PROMPT, 60]
    lm.truncate(1, 2)
    assert list(lm.tokens(1)) == PROMPT[:2]
    lm.extend({1: [66]})
    assert_close(lm.logits(1), fresh(opened, lm, [*PROMPT[:2], 66]))


@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_a_checkpoint_of_other_tokens_is_not_come_back_to(
    tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv
) -> None:
    lm = opened.lm(tiny[kind], kv)
    lm.extend({0: PROMPT})
    lm.checkpoint(0)
    lm.truncate(0, 1)
    lm.extend({0: [60, 61, 62, 63, 64, 65]})
    lm.truncate(0, 6)
    assert list(lm.tokens(0)) == [PROMPT[0], 60, 61, 62, 63, 64]
    lm.extend({0: [66]})
    assert_close(lm.logits(0), fresh(opened, lm, [PROMPT[0], 60, 61, 62, 63, 64, 66]))


@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_a_restored_state_is_a_fresh_prefill(
    tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv
) -> None:
    lm = opened.lm(tiny[kind], kv)
    lm.extend({0: PROMPT})
    state = lm.save(0)
    other = opened.lm(tiny[kind], kv)
    other.extend({2: [5, 6, 7]})
    other.restore(2, state)
    assert list(other.tokens(2)) == PROMPT
    assert np.array_equal(other.logits(2), lm.logits(0)), "the blob holds no logits, the state does"
    other.extend({2: [60]})
    assert_close(other.logits(2), fresh(opened, lm, [*PROMPT, 60]))
    lm.fork(0, [1])
    assert lm.save(1).logits is None or kv != "seq", "a fork by shared cells has no row to save"


@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_what_follows_kept_prefixes_is_the_same_to_the_bit(
    tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv
) -> None:
    store, rows = PrefixStore("here"), list[Logits]()
    prefixes = {0: [1, *range(3, 250)], 1: [1, *range(60, 180)]}
    for is_kept in (False, True):
        lm = opened.lm(tiny[kind], kv)
        assert store.restore(lm, prefixes) == is_kept
        if not is_kept:
            lm.set_tokens(prefixes)
            store.keep(lm, prefixes)
        for sequence in prefixes:
            lm.checkpoint(sequence)
            lm.fork(sequence, [sequence + 2])
        lm.extend({2: [60, 61, 62], 3: [70, 71]})
        rows.append(np.concatenate([lm.logits(2), lm.logits(3)]))
    assert np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_a_state_of_another_model_or_a_damaged_one_is_refused(
    tiny: dict[str, Path], opened: Opened, kind: str
) -> None:
    lm = opened.lm(tiny[kind])
    lm.extend({0: PROMPT})
    state = lm.save(0)
    with pytest.raises(ModelError, match="another model or build"):
        opened.lm(tiny[kind], sha256="another").restore(0, state)
    for blob in (state.blob[: len(state.blob) // 2], b""):
        damaged = type(state)(state.key, state.tokens, blob, None)
        with pytest.raises(ModelError, match="restored 0 of"):
            lm.restore(1, damaged)
        assert list(lm.tokens(1)) == []
    lm.extend({1: PROMPT})
    assert_close(lm.logits(1), fresh(opened, lm, PROMPT))


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_a_full_cache_stays_usable(tiny: dict[str, Path], opened: Opened, kv: Kv) -> None:
    lm = opened.lm(tiny["llama"], kv, num_cells=256)
    lm.extend({0: PROMPT})
    with pytest.raises(ContextFull, match="256 cells"):
        lm.extend({0: [60] * 200, 1: [61] * 100})
    assert (list(lm.tokens(0)), list(lm.tokens(1))) == (PROMPT, [])
    lm.extend({0: [60], 1: [61]})
    assert_close(lm.logits(0), fresh(opened, lm, [*PROMPT, 60]))
    assert_close(lm.logits(1), fresh(opened, lm, [61]))


def test_a_fork_that_finds_no_cells_says_so(tiny: dict[str, Path], opened: Opened) -> None:
    lm = opened.lm(tiny["llama"], "state", num_cells=256)
    lm.extend({0: [60] * 150})
    with pytest.raises(ContextFull, match="256 cells"):
        lm.fork(0, [1])
    assert (len(lm.tokens(0)), list(lm.tokens(1))) == (150, [])
    lm.extend({0: [61]})
    assert_close(lm.logits(0), fresh(opened, lm, [*[60] * 150, 61]))


@pytest.mark.parametrize("size", [(2, 256), (9, 2048)])
@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_a_saved_prompt_goes_into_a_context_of_another_size(
    tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv, size: tuple[int, int]
) -> None:
    lm = opened.lm(tiny[kind], kv)
    other = opened.lm(tiny[kind], kv, num_sequences=size[0], num_cells=size[1])
    cache = PromptCache(lm)
    assert cache.save() is None
    row, ahead = cache.row(PROMPT), [*PROMPT, *range(60, 160)]
    cache.read_ahead(ahead, PROMPT)
    saved = cache.save()
    assert saved is not None
    for next_prompt, decoded in ((PROMPT, 0), ([*ahead, 7], 1)):
        again = PromptCache(other)
        again.load(saved)
        before = other.decoded_tokens
        found = again.row(next_prompt)
        assert other.decoded_tokens - before == decoded
        assert_close(found, row if next_prompt == PROMPT else fresh(opened, lm, next_prompt))
    assert np.array_equal(cache.row(PROMPT), row)


@pytest.mark.parametrize(("kind", "kv"), KINDS)
@pytest.mark.parametrize("delay", [0, 0.001, 0.005, 0.02, 0.1])
def test_reading_ahead_stops_at_once_and_the_cache_is_right(
    tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv, delay: float
) -> None:
    cancellation = Cancellation()
    lm = opened.lm(tiny[kind], kv, cancellation=cancellation, num_cells=4096)
    background, cache = Background(cancellation), PromptCache(lm)
    row, ahead = cache.row(PROMPT), [*PROMPT, *(3 + n % 250 for n in range(600))]
    background.start(lambda: cache.read_ahead(ahead, PROMPT))
    time.sleep(delay)
    background.stop()
    held = list(lm.tokens(1))
    assert held == ahead[: len(held)]
    assert not cancellation.is_set
    assert np.array_equal(cache.row(PROMPT), row)
    assert_close(cache.row(ahead), fresh(opened, lm, ahead))


class SetButUnseen(Cancellation):
    """Set, but only the abort callback looks: the decode itself is what gets stopped."""

    def check(self) -> None:
        pass


@pytest.mark.parametrize(("kind", "kv"), KINDS)
def test_an_aborted_decode_leaves_the_cache_as_it_was(
    tiny: dict[str, Path], opened: Opened, kind: str, kv: Kv
) -> None:
    cancellation = SetButUnseen()
    lm = opened.lm(tiny[kind], kv, cancellation=cancellation)
    lm.extend({0: PROMPT})
    cancellation.set()
    with pytest.raises(Cancelled):
        lm.extend({0: [60] * 600, 1: [61]})
    cancellation.clear()
    assert list(lm.tokens(0)) in (PROMPT, []), "what it held, or where it can't be cut nothing"
    assert list(lm.tokens(1)) == []
    lm.set_tokens({0: [*PROMPT, 62]})
    assert_close(lm.logits(0), fresh(opened, lm, [*PROMPT, 62]))


@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_prompts_longer_than_a_batch(tiny: dict[str, Path], opened: Opened, kind: str) -> None:
    lm = opened.lm(tiny[kind], num_cells=2048)
    long = [3 + n % 250 for n in range(BATCH_TOKENS + 90)]
    lm.extend({0: PROMPT, 1: long})
    rows = lm.logits(0).copy(), lm.logits(1).copy()
    assert_close(rows[0], fresh(opened, lm, PROMPT))
    one_by_one = opened.lm(tiny[kind])
    one_by_one.extend({0: long[:300]})
    one_by_one.extend({0: long[300:]})
    assert_close(rows[1], one_by_one.logits(0))


@pytest.fixture(scope="module")
def one_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head as wide as a block of the quantised types."""
    return write_tiny(tmp_path_factory.mktemp("one") / "one_head.gguf", "llama", heads=1)


def test_flash_attention_is_the_same_attention(one_head: Path, opened: Opened) -> None:
    rows = []
    for flash_attn in ("on", "off", "auto"):
        lm = opened.lm(one_head, flash_attn=flash_attn)
        lm.extend({0: PROMPT})
        lm.fork(0, [1])
        lm.extend({1: [60]})
        rows.append(lm.logits(1).copy())
    assert_close(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2]), "the processor can"


@pytest.mark.parametrize("cache_type", get_args(CacheType))
def test_every_cache_type_makes_a_context(one_head: Path, opened: Opened, cache_type: CacheType) -> None:
    assert opened.lm(one_head, cache_types=(cache_type, cache_type)).num_cells == 1024


def test_another_cache_type_is_nearly_the_same_and_has_states_of_its_own(
    one_head: Path, opened: Opened
) -> None:
    cache_type: CacheType = "q8_0"
    lm, plain = opened.lm(one_head, cache_types=(cache_type, cache_type)), opened.lm(one_head)
    for each in (lm, plain):
        each.extend({0: PROMPT})
        each.fork(0, [1])
        each.extend({1: [60]})
    assert np.abs(lm.logits(1) - plain.logits(1)).max() < 1
    state = lm.save(1)
    again = opened.lm(one_head, cache_types=(cache_type, cache_type))
    again.restore(2, state)
    for each in (again, lm):
        each.extend({2 if each is again else 1: [61]})
    assert_close(again.logits(2), lm.logits(1))
    for other in (plain, opened.lm(one_head, cache_types=(cache_type, "f16"))):
        with pytest.raises(ModelError, match="another model or build"):
            other.restore(2, state)
        with pytest.raises(ModelError, match="another model or build"):
            lm.restore(2, other.save(0))
    assert len(state.blob) < len(plain.save(1).blob)


def test_a_state_made_with_flash_attention_is_not_restored_without(one_head: Path, opened: Opened) -> None:
    lm, other = opened.lm(one_head, flash_attn="on"), opened.lm(one_head, flash_attn="off")
    lm.extend({0: PROMPT})
    with pytest.raises(ModelError, match="another model or build"):
        other.restore(0, lm.save(0))


def test_a_cache_type_that_cannot_be_is_told_in_llama_cpps_words(
    tiny: dict[str, Path], one_head: Path, opened: Opened
) -> None:
    with pytest.raises(ModelError, match="could not make a context") as narrow:
        opened.lm(tiny["llama"], cache_types=("q8_0", "f16"))
    assert "block size 32 does not divide" in narrow.value.hint
    with pytest.raises(ModelError, match="could not make a context") as flashless:
        opened.lm(one_head, cache_types=("f16", "q8_0"), flash_attn="off")
    assert "requires flash_attn" in flashless.value.hint


def test_layers_on_a_named_device_give_the_same_rows(
    one_head: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor stands for a GPU: llama.cpp takes any device for one."""
    monkeypatch.setattr(offload, "_GPU", 0)
    monkeypatch.setattr(offload, "_kind", lambda _: 0)
    gpu = offload.gpus()[0]
    assert 0 < gpu.free <= gpu.total
    weights = LlamaWeights(one_head, offload=Offload(2, (gpu.number,), (1.0,)), use_extra_bufts=False)
    lm = LlamaLM(weights, sha256="", num_sequences=2, num_cells=256, threads=1)
    lm.extend({0: PROMPT})
    row = lm.logits(0).copy()
    lm.close()
    weights.close()
    plain = opened.lm(one_head)
    plain.extend({0: PROMPT})
    assert_close(row, plain.logits(0))


def test_two_contexts_share_weights(tiny: dict[str, Path], opened: Opened) -> None:
    one, other = opened.lm(tiny["llama"]), opened.lm(tiny["llama"])
    assert one.weights is other.weights
    one.extend({0: PROMPT})
    row = one.logits(0).copy()
    other.extend({0: [9, 9, 9]})
    assert np.array_equal(one.logits(0), row)


def test_greedy_sampling_is_the_argmax_and_penalties_move_it(tiny: dict[str, Path], opened: Opened) -> None:
    lm = opened.lm(tiny["llama"])
    lm.extend({0: PROMPT, 1: [60]})
    best = [int(lm.logits(sequence).argmax()) for sequence in (0, 1)]
    greedy = lm.sampler(GREEDY)
    assert [greedy.sample(0), greedy.sample(1)] == best
    penalising = lm.sampler(SamplerSettings(0, 1.0, 1000.0, 64, 0))
    assert penalising.sample(0) == best[0]
    assert penalising.sample(0) != best[0], "it accepted what it drew"
    told = lm.sampler(SamplerSettings(0, 1.0, 1000.0, 64, 0))
    told.accept(best[0])
    assert told.sample(0) != best[0]
    for sampler in (greedy, penalising, told):
        sampler.close()


def test_sampling_repeats_with_its_seed_and_top_p_narrows_it(tiny: dict[str, Path], opened: Opened) -> None:
    lm = opened.lm(tiny["llama"])
    lm.extend({0: PROMPT})

    def drawn(top_p: float, seed: int) -> list[int]:
        sampler = lm.sampler(SamplerSettings(2.0, top_p, 1.0, 64, seed))
        tokens = [sampler.sample(0) for _ in range(12)]
        sampler.close()
        return tokens

    assert drawn(1.0, 1) == drawn(1.0, 1) != drawn(1.0, 2)
    assert set(drawn(1e-6, 1)) == {int(lm.logits(0).argmax())}


def test_top_k_and_min_p_narrow_it_and_a_grammar_rules_it(tiny: dict[str, Path], opened: Opened) -> None:
    lm = opened.lm(tiny["llama"])
    lm.extend({0: PROMPT})
    order = np.argsort(-lm.logits(0))

    def drawn(**narrowed: Any) -> set[int]:
        sampler = lm.sampler(SamplerSettings(5.0, 1.0, 1.0, 64, 1, **narrowed))
        tokens = {sampler.sample(0) for _ in range(40)}
        sampler.close()
        return tokens

    assert drawn(top_k=3) == set(order[:3].tolist())
    assert drawn(min_p=1.0) == {int(order[0])}
    assert len(drawn()) > 10
    pieces = {lm.vocabulary.piece(token) for token in drawn(grammar="root ::= [a]*")}
    assert pieces <= {b"a", b""}, "and the end, which is no text"


def test_a_cache_that_cannot_be_cut_is_not_forced(tiny: dict[str, Path], opened: Opened) -> None:
    with pytest.raises(ModelError, match="can't rewind"):
        opened.lm(tiny["mamba"], "seq")


# --- the starter's models


@pytest.mark.models
@pytest.mark.parametrize("path", [SMOLLM, QWEN], ids=["smollm2", "qwen"])
def test_real_forks_and_states_are_fresh_prefills(opened: Opened, path: Path) -> None:
    lm = opened.lm(path, "seq")
    prompt = chat(lm, "Name three fruits.")
    tail = lm.vocabulary.encode("Apples and")
    expected = fresh(opened, lm, [*prompt, *tail])
    lm.extend({0: prompt})
    state = lm.save(0)
    lm.fork(0, [1, 2])
    lm.extend({1: tail, 2: tail[:1]})
    assert_close(lm.logits(1), expected, SHAPE)
    lm.truncate(1, len(prompt))
    lm.extend({1: tail})
    assert_close(lm.logits(1), expected, SHAPE)
    other = opened.lm(path, "seq")
    other.restore(3, state)
    assert state.logits is not None
    assert np.array_equal(other.logits(3), state.logits)
    other.extend({3: tail})
    assert_close(other.logits(3), expected, SHAPE)
    assert other.decoded_tokens == len(tail)


@pytest.mark.models
def test_a_real_state_goes_into_no_other_model(opened: Opened) -> None:
    lm = opened.lm(SMOLLM)
    lm.extend({0: [5]})
    with pytest.raises(ModelError):
        opened.lm(QWEN, num_cells=256).restore(0, lm.save(0))


@pytest.mark.models
def test_a_long_prefill_is_cancelled_within_it(opened: Opened) -> None:
    cancellation = Cancellation()
    lm = opened.lm(SMOLLM, num_cells=2048, cancellation=cancellation)
    prompt = chat(lm, "Hello!")
    lm.extend({0: prompt})
    timer = threading.Timer(0.1, cancellation.set)
    timer.start()
    with pytest.raises(Cancelled):
        lm.extend({0: [1000 + n for n in range(1500)], 1: prompt})
    timer.join()
    cancellation.clear()
    assert (list(lm.tokens(0)), list(lm.tokens(1))) == (prompt, [])
    lm.extend({0: [30, 31]})
    assert_close(lm.logits(0), fresh(opened, lm, [*prompt, 30, 31]), SHAPE)
