"""What only llama.cpp can show: caches that hold what they say, and vocabularies as they are.

Tiny random models made here show the mechanics in milliseconds, one with a cache that can't be cut; the
starter's models show the same on real weights, where batch shapes move logits by up to about one.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import gguf
import llama_cpp
import numpy as np
import pytest

from alignbeam_local.background import Background
from alignbeam_local.beams import BeamSearch
from alignbeam_local.bridge import Bridge
from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import CacheType, Config
from alignbeam_local.devices import Offload
from alignbeam_local.errors import Cancelled, ContextFull, ModelError
from alignbeam_local.events import Event, Step
from alignbeam_local.llama import offload
from alignbeam_local.llama.backend import set_fields
from alignbeam_local.llama.batch import BATCH_TOKENS
from alignbeam_local.llama.lm import LlamaLM
from alignbeam_local.llama.weights import LlamaWeights, load_vocabulary
from alignbeam_local.lm import LanguageModel, Logits, SamplerSettings
from alignbeam_local.mixing import log_normaliser, mix, probabilities, top_tokens
from alignbeam_local.paths import models_dir
from alignbeam_local.prefix_store import PrefixStore
from alignbeam_local.prompt import Message, prompt_format
from alignbeam_local.prompt_cache import PromptCache
from alignbeam_local.vocabulary import Vocabulary

MODELS = models_dir()  # before any test moves it
Kv = Literal["auto", "seq", "state"]
GREEDY = SamplerSettings(temperature=0, top_p=1.0, repeat_penalty=1.0, penalty_last_n=64, seed=0)

# --- tiny models

BYTE_TOKENS = 3  # <0x00>; unknown, BOS and EOS come before it
WORDS = ("▁", "a", "b", "ab", "▁a", "▁ab")
SIZE = BYTE_TOKENS + 256 + len(WORDS)
WIDTH = 32


def write_tiny(
    path: Path,
    architecture: Literal["llama", "mamba"],
    seed: int = 0,
    *,
    has_weights: bool = True,
    part_tensors: int = 0,
    heads: int = 2,
    **extra: int,
) -> Path:
    """A whole random model with a SentencePiece vocabulary that adds a space and falls back to bytes.

    With `part_tensors` it is split: a first part without tensors, then parts of at most so many; the first
    is returned.
    """
    writer = gguf.GGUFWriter(
        path, architecture, split_max_tensors=part_tensors, small_first_shard=part_tensors > 0
    )
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS])
    writer.add_token_scores([0.0] * (SIZE - len(WORDS)) + [-float(n) for n in range(len(WORDS), 0, -1)])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(WORDS))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)
    writer.add_vocab_size(SIZE)
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in extra.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    shapes = _llama(writer, heads) if architecture == "llama" else _mamba(writer)
    if has_weights:
        _write_weights(writer, shapes, architecture, seed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return min(path.parent.glob(f"{path.stem}-00001-of-*.gguf")) if part_tensors else path


def _write_weights(
    writer: gguf.GGUFWriter, shapes: dict[str, tuple[int, ...]], architecture: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    for name, shape in {"token_embd.weight": (SIZE, WIDTH), "output.weight": (SIZE, WIDTH), **shapes}.items():
        writer.add_tensor(name, random.normal(0, 0.3, shape).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", *(["blk.0.ffn_norm"] if architecture == "llama" else [])):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))


def _llama(writer: Any, heads: int) -> dict[str, tuple[int, ...]]:
    writer.add_feed_forward_length(64)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(WIDTH // heads)
    square = {f"blk.0.attn_{part}.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
    wide = {f"blk.0.ffn_{part}.weight": (64, WIDTH) for part in ("gate", "up")}
    return {**square, **wide, "blk.0.ffn_down.weight": (WIDTH, 64)}


def _mamba(writer: Any) -> dict[str, tuple[int, ...]]:
    inner, state, rank, kernel = 64, 8, 4, 4
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_tensor("blk.0.ssm_a", -np.ones((inner, state), np.float32))
    return {
        "blk.0.ssm_in.weight": (2 * inner, WIDTH),
        "blk.0.ssm_conv1d.weight": (inner, kernel),
        "blk.0.ssm_conv1d.bias": (inner,),
        "blk.0.ssm_x.weight": (rank + 2 * state, inner),
        "blk.0.ssm_dt.weight": (inner, rank),
        "blk.0.ssm_dt.bias": (inner,),
        "blk.0.ssm_d": (inner,),
        "blk.0.ssm_out.weight": (WIDTH, inner),
    }


class Opened:
    """Contexts on some weights, closed in the right order at the end."""

    def __init__(self) -> None:
        self.weights: dict[Path, LlamaWeights] = {}
        self._contexts: list[LlamaLM] = []

    def lm(self, path: Path, kv: Kv = "auto", **options: Any) -> LlamaLM:
        if path not in self.weights:
            self.weights[path] = LlamaWeights(path, use_extra_bufts=False)  # which runs on any machine
        fixed: dict[str, Any] = {"sha256": path.stem, "num_sequences": 4, "num_cells": 1024, "threads": 2}
        self._contexts.append(LlamaLM(self.weights[path], kv_strategy=kv, **{**fixed, **options}))
        return self._contexts[-1]

    def close_contexts(self) -> None:
        while self._contexts:
            self._contexts.pop().close()

    def close(self) -> None:
        self.close_contexts()
        while self.weights:
            self.weights.popitem()[1].close()


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    opened = Opened()
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def contexts_closed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Weights stay for the next test, contexts do not."""
    yield
    if "opened" in request.fixturenames:
        request.getfixturevalue("opened").close_contexts()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    return {kind: write_tiny(folder / f"{kind}.gguf", kind) for kind in ("llama", "mamba")}


