"""GGUF files in transformers: the same model as in llama.cpp, or a clear error."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from alignbeam_local.errors import ModelError
from alignbeam_local.training.dequantised import (
    Agreement,
    Probe,
    agreement,
    load_model,
    require_agreement,
)
from tests.gguf_files import write_gguf
from tests.llama_models import Opened, contexts_closed, opened
from tests.tiny_models import ARCHITECTURES, tiny_model, write_model

__all__ = ["contexts_closed", "opened"]

IDS = (1, 70, 80, 90, 100, 261, 262)


def probe_of(opened: Opened, path: Path, ids: Sequence[int] = IDS, first: int = 3) -> Probe:
    lm = opened.lm(path, num_sequences=1, threads=1)
    rows = []
    for end in range(first + 1, len(ids) + 1):
        lm.set_tokens({0: ids[:end]})
        rows.append(lm.logits(0).copy())
    return Probe(tuple(ids), first, np.array(rows))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_our_tiny_models_are_the_same_in_both(architecture: str, tmp_path: Path, opened: Opened) -> None:
    model = tiny_model(architecture)
    path = write_model(tmp_path / "tiny.gguf", model, architecture)
    found = agreement(model, [probe_of(opened, path)])
    assert (found.num_rows, found.same_top) == (4, 1)
    assert found.kl < 1e-4


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_file_is_read_back(architecture: str, tmp_path: Path, opened: Opened) -> None:
    path = write_model(tmp_path / "tiny.gguf", tiny_model(architecture), architecture)
    found = agreement(load_model(path), [probe_of(opened, path)])
    assert found.kl < 1e-4
    require_agreement(found, 0.02, path)


def test_a_file_that_transformers_reads_otherwise_is_refused(tmp_path: Path, opened: Opened) -> None:
    """It takes the size of a query that Gemma 3 always has, whatever the file says."""
    path = write_model(tmp_path / "tiny.gguf", tiny_model("gemma3"), "gemma3")
    with pytest.raises(ModelError, match=r"is not what llama\.cpp runs"):
        require_agreement(agreement(load_model(path), [probe_of(opened, path)]), 0.02, path)


def test_other_weights_are_refused(tmp_path: Path, opened: Opened) -> None:
    path = write_model(tmp_path / "tiny.gguf", tiny_model("llama"), "llama")
    found = agreement(tiny_model("llama", seed=1), [probe_of(opened, path)])
    with pytest.raises(ModelError, match=r"is not what llama\.cpp runs: KL") as caught:
        require_agreement(found, 0.02, path)
    assert "--weights" in caught.value.hint


def test_not_a_number_is_no_agreement() -> None:
    with pytest.raises(ModelError, match="KL nan"):
        require_agreement(Agreement(float("nan"), 0.0, 1), 0.02, Path("x.gguf"))


def test_a_folder_is_read(tmp_path: Path) -> None:
    model = tiny_model("qwen2")
    model.save_pretrained(tmp_path / "folder")
    read = load_model(tmp_path / "folder")
    assert all((read.state_dict()[name] == value).all() for name, value in model.state_dict().items())


def test_a_file_that_transformers_cannot_read_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = [
        write_model(tmp_path / "tiny.gguf", tiny_model("qwen3"), "qwen3"),  # it takes another size of heads
        write_gguf(tmp_path / "starcoder.gguf", "plamo"),
        tmp_path,
    ]
    for path in files:
        capfd.readouterr()
        with pytest.raises(ModelError, match="transformers cannot read") as caught:
            load_model(path)
        assert "--weights DIR" in caught.value.hint
        assert "\n" not in caught.value.message
        assert not any(capfd.readouterr())
