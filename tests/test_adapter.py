"""An adapter's file is read as a stranger's, and fits its model in every tensor before llama.cpp sees it."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from alignbeam_local.errors import ModelError
from alignbeam_local.models.adapter import BASE_SHA256, is_adapter, read_adapter, require_adapter
from alignbeam_local.models.gguf_header import require_model
from tests.adapters import ALPHA, RANK, WIDTH, halves, write_adapter
from tests.llama_models import SIZE, write_tiny

SHA = "ab" * 32


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base") / "base.gguf", "llama")


def test_what_an_adapter_says(tmp_path: Path, base: Path) -> None:
    assert BASE_SHA256 == "alignbeam.base_sha256"
    path = write_adapter(tmp_path / "a.gguf", alignbeam__base_sha256=SHA, general__name="Mine")
    adapter = require_adapter(path, base, SHA)
    assert adapter == read_adapter(path)
    assert is_adapter(path)
    assert not is_adapter(base)
    assert (adapter.name, adapter.architecture, adapter.alpha) == ("Mine", "llama", ALPHA)
    assert (adapter.ranks, adapter.base_sha256) == ([RANK], SHA)
    assert adapter.targets == {"attn_q": 1, "attn_v": 1}
    assert adapter.parameters == 4 * RANK * WIDTH
    assert adapter.bytes == path.stat().st_size


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_adapters_of_other_types_are_read(tmp_path: Path, base: Path, name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    path = write_adapter(tmp_path / "a.gguf", type_=kind)
    assert require_adapter(path, base, SHA).ranks == [RANK]


def test_the_halves_of_an_embedding_lie_the_other_way_round(tmp_path: Path, base: Path) -> None:
    tensors = {
        "token_embd.weight.lora_a": np.ones((SIZE, RANK), np.float32),
        "token_embd.weight.lora_b": np.ones((WIDTH, RANK), np.float32),
        "output.weight.lora_a": np.ones((RANK, WIDTH), np.float32),
        "output.weight.lora_b": np.ones((SIZE, RANK), np.float32),
    }
    assert require_adapter(write_adapter(tmp_path / "a.gguf", tensors), base, SHA).ranks == [RANK]


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in halves().items() if key != name}


Q_A, Q_B = "blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"
NAN = np.full((WIDTH, RANK), np.nan, np.float32)
DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"architecture": "qwen2"}, r"is for qwen2, and .*base\.gguf is llama"),
    "a model": ({"kind": "model"}, "is a model, not an adapter"),
    "another kind": ({"form": "control_vector"}, "is of the kind 'control_vector'"),
    "no alpha": ({"alpha": None}, "has no alpha"),
    "alpha 0": ({"alpha": 0.0}, "has an alpha of 0.0"),
    "a negative alpha": ({"alpha": -4.0}, "has an alpha of -4.0"),
    "an alpha that is no number": ({"alpha": float("nan")}, "has an alpha of nan"),
    "half of a pair": ({"tensors": without(Q_B)}, "lacks blk.0.attn_q.weight.lora_b"),
    "the other half": ({"tensors": without(Q_A)}, "lacks blk.0.attn_q.weight.lora_a"),
    "a whole norm": (
        {"tensors": halves() | {"blk.0.attn_norm.weight": np.ones(WIDTH, np.float32)}},
        "'blk.0.attn_norm.weight', which is no half of a LoRA pair",
    ),
    "a layer too many": ({"tensors": halves(("blk.1.attn_q",))}, r"changes blk\.1\.attn_q\.weight, which"),
    "another width": (
        {"tensors": halves() | {Q_A: np.ones((RANK, 16), np.float32)}},
        r"does not fit .*: blk\.0\.attn_q\.weight is 32 x 32, its halves are 16 x 4 and 4 x 32",
    ),
    "two ranks in a pair": ({"tensors": halves() | {Q_A: np.ones((3, WIDTH), np.float32)}}, "does not fit"),
    "a pair on a norm": (
        {"tensors": {f"blk.0.attn_norm.weight.lora_{half}": np.ones(WIDTH, np.float32) for half in "ab"}},
        "does not fit",
    ),
    "NaN": ({"tensors": halves() | {Q_B: NAN}}, "values in blk.0.attn_q.weight.lora_b that are not numbers"),
    "infinite": ({"tensors": halves() | {Q_B: NAN + np.inf}}, "that are not numbers"),
    "nothing": ({"tensors": {}}, "holds no weights"),
    "another base": ({"alignbeam__base_sha256": "cd" * 32}, "was trained on another file than"),
    "a type nobody reads": ({"type_": gguf.GGMLQuantizationType.F64}, "can't be read here: F64"),
}


@pytest.mark.parametrize("which", DAMAGED)
def test_an_adapter_that_cannot_be(tmp_path: Path, base: Path, which: str) -> None:
    made, message = DAMAGED[which]
    made = dict(made)
    kind = made.pop("type_", None)
    path = write_adapter(tmp_path / "a.gguf", made.pop("tensors", None), **made)
    if kind is not None:
        _retype(path, kind)
    with pytest.raises(ModelError, match=message) as caught:
        require_adapter(path, base, SHA)
    assert caught.value.exit_code == 3
    assert caught.value.hint


def _retype(path: Path, kind: gguf.GGMLQuantizationType) -> None:
    """Call the first tensor's values another type, half as many of twice the bytes being there."""
    tensors = {name: np.zeros((*half.shape,), np.float64) for name, half in halves().items()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_truncated_adapter(tmp_path: Path, base: Path) -> None:
    path = write_adapter(tmp_path / "a.gguf")
    whole = path.read_bytes()
    for size in (0, 3, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            require_adapter(path, base, SHA)


def test_a_model_is_no_adapter_and_an_adapter_no_model(tmp_path: Path, base: Path) -> None:
    with pytest.raises(ModelError, match="is a model, not an adapter"):
        require_adapter(base, base, SHA)
    with pytest.raises(ModelError, match="is a LoRA adapter, not a model"):
        require_model(write_adapter(tmp_path / "a.gguf"))


def test_a_split_base_is_looked_at_in_all_its_parts(tmp_path: Path) -> None:
    first = write_tiny(tmp_path / "split.gguf", "llama", part_tensors=4)
    assert require_adapter(write_adapter(tmp_path / "a.gguf"), first, SHA).ranks == [RANK]


def test_no_damage_is_anything_but_a_model_error(tmp_path: Path, base: Path) -> None:
    """Bytes changed at random, most of them in the metadata: it fits still, or there is a message."""
    path = write_adapter(tmp_path / "a.gguf")
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, 700, random.integers(1, 4)):
            damaged[int(place)] = int(random.integers(0, 256))
        path.write_bytes(damaged)
        with suppress(ModelError):
            require_adapter(path, base, SHA)