#: The tiny models' logits have a deviation of 1.5; their cache rounds to 16 bits.
ROUNDING = 0.05
KINDS = [("llama", "seq"), ("llama", "state"), ("mamba", "auto")]
PROMPT = [1, 70, 80, 90, 100]


def fresh(opened: Opened, lm: LlamaLM, tokens: Sequence[int]) -> Logits:
    """The row after some tokens, from a context that never held anything else."""
    other = opened.lm(lm.weights.path, num_sequences=1)
    other.extend({0: tokens})
    return other.logits(0).copy()


def assert_close(row: Logits, expected: Logits, tolerance: float = ROUNDING) -> None:
    assert np.abs(row - expected).max() < tolerance
    assert row.argmax() == expected.argmax()


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


def test_a_cache_that_cannot_be_cut_is_not_forced(tiny: dict[str, Path], opened: Opened) -> None:
    with pytest.raises(ModelError, match="can't rewind"):
        opened.lm(tiny["mamba"], "seq")


# --- loading


def test_more_sequences_than_llama_cpp_holds_are_refused(tiny: dict[str, Path], opened: Opened) -> None:
    with pytest.raises(ModelError, match="257 sequences are wanted") as caught:
        opened.lm(tiny["llama"], num_sequences=257)
    assert "--parallel" in caught.value.hint


def test_a_misspelt_parameter_is_no_parameter() -> None:
    params = llama_cpp.llama_context_default_params()
    assert set_fields(params, n_ctx=7).n_ctx == 7
    with pytest.raises(AssertionError, match="kv_unifed"):
        set_fields(params, kv_unifed=True)


