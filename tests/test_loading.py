"""The loader between one set of models and the next: weights that stay, weights that go."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.errors import ModelError
from alignbeam_local.hashes import file_sha256
from alignbeam_local.loading import Loader
from alignbeam_local.model_entry import ModelEntry
from alignbeam_local.parts import Room
from alignbeam_local.registry import ModelFile, Registry
from tests.test_llama_lm import write_tiny

CONFIG = Config.of({"threads": 1, "gpu_layers": 0})
ROOM = Room(2, 256, 256)


@pytest.fixture
def loader() -> Iterator[Loader]:
    loader = Loader(CONFIG, Registry({}, {}, ""), Cancellation())
    yield loader
    loader.close()


def test_only_weights_that_are_named_again_stay(tmp_path: Path, loader: Loader) -> None:
    files = [ModelFile(name, write_tiny(tmp_path / f"{name}.gguf", "llama")) for name in "ab"]
    before = [loader.open("draft", file, ROOM).lm.weights for file in files]  # type: ignore[attr-defined]
    loader.close_contexts()
    loader.keep_only([files[0].path])
    after = [loader.open("draft", file, ROOM).lm.weights for file in files]  # type: ignore[attr-defined]
    assert after[0] is before[0]
    assert after[1] is not before[1]
    assert before[1].handle is None


def test_a_file_that_was_never_opened_may_be_replaced(tmp_path: Path, loader: Loader) -> None:
    path = write_tiny(tmp_path / "a.gguf", "llama")
    loader.adopt(CONFIG.with_values({"draft": str(path)}))
    loader.find("draft")
    with path.open("ab") as file:
        file.write(b"0" * 32)
    found = loader.find("draft")
    loader.open("draft", found, ROOM)
    with path.open("ab") as file:
        file.write(b"0" * 32)
    with pytest.raises(ModelError, match="replaced while it was in use"):
        loader.find("draft")


def test_weights_on_other_devices_are_loaded_anew(tmp_path: Path, loader: Loader) -> None:
    file = ModelFile("a", write_tiny(tmp_path / "a.gguf", "llama"))
    weights = loader.open("draft", file, ROOM).lm.weights  # type: ignore[attr-defined]
    loader.close_contexts()
    loader.adopt(CONFIG.with_values({"context": 512}))
    assert weights.handle
    loader.adopt(CONFIG.with_values({"gpu_layers": "auto"}))
    assert weights.handle is None


def test_a_split_model_is_known_by_all_its_parts(tmp_path: Path, loader: Loader) -> None:
    first = write_tiny(tmp_path / "a.gguf", "llama", part_tensors=6)
    last = max(tmp_path.glob("a-*.gguf"))
    other = write_tiny(tmp_path / "b.gguf", "llama", seed=1, part_tensors=6)
    loader.adopt(CONFIG.with_values({"draft": str(first)}))
    before = loader.open("draft", loader.find("draft"), ROOM).card.sha256
    shutil.copyfile(other.with_name(last.name.replace("a-", "b-")), last)
    with pytest.raises(ModelError, match="was replaced while it was in use"):
        loader.find("draft")
    loader.close()
    assert loader.open("draft", loader.find("draft"), ROOM).card.sha256 != before


def test_a_pinned_hash_of_a_split_model_is_its_first_files(tmp_path: Path) -> None:
    first = write_tiny(tmp_path / "a.gguf", "llama", part_tensors=6)
    pinned = {"good": file_sha256(first), "bad": "0" * 64}
    registry = Registry({name: ModelEntry(path=first, sha256=sha) for name, sha in pinned.items()}, {}, "")
    assert Loader(Config.of({"draft": "good"}), registry, Cancellation()).find("draft").path == first
    with pytest.raises(ModelError, match="is not the file that 'bad' names"):
        Loader(Config.of({"draft": "bad"}), registry, Cancellation()).find("draft")
