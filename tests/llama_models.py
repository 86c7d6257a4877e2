"""Models on llama.cpp: tiny random ones made here, one with a cache that can't be cut, and the starter's."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import pytest

from alignbeam_local.llama.context import LlamaLM
from alignbeam_local.llama.weights import LlamaWeights
from alignbeam_local.lm.language_model import Logits, SamplerSettings
from alignbeam_local.paths import models_dir
from alignbeam_local.prompt.formats import prompt_format
from alignbeam_local.prompt.message import Message

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
    name: str = "",
    blocks: int = 1,
    **extra: int,
) -> Path:
    """A whole random model with a SentencePiece vocabulary that adds a space and falls back to bytes.

    With `part_tensors` it is split: a first part without tensors, then parts of at most so many; the first
    is returned.
    """
    writer = gguf.GGUFWriter(
        path, architecture, split_max_tensors=part_tensors, small_first_shard=part_tensors > 0
    )
    if name:
        writer.add_name(name)
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
    writer.add_block_count(blocks)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in extra.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    shapes = _llama(writer, heads) if architecture == "llama" else _mamba(writer, blocks)
    if has_weights:
        _write_weights(writer, shapes, architecture, seed, blocks)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return min(path.parent.glob(f"{path.stem}-00001-of-*.gguf")) if part_tensors else path


def _write_weights(
    writer: gguf.GGUFWriter, shapes: dict[str, tuple[int, ...]], architecture: str, seed: int, blocks: int
) -> None:
    """`shapes` are those of the first block."""
    random = np.random.default_rng(seed)
    more = {
        name.replace("blk.0.", f"blk.{block}."): shape
        for block in range(1, blocks)
        for name, shape in shapes.items()
    }
    outer = {"token_embd.weight": (SIZE, WIDTH), "output.weight": (SIZE, WIDTH)}
    for name, shape in {**outer, **shapes, **more}.items():
        writer.add_tensor(name, random.normal(0, 0.3, shape).astype(np.float32))
    norms = ("attn_norm", "ffn_norm") if architecture == "llama" else ("attn_norm",)
    for name in ("output_norm", *(f"blk.{block}.{norm}" for block in range(blocks) for norm in norms)):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))


def _llama(writer: Any, heads: int) -> dict[str, tuple[int, ...]]:
    writer.add_feed_forward_length(64)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(WIDTH // heads)
    square = {f"blk.0.attn_{part}.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
    wide = {f"blk.0.ffn_{part}.weight": (64, WIDTH) for part in ("gate", "up")}
    return {**square, **wide, "blk.0.ffn_down.weight": (WIDTH, 64)}


def _mamba(writer: Any, blocks: int) -> dict[str, tuple[int, ...]]:
    inner, state, rank, kernel = 64, 8, 4, 4
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_ssm_conv_kernel(kernel)
    for block in range(blocks):
        writer.add_tensor(f"blk.{block}.ssm_a", -np.ones((inner, state), np.float32))
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
