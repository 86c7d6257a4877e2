"""What a model is planned to take, from its header alone."""

import struct
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.config import Config
from alignbeam_local.knobs.machine import CacheType, KvStrategy
from alignbeam_local.machine.context_size import ContextSize
from alignbeam_local.machine.memory import cell_bytes, plan_of
from alignbeam_local.models.gguf_header import GgufHeader, read_header, require_model
from tests.gguf_files import write_gguf
from tests.llama_models import write_tiny
from tests.test_gguf_header import ARRAY, FIXED, TEXT, U32, field

F16: tuple[CacheType, CacheType] = ("f16", "f16")
ROOM = ContextSize(num_sequences=4, shared_cells=100, copied_cells=400)


def header_of(path: Path, **numbers: int | list[int]) -> GgufHeader:
    """The header of a file with these fields of its architecture, and nothing else."""
    fields = [field("general.architecture", TEXT, struct.pack("<Q", 4) + b"arch")]
    for name, value in numbers.items():
        key = f"arch.{name.replace('__', '.')}"
        if isinstance(value, int):
            fields.append(field(key, U32, struct.pack("<I", value)))
        else:
            raw = struct.pack(f"<IQ{len(value)}I", U32, len(value), *value)
            fields.append(field(key, ARRAY, raw))
    path.write_bytes(FIXED.pack(b"GGUF", 3, 0, len(fields)) + b"".join(fields))
    return read_header(path)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "kv_bytes"),
    [
        (8, 2, 2 * (3 * 2) * (16 + 16)),
        (8, [0, 2, 0], 2 * 2 * (16 + 16)),
        ([8, 8, 4], [2, 2, 1], 2 * 5 * (16 + 16)),
        (8, None, 2 * (3 * 8) * (16 + 16)),
        (0, 2, 0),
        ([], 2, 0),
    ],
)
def test_keys_and_values_are_summed_over_the_layers(
    tmp_path: Path, heads: Any, kv_heads: Any, kv_bytes: int
) -> None:
    counts = {"attention__head_count": heads, "attention__head_count_kv": kv_heads}
    given = {name: count for name, count in counts.items() if count is not None}
    header = header_of(tmp_path / "x.gguf", block_count=3, embedding_length=128, **given)
    assert cell_bytes(header, F16) == kv_bytes


def test_a_huge_number_of_layers_is_only_a_number(tmp_path: Path) -> None:
    numbers = {"attention__head_count": 1, "embedding_length": 1}
    header = header_of(tmp_path / "x.gguf", block_count=2**32 - 1, **numbers)
    assert cell_bytes(header, F16) == 2**34 - 4


@pytest.mark.parametrize(("kv", "cells"), [("seq", 100), ("state", 400), ("auto", 400)])
def test_a_recurrent_model_copies_its_cells_unless_told_otherwise(
    tmp_path: Path, kv: KvStrategy, cells: int
) -> None:
    numbers = {"block_count": 1, "embedding_length": 8, "attention__head_count": 1}
    hybrid = header_of(tmp_path / "hybrid.gguf", ssm__state_size=8, **numbers)
    plain = header_of(tmp_path / "plain.gguf", **numbers)
    needs = plan_of({"draft": (hybrid, ROOM), "anchor": (plain, ROOM)}, Config.of({"kv": kv}))
    assert needs["draft"].cache == cells * cell_bytes(hybrid, F16)
    assert needs["anchor"].cache == (400 if kv == "state" else 100) * cell_bytes(plain, F16)


def test_which_models_are_recurrent(tmp_path: Path) -> None:
    assert read_header(write_tiny(tmp_path / "mamba.gguf", "mamba")).is_recurrent
    assert not read_header(write_tiny(tmp_path / "llama.gguf", "llama")).is_recurrent
    assert not read_header(write_gguf(tmp_path / "other.gguf")).is_recurrent


def test_the_weights_of_each_block_are_those_of_all_parts(tmp_path: Path) -> None:
    whole = require_model(write_tiny(tmp_path / "whole.gguf", "llama"))
    split = require_model(write_tiny(tmp_path / "split.gguf", "llama", part_tensors=3))
    assert split.block_bytes == whole.block_bytes
    square, wide, norm = 32 * 32 * 4, 32 * 64 * 4, 32 * 4
    assert whole.block_bytes == {0: 4 * square + 3 * wide + 2 * norm}