def test_a_file_that_is_no_model_is_refused_in_llama_cpps_words(
    tiny: dict[str, Path], tmp_path: Path
) -> None:
    def hint(content: bytes) -> str:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        with pytest.raises(ModelError, match="could not load") as caught:
            LlamaWeights(path, use_extra_bufts=False)
        return caught.value.hint

    whole = tiny["llama"].read_bytes()
    assert "invalid magic" in hint(b"a text file " * 99)
    assert "corrupted or incomplete" in hint(whole[: len(whole) * 3 // 4])
    assert "failed to load model" in hint(whole[:2000])


def test_an_embedding_model_is_refused(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "embeds.gguf", "llama", pooling_type=1)
    with pytest.raises(ModelError, match="embedding model"):
        LlamaWeights(path, use_extra_bufts=False)


def test_a_model_says_what_it_is(tiny: dict[str, Path], opened: Opened) -> None:
    opened.lm(tiny["mamba"])
    info = opened.weights[tiny["mamba"]].info
    assert (info.context_length, info.chat_template) == (2048, None)
    assert opened.weights[tiny["mamba"]].metadata("general.architecture") == "mamba"
    assert opened.weights[tiny["mamba"]].metadata("no.such.key") == ""


# --- a SentencePiece vocabulary


def test_the_space_prefix_of_llama_cpp_is_undone(tiny: dict[str, Path]) -> None:
    vocabulary, template = load_vocabulary(tiny["llama"])
    tokeniser = vocabulary._tokeniser
    assert template is None
    assert vocabulary.adds_space_prefix
    assert vocabulary.pieces(tokeniser.encode(b"ab", False)) == b" ab", "llama.cpp's own way"
    for text in ("ab", " ab", "a", "é", "\nab", "zab é", " "):
        assert vocabulary.pieces(vocabulary.encode(text)) == text.encode()
    assert len(vocabulary.encode("ab")) == 1
    assert vocabulary.encode("ab") != vocabulary.encode(" ab")


def test_byte_tokens_stand_for_their_bytes(tiny: dict[str, Path]) -> None:
    vocabulary, _ = load_vocabulary(tiny["llama"])
    assert vocabulary.encode("é") == [BYTE_TOKENS + byte for byte in "é".encode()]
    assert vocabulary.encode(b"\xc3") == [BYTE_TOKENS + 0xC3]
    bridge = Bridge(vocabulary, vocabulary, draft_turn_end=vocabulary.eos)
    bytes_alone = range(BYTE_TOKENS + 128, BYTE_TOKENS + 256)
    assert all(bridge.landing(token).tokens == (token,) for token in bytes_alone)
    words = range(SIZE - len(WORDS), SIZE)
    assert all(bridge.landing(token).tokens == (token,) for token in words)
    assert [bridge.landing(token).tokens for token in (0, 1, 2)] == [(), (), (2,)]


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
    search = BeamSearch(draft, anchor, bridge, config, max_tokens=config.max_tokens)
    rows = PromptCache(draft).row(prompts[0]), PromptCache(anchor).row(prompts[1])
    events = list(search.start(*rows))
    if alone is not None:
        search.drop([beam for beam in search.beams if beam.index != alone])
    events += [*search.extend(prompts[1]), *search.complete()]
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


def model_path(name: str) -> Path:
    return MODELS / f"{name}.gguf"


SMOLLM, QWEN = model_path("smollm2-135m-instruct"), model_path("qwen2.5-coder-0.5b-instruct")
STRONGER = model_path("qwen2.5-coder-1.5b-instruct")
#: Another batch shape moves logits by about this much (design, section 3).
SHAPE = 1.5
NEAR_TIE = 1.0


def chat(lm: LlamaLM, prompt: str) -> list[int]:
    layout = prompt_format(lm.weights.info.chat_template, lm.vocabulary)
    return layout.encode([Message("user", prompt)], lm.vocabulary)


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


# --- real vocabularies


@pytest.fixture(scope="module")
def qwen() -> Vocabulary:
    return load_vocabulary(QWEN)[0]


@pytest.mark.models
def test_stray_bytes_of_qwen_land_on_themselves(qwen: Vocabulary) -> None:
    bridge = Bridge(qwen, qwen, draft_turn_end=qwen.eot)
    stray = list(qwen.byte_tokens.values())
    assert len(stray) > 1000
    assert [token for token in stray if bridge.landing(token).tokens != (token,)] == []


@pytest.mark.models
def test_long_pieces_are_whole(qwen: Vocabulary) -> None:
    long = [token for token in range(qwen.size) if len(qwen.piece(token)) > 32]
    assert len(long) > 200
    joined = [qwen.pieces(qwen.encode(qwen.piece(token))) for token in long]
    assert joined == [qwen.piece(token) for token in long]


@pytest.mark.models
def test_every_end_of_qwen_ends_a_turn_of_smollm2(qwen: Vocabulary) -> None:
    smollm, template = load_vocabulary(SMOLLM)
    assert template is not None
    end = smollm.turn_end(True)
    assert end is not None
    assert end in smollm.end_tokens
    bridge = Bridge(smollm, qwen, draft_turn_end=end)
    spelt = {qwen.text(token) for token in qwen.end_tokens}
    assert {"<|im_end|>", "<|endoftext|>"} <= spelt
    assert {bridge.landing(token).tokens for token in qwen.end_tokens} == {(end,)}


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
    targets = crossing.first if variant == "first" else crossing.single
    mixture = mix(
        anchor,
        crossing,
        probabilities(draft_row, targets, normaliser),
        alpha=0.5,
        variant=variant,
        draft_mass="each",
        draft_top=top_tokens(draft_row, 50, normaliser),
    )
    return int(mixture.tokens[0])
