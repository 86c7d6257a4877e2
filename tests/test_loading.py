"""The loader between one set of models and the next: weights that stay, weights that go."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.errors import ModelError
from alignbeam_local.loading import Loader
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
    before = [loader.open(file, ROOM).lm.weights for file in files]  # type: ignore[attr-defined]
    loader.close_contexts()
    loader.keep_only([files[0].path])
    after = [loader.open(file, ROOM).lm.weights for file in files]  # type: ignore[attr-defined]
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
    loader.open(found, ROOM)
    with path.open("ab") as file:
        file.write(b"0" * 32)
    with pytest.raises(ModelError, match="replaced while it was in use"):
        loader.find("draft")


def test_weights_on_other_devices_are_loaded_anew(tmp_path: Path, loader: Loader) -> None:
    file = ModelFile("a", write_tiny(tmp_path / "a.gguf", "llama"))
    weights = loader.open(file, ROOM).lm.weights  # type: ignore[attr-defined]
    loader.close_contexts()
    loader.adopt(CONFIG.with_values({"context": 512}))
    assert weights.handle
    loader.adopt(CONFIG.with_values({"gpu_layers": -1}))
    assert weights.handle is None
