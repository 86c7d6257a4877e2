"""The models of workers: found by their hash, brought where they are missing, refused where they differ."""

from dataclasses import replace
from pathlib import Path

import pytest

from alignbeam_local.cluster import wanted
from alignbeam_local.cluster.wanted import Stock, WantedModel, WantedPart, delivered_dir, pieces
from alignbeam_local.cluster.work import Piece
from alignbeam_local.errors import ModelError
from alignbeam_local.models.entry import Hub, ModelEntry
from alignbeam_local.models.registry import Registry
from alignbeam_local.paths import ensure_dir, models_dir
from tests.fake_pool import REGISTRY
from tests.llama_models import write_tiny


def bring(stock: Stock, parts: list[WantedPart]) -> None:
    """Bring what is missing, as a crew does."""
    for name in stock.missing():
        for piece in pieces(parts, name):
            stock.receive(piece)
    assert stock.missing() == []


def test_a_file_at_the_same_place_is_taken_as_it_is(tmp_path: Path) -> None:
    file = write_tiny(tmp_path / "a.gguf", "llama")
    model = WantedModel.of(str(file), REGISTRY)
    stock = Stock([model], REGISTRY, may_pull=False)
    assert stock.missing() == []
    assert stock.registry.require(str(file)).path == file


@pytest.mark.parametrize("part_tensors", [0, 6])
def test_a_missing_model_is_brought_whole_and_kept(
    part_tensors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wanted, "_PIECE_BYTES", 1000)
    file = write_tiny(tmp_path / "a.gguf", "llama", part_tensors=part_tensors)
    model = WantedModel.of(str(file), REGISTRY)
    contents = {part.file: part.path.read_bytes() for part in model.parts}
    assert (len(contents) > 1) == bool(part_tensors)
    elsewhere = [part.path.rename(part.path.with_suffix(".moved")) for part in model.parts]
    parts = [replace(part, path=path) for part, path in zip(model.parts, elsewhere, strict=True)]
    stock = Stock([model], REGISTRY, may_pull=False)
    bring(stock, parts)
    found = stock.registry.require(str(file))
    assert found.path.is_relative_to(delivered_dir())
    assert {path.name: path.read_bytes() for path in found.path.parent.glob("*.gguf")} == contents
    assert Stock([model], REGISTRY, may_pull=False).missing() == [], "the next worker finds it there"


def test_a_model_of_which_a_part_was_brought_gets_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever brought it was stopped on the way."""
    monkeypatch.setattr(wanted, "_PIECE_BYTES", 1000)
    file = write_tiny(tmp_path / "a.gguf", "llama", part_tensors=6)
    model = WantedModel.of(str(file), REGISTRY)
    elsewhere = [part.path.rename(part.path.with_suffix(".moved")) for part in model.parts]
    parts = [replace(part, path=path) for part, path in zip(model.parts, elsewhere, strict=True)]
    stock = Stock([model], REGISTRY, may_pull=False)
    first, *others = stock.missing()
    for piece in pieces(parts, first):
        stock.receive(piece)
    again = Stock([model], REGISTRY, may_pull=False)
    assert again.missing() == others
    bring(again, parts)


def test_a_file_of_the_same_name_that_differs_is_refused(tmp_path: Path) -> None:
    file = write_tiny(tmp_path / "a.gguf", "llama")
    model = WantedModel.of(str(file), REGISTRY)
    with file.open("ab") as grown:
        grown.write(b"0" * 32)
    with pytest.raises(ModelError, match="is not the file that") as caught:
        Stock([model], REGISTRY, may_pull=False).missing()
    assert "same file" in caught.value.hint


def test_what_arrives_damaged_is_not_used(tmp_path: Path) -> None:
    file = write_tiny(tmp_path / "a.gguf", "llama")
    model = WantedModel.of(str(file), REGISTRY)
    file.unlink()
    stock = Stock([model], REGISTRY, may_pull=False)
    (name,) = stock.missing()
    stock.receive(Piece(name, 0, b"GGUF nonsense"))
    with pytest.raises(ModelError, match="arrived damaged"):
        stock.receive(Piece(name, 13, b""))
    assert stock.missing() == [name]


def test_a_name_is_pulled_where_it_may_be_and_brought_where_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Registry({"tiny": ModelEntry(hub=Hub(repo="a/b", file="c.gguf"))}, {}, "")
    file = write_tiny(ensure_dir(models_dir()) / "tiny.gguf", "llama")
    model = WantedModel.of("tiny", known)
    content = file.read_bytes()
    file.unlink()
    asked: list[str] = []

    def pull(wanted_file: object, **_: object) -> Path:
        asked.append("pull")
        if len(asked) == 1:
            raise ModelError("no network")
        file.write_bytes(content)
        return file

    monkeypatch.setattr(wanted, "pull", pull)
    assert Stock([model], known, may_pull=False).missing() == [model.parts[0].name]
    assert asked == []
    assert Stock([model], known, may_pull=True).missing() == [model.parts[0].name]
    assert Stock([model], known, may_pull=True).missing() == []
    assert asked == ["pull", "pull"]
