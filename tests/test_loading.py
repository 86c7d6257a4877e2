"""The loader between one set of models and the next: weights that stay, weights that go."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.engine import loader as loading
from alignbeam_local.engine.loader import Loader, require_silent_chat
from alignbeam_local.errors import ModelError
from alignbeam_local.llama import gpus as offload
from alignbeam_local.lm.devices import Gpu, Offload
from alignbeam_local.machine import machine, probe
from alignbeam_local.machine.context_size import ContextSize
from alignbeam_local.machine.memory import SLACK_BYTES
from alignbeam_local.machine.placement import place
from alignbeam_local.models.entry import ModelEntry
from alignbeam_local.models.gguf_header import require_model
from alignbeam_local.models.hashes import file_sha256
from alignbeam_local.models.registry import ModelFile, Registry
from tests.llama_models import write_tiny
from tests.templates import STRIPS_HISTORY

pytestmark = pytest.mark.usefixtures("probed_once")

CONFIG = Config.of({"threads": 1, "gpu_layers": 0})
ROOM = ContextSize(2, 256, 256)


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


def test_an_anchor_that_only_looks_as_if_it_reasoned_has_a_way_out(tmp_path: Path, loader: Loader) -> None:
    path = write_tiny(tmp_path / "a.gguf", "llama")
    entries = (ModelEntry(format=STRIPS_HISTORY), ModelEntry(format=STRIPS_HISTORY, reasons=False))
    reasons, answers = (loader.open("anchor", ModelFile("a", path, entry), ROOM) for entry in entries)
    with pytest.raises(ModelError, match="reasons before it answers") as caught:
        require_silent_chat("anchor", "a", reasons.format)
    assert "models.toml: reasons = false" in caught.value.hint
    require_silent_chat("anchor", "a", answers.format)


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


GPU = Gpu(0, "GPU0", 8 << 30, 8 << 30, False)


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Loader, Path]:
    """A loader that has found its draft and may use a GPU; no child processes."""
    monkeypatch.setattr(probe, "weights_may_be_repacked", lambda *_, **__: True)
    path = write_tiny(tmp_path / "a.gguf", "llama")
    loader = Loader(Config.of({"draft": str(path)}), Registry({}, {}, ""), Cancellation())
    loader.find("draft")
    return loader, path


def test_what_goes_to_the_gpu_needs_no_memory_here(
    found: tuple[Loader, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, path = found
    whole = place({"draft": (require_model(path), ROOM)}, [], CONFIG, {}).host_bytes
    free = psutil.virtual_memory()._replace(available=whole + SLACK_BYTES - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(offload, "gpus", list)
    with pytest.raises(ModelError, match=r"not enough memory: a 0\.\d GiB needed, 0\.\d GiB free"):
        loader.place({"draft": (path, ROOM)})
    monkeypatch.setattr(offload, "gpus", lambda: [GPU])
    loader.place({"draft": (path, ROOM)})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free._replace(available=0))
    with pytest.raises(ModelError, match=r"on the GPU needed, 0\.0 GiB free"):
        loader.place({"draft": (path, ROOM)})


def test_what_can_be_let_go_counts_as_free(
    found: tuple[Loader, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, path = found
    whole = place({"draft": (require_model(path), ROOM)}, [], CONFIG, {}).host_bytes + SLACK_BYTES
    free = psutil.virtual_memory()._replace(available=whole - 100)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(offload, "gpus", list)
    assert loader.place({"draft": (path, ROOM)}, spare=100) is False
    with pytest.raises(ModelError, match="not enough memory"):
        loader.place({"draft": (path, ROOM)}, spare=99)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free._replace(available=whole))
    assert loader.place({"draft": (path, ROOM)}, spare=100) is True


def test_a_probe_and_the_weights_go_where_the_model_was_placed(
    found: tuple[Loader, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, path = found
    asked: list[Offload] = []

    def may_be_repacked(_: Path, *, offload: Offload, **__: object) -> bool:
        asked.append(offload)
        return True

    def load(_: Path, *, offload: Offload, **__: object) -> None:
        asked.append(offload)
        raise ModelError("enough seen")

    monkeypatch.setattr(offload, "gpus", lambda: [GPU])
    monkeypatch.setattr(probe, "weights_may_be_repacked", may_be_repacked)
    monkeypatch.setattr(loading, "LlamaWeights", load)
    loader.place({"draft": (path, ROOM)})
    assert not list(loader.prepare(path))
    with pytest.raises(ModelError, match="enough seen"):
        loader.open("draft", ModelFile("a", path), ROOM)
    assert {(offload.layers, offload.devices) for offload in asked} == {(2, (0,))}
    assert len(asked) == 3


def test_a_gpu_left_unused_is_said_once(
    found: tuple[Loader, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, path = found
    monkeypatch.setattr(offload, "gpus", list)
    monkeypatch.setattr(machine, "_GPU_DEVICES", (str(tmp_path / "none"),))
    assert not list(loader.prepare(path)), "there is no GPU"
    monkeypatch.setattr(machine, "_GPU_DEVICES", (str(tmp_path),))
    loader.adopt(Config.of({"gpu_layers": 0}))
    assert not list(loader.prepare(path)), "nobody asks for one"
    loader.adopt(Config.of({}))
    assert [notice.message for notice in loader.prepare(path)] == [probe.NO_OFFLOAD]
    assert not list(loader.prepare(path)), "it was said"
    monkeypatch.setattr(probe, "machine_key", lambda: "another build")
    assert [notice.message for notice in loader.prepare(path)] == [probe.NO_OFFLOAD]


def test_the_judges_cache_stays_as_its_record_was_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "weights_may_be_repacked", lambda *_, **__: False)
    config = Config.of({"threads": 1, "gpu_layers": 0, "cache_type_k": "q8_0", "cache_type_v": "q4_0"})
    loader = Loader(config, Registry({}, {}, ""), Cancellation())
    file = ModelFile("a", write_tiny(tmp_path / "a.gguf", "llama", heads=1))
    keys = {role: loader.open(role, file, ROOM).lm.state_key for role in ("draft", "anchor", "judge")}
    loader.close()
    assert "q8_0/q4_0" in keys["draft"] == keys["anchor"]
    assert "f16/f16" in keys["judge"]
