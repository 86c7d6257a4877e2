"""PEFT's folders, and the GGUF files made of them: what is in them, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from alignbeam_local.errors import AlignBeamError, ModelError
from alignbeam_local.training.adapter.adapter_gguf import BaseModel, write_adapter
from alignbeam_local.training.adapter.peft_folder import PeftAdapter, peft_files, read_peft
from alignbeam_local.training.adapter.safetensors_file import read_tensors, tensor_bytes
from tests.llama_adapters import rows_of
from tests.llama_models import WIDTH, Opened, contexts_closed, opened, write_tiny

__all__ = ["contexts_closed", "opened"]

RANK = 2
IDS = (1, 70, 80, 90, 100, 110, 120)
Array = npt.NDArray[np.float32]


def pair(seed: int, outputs: int = WIDTH, inputs: int = WIDTH, rank: int = RANK) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    a, b = random.normal(0, 1, (rank, inputs)), random.normal(0, 1, (outputs, rank))
    return a.astype(np.float32), b.astype(np.float32)


def adapter_of(*modules: str, alpha: float = 4.0, rank: int = RANK) -> PeftAdapter:
    return PeftAdapter(
        rank, alpha, {f"layers.0.{name}": pair(n, rank=rank) for n, name in enumerate(modules)}
    )


def folder_of(path: Path, adapter: PeftAdapter, **config: Any) -> Path:
    path.mkdir()
    for name, content in peft_files(adapter, "tiny").items():
        (path / name).write_bytes(content)
    change(path, **config)
    return path


def change(folder: Path, **config: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return BaseModel(write_tiny(tmp_path / "base.gguf", "llama"), "a1" * 32)


def exported(tmp_path: Path, adapter: PeftAdapter, base: BaseModel) -> Path:
    write_adapter(tmp_path / "adapter.gguf", adapter, base, "mine")
    return tmp_path / "adapter.gguf"


# --- PEFT's folder


def test_a_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = adapter_of("self_attn.q_proj", "mlp.down_proj")
    read = read_peft(folder_of(tmp_path / "peft", written))
    assert (read.rank, read.alpha, list(read.pairs)) == (RANK, 4.0, list(written.pairs))
    for name, halves in written.pairs.items():
        for own, other in zip(halves, read.pairs[name], strict=True):
            np.testing.assert_array_equal(own, other)


def test_rslora_is_folded_into_alpha(tmp_path: Path) -> None:
    read = read_peft(folder_of(tmp_path / "peft", adapter_of("self_attn.q_proj", rank=4), use_rslora=True))
    assert read.alpha == 4.0 * 2


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "lora_only"}, r"biases \(bias = lora_only\)"),
        ({"lora_bias": True}, "biases of its own"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alpha_pattern": {"q_proj": 3}}, "an alpha for each matrix"),
        ({"rank_pattern": {"q_proj": 3}}, "a rank for each matrix"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"init_lora_weights": "pissa_niter_16"}, "changes its base"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"r": 3}, "is not of rank 3"),
        ({"r": 0}, "has no rank or no alpha"),
        ({"lora_alpha": None}, "has no rank or no alpha"),
        ({"lora_alpha": float("nan")}, "has no rank or no alpha"),
    ],
)
def test_what_llama_cpp_cannot_hold_is_refused_by_name(
    tmp_path: Path, config: dict[str, Any], name: str
) -> None:
    folder = folder_of(tmp_path / "peft", adapter_of("self_attn.q_proj"), **config)
    with pytest.raises(ModelError, match=name):
        read_peft(folder)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("base_model.model.lm_head.weight", "lm_head.weight, which is no LoRA"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", "magnitude_vector"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "lora_embedding_A"),
        (
            "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight",
            "only half of",
        ),
    ],
)
def test_other_tensors_are_refused_by_name(tmp_path: Path, name: str, complaint: str) -> None:
    folder = folder_of(tmp_path / "peft", adapter_of("self_attn.q_proj"))
    file = folder / "adapter_model.safetensors"
    file.write_bytes(tensor_bytes(read_tensors(file) | {name: np.ones((RANK, WIDTH), np.float32)}))
    with pytest.raises(ModelError, match=complaint):
        read_peft(folder)


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    adapter = adapter_of("self_attn.q_proj")
    adapter.pairs["layers.0.self_attn.q_proj"][1][0, 0] = np.nan
    with pytest.raises(ModelError, match="no numbers"):
        read_peft(folder_of(tmp_path / "peft", adapter))


def test_a_damaged_or_missing_folder_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "peft", adapter_of("self_attn.q_proj"))
    file = folder / "adapter_model.safetensors"
    whole = file.read_bytes()
    damaged = [whole[:4], whole[:50], whole[:-5], b"\xff" * 64, whole.replace(b"F32", b"I32"), b""]
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(ModelError, match="is no safetensors file"):
            read_peft(folder)
    file.unlink()
    with pytest.raises(ModelError, match="cannot read"):
        read_peft(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="is no JSON"):
        read_peft(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(AlignBeamError, match="cannot read"):
        read_peft(folder)


def test_bfloat16_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    content = tensor_bytes({"x": np.zeros((1, 1), np.float32)}).replace(b"F32", b"BF16")
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["x"] = {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\x80\x3f\x00\xc0")
    assert read_tensors(path)["x"].tolist() == [[1.0, -2.0]]


# --- the GGUF file


def test_the_file_says_what_it_is(tmp_path: Path, base: BaseModel) -> None:
    reader = gguf.GGUFReader(exported(tmp_path, adapter_of("self_attn.v_proj"), base))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "adapter"
    assert fields["general.architecture"] == "llama"
    assert (fields["adapter.type"], fields["adapter.lora.alpha"]) == ("lora", 4.0)
    assert fields["alignbeam.base_sha256"] == "a1" * 32
    assert {tensor.name: tuple(tensor.shape) for tensor in reader.tensors} == {
        "blk.0.attn_v.weight.lora_a": (WIDTH, RANK),
        "blk.0.attn_v.weight.lora_b": (RANK, WIDTH),
    }


def b_of(path: Path) -> Array:
    [tensor] = [tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name.endswith("lora_b")]
    return np.array(tensor.data)


def test_a_llamas_q_and_k_are_permuted_and_v_is_not(tmp_path: Path, base: BaseModel) -> None:
    rows = np.repeat(np.arange(WIDTH, dtype=np.float32)[:, None], RANK, 1)  # two heads of 16 rows
    for module, first in (("q", [0, 8, 1, 9]), ("k", [0, 8, 1, 9]), ("v", [0, 1, 2, 3])):
        adapter = adapter_of(f"self_attn.{module}_proj")
        [(name, (a, _))] = adapter.pairs.items()
        placed = b_of(exported(tmp_path, PeftAdapter(RANK, 4.0, {name: (a, rows)}), base))
        assert placed[:4, 0].tolist() == first
        assert sorted(placed[:, 0]) == list(range(WIDTH))
        assert placed[16, 0] == 16, "heads stay apart"


@pytest.mark.parametrize(
    ("name", "halves"),
    [
        ("layers.1.self_attn.q_proj", pair(0)),
        ("layers.0.self_attn.q_proj", pair(0, inputs=64)),
        ("layers.0.self_attn.q_proj", pair(0, outputs=16, inputs=64)),
        ("layers.0.mlp.down_proj", pair(0, outputs=64, inputs=32)),
    ],
)
def test_an_adapter_of_another_shape_is_refused(
    tmp_path: Path, base: BaseModel, name: str, halves: tuple[Array, Array]
) -> None:
    with pytest.raises(ModelError, match="does not fit"):
        exported(tmp_path, PeftAdapter(RANK, 4.0, {name: halves}), base)
    assert not [file for file in tmp_path.iterdir() if "adapter" in file.name], "nothing half written"


def test_other_modules_and_architectures_are_refused_by_name(tmp_path: Path, base: BaseModel) -> None:
    with pytest.raises(ModelError, match=r"layers\.0\.mlp\.router, which cannot be exported"):
        exported(tmp_path, adapter_of("mlp.router"), base)
    with pytest.raises(ModelError, match="architecture 'mamba'") as caught:
        BaseModel(write_tiny(tmp_path / "mamba.gguf", "mamba"), "")
    assert "qwen3" in caught.value.hint


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = exported(tmp_path, adapter_of("self_attn.v_proj"), base).read_bytes()

    def fail(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fail)
    with pytest.raises(OSError, match="No space"):
        exported(tmp_path, adapter_of("self_attn.q_proj"), base)
    assert (tmp_path / "adapter.gguf").read_bytes() == old
    assert sorted(file.name for file in tmp_path.glob("*adapter*")) == ["adapter.gguf"]


# --- in llama.cpp


def test_llama_cpp_adds_what_the_adapter_says(tmp_path: Path, base: BaseModel, opened: Opened) -> None:
    """The value matrix is not permuted: W + alpha / rank * B A by hand is the model with the adapter."""
    adapter = adapter_of("self_attn.v_proj", alpha=1.0)
    [(a, b)] = adapter.pairs.values()
    path = write_tiny(tmp_path / "merged.gguf", "llama")
    reader = gguf.GGUFReader(path, "r+")
    [weight] = [tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_v.weight"]
    weight.data[...] = np.array(weight.data) + b @ a / RANK
    reader.data.flush()
    expected = rows_of(opened, path, IDS)
    found = rows_of(opened, base.path, IDS, exported(tmp_path, adapter, base))
    plain = rows_of(opened, base.path, IDS)
    assert np.abs(expected - plain).max() > 1
    assert np.abs(expected - found).max() < 0.05
