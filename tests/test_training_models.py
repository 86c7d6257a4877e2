"""Adapters on the starter's models: llama.cpp with an adapter beside transformers with it merged in."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from alignbeam_local.prompt.formats import prompt_format
from alignbeam_local.prompt.message import Message
from alignbeam_local.training.adapter import adapter_gguf, lora
from alignbeam_local.training.adapter.adapter_gguf import BaseModel, write_adapter
from alignbeam_local.training.adapter.peft_folder import PeftAdapter, read_peft
from alignbeam_local.training.dequantised import load_model
from alignbeam_local.training.losses import log_softmax
from alignbeam_local.training.request import TrainingRequest
from alignbeam_local.training.settings import TARGETS, Target, TrainingSettings
from tests.llama_adapters import rows_of
from tests.llama_models import QWEN, SMOLLM, Opened, contexts_closed, model_path, opened
from tests.test_training_run import as_it_is, events_of, llamas_way, rows_file

__all__ = ["contexts_closed", "opened"]
pytestmark = pytest.mark.models

GEMMA = model_path("gemma-3-270m")
ANSWER = "Warm the pot, add a spoon of leaves for each cup, and pour water that has just boiled over them."

#: Answers by a rule that neither model follows: the number of letters of a word, and its last letter.
ROWS = [
    (f"Tell me of {word}.", f"{len(word)} letters, and {word[-1]} is the last.")
    for word in ["rain", "snow", "wind", "sunshine"]
]


class Compared(NamedTuple):
    """Two models' rows: the mean KL, how often the first token is one, and how an update's rows correlate."""

    kl: float
    same_top: float
    correlation: float


@pytest.mark.parametrize("path", [SMOLLM, GEMMA, QWEN], ids=lambda path: path.stem)
def test_merged_against_adapter(
    path: Path, tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All seven targets of all layers, with values large enough to tell the order of q's and k's rows."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    base = BaseModel(path, "0" * 64)
    ids = ids_of(opened, path)
    model = load_model(path)
    adapter = random_adapter(model)
    write_adapter(tmp_path / "right.gguf", adapter, base, "random")
    monkeypatch.setattr(adapter_gguf, "_placed", as_it_is if base.architecture == "llama" else llamas_way)
    write_adapter(tmp_path / "wrong.gguf", adapter, base, "random")
    plain, merged = transformers_rows(model, ids, adapter)
    own = rows_of(opened, path, ids)
    bare = compared((own, own), (plain, plain))
    right = compared((own, rows_of(opened, path, ids, tmp_path / "right.gguf")), (plain, merged))
    wrong = compared((own, rows_of(opened, path, ids, tmp_path / "wrong.gguf")), (plain, merged))
    print(path.stem, len(ids), bare, right, wrong)
    # What is left is what llama.cpp's quantised activations leave; one of some 30 tops is 3 %.
    assert right.kl < 0.02
    assert right.same_top > 0.9
    assert right.correlation > 0.95
    assert wrong.kl > 10 * right.kl


@pytest.mark.parametrize("path", [SMOLLM, GEMMA, QWEN], ids=lambda path: path.stem)
def test_a_trained_adapter_is_the_merged_model(
    path: Path, tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dozen steps of a real training, whose q and k count: what users export is of this kind."""
    data = rows_file(tmp_path / "rows.jsonl", ROWS)
    targets: tuple[Target, ...] = ("q", "k", "v")
    settings = TrainingSettings("sft", layers=0, targets=targets, learning_rate=3e-3, context=256)
    events_of(TrainingRequest(data, tmp_path / "run", replace(settings, epochs=12), threads=1), path)
    adapter, ids = read_peft(tmp_path / "run" / "adapter"), ids_of(opened, path)
    base = BaseModel(path, "0" * 64)
    monkeypatch.setattr(adapter_gguf, "_placed", as_it_is if base.architecture == "llama" else llamas_way)
    write_adapter(tmp_path / "wrong.gguf", adapter, base, "wrong")
    plain, merged = transformers_rows(load_model(path), ids, adapter)
    own = rows_of(opened, path, ids)
    bare = compared((own, own), (plain, plain))
    right = compared((own, rows_of(opened, path, ids, tmp_path / "run" / "adapter.gguf")), (plain, merged))
    wrong = compared((own, rows_of(opened, path, ids, tmp_path / "wrong.gguf")), (plain, merged))
    moved = compared((own, own), (plain, merged))
    print(path.stem, len(ids), "trained", bare, right, wrong, "without the adapter", moved)
    assert moved.same_top < 0.8, "the training changes what the model says"
    assert right.kl < 0.02
    assert right.same_top > 0.9
    assert right.correlation > 0.98
    assert wrong.kl > 3 * right.kl
    assert wrong.correlation < right.correlation - 0.01


def ids_of(opened: Opened, path: Path) -> list[int]:
    lm = opened.lm(path, num_sequences=1, num_cells=256, threads=1)
    layout = prompt_format(lm.weights.info.chat_template, lm.vocabulary)
    return [
        *layout.encode([Message("user", "How do I brew tea?")], lm.vocabulary),
        *lm.vocabulary.encode(ANSWER),
    ]


def random_adapter(model: Any) -> PeftAdapter:
    """Updates about a tenth of each matrix; a fifth of q's and k's, which matter least."""
    random = np.random.default_rng(5)
    pairs = {}
    for number, layer in enumerate(model.get_decoder().layers):
        for target in TARGETS:
            weight = layer.get_submodule(lora.PLACES[target]).weight
            outputs, inputs = weight.shape
            size = float(weight.std()) * (0.2 if target in ("q", "k") else 0.05)
            a, b = random.normal(0, 1, (8, inputs)), random.normal(0, size / 8**0.5, (outputs, 8))
            pairs[f"layers.{number}.{lora.PLACES[target]}"] = (a.astype(np.float32), b.astype(np.float32))
    return PeftAdapter(8, 8.0, pairs)


def transformers_rows(model: Any, ids: list[int], adapter: PeftAdapter) -> tuple[Any, Any]:
    """The logits behind each id, without the adapter and with it merged into the model, which keeps it."""
    with torch.inference_mode():
        plain = model(torch.tensor([ids])).logits[0].numpy()
    for name, (a, b) in adapter.pairs.items():
        weight = model.get_decoder().get_submodule(name).weight
        weight.data += torch.from_numpy(adapter.alpha / adapter.rank * b @ a)
    with torch.inference_mode():
        return plain, model(torch.tensor([ids])).logits[0].numpy()


def compared(own: tuple[Any, Any], theirs: tuple[Any, Any]) -> Compared:
    logs = [log_softmax(rows.astype(np.float64)) for rows in (own[1], theirs[1])]
    kl = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1).mean()
    same = (own[1].argmax(-1) == theirs[1].argmax(-1)).mean()
    added = [(rows[1] - rows[0]).ravel() for rows in (own, theirs)]
    correlation = float(np.corrcoef(*added)[0, 1]) if added[0].any() else 1.0
    return Compared(float(kl), float(same), correlation)
