"""`alignbeam bridge` runs the anchor; only one that has no weights is left out of it."""

from pathlib import Path
from typing import Any

import pytest
from alignbeam_local.cli.commands.bridge import _text

from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.machine import probe
from alignbeam_local.models.entry import ModelEntry
from alignbeam_local.models.registry import Registry
from alignbeam_local.pair.report import PairReport, measure_pair
from tests.llama_models import write_tiny


@pytest.fixture(autouse=True)
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in a child process has tests of its own."""
    monkeypatch.setattr(probe, "require_vocabulary", lambda *_: None)
    monkeypatch.setattr(probe, "weights_may_be_repacked", lambda *_: True)


def measured(folder: Path, **anchor: Any) -> PairReport:
    draft = write_tiny(folder / "draft.gguf", "llama")
    path = write_tiny(folder / "anchor.gguf", "llama", **anchor)
    return measure_pair(str(draft), str(path), Registry({}, {}, ""), bridge_width=5, prompts=["Hi"])


def test_the_anchor_is_run(tmp_path: Path) -> None:
    report = measured(tmp_path)
    assert report.top is not None
    assert (report.top.prompts, report.notes) == (1, ())


def test_what_takes_long_is_told(tmp_path: Path) -> None:
    model, told = str(write_tiny(tmp_path / "one.gguf", "llama")), list[str]()
    measure_pair(model, model, Registry({}, {}, ""), bridge_width=5, prompts=["Hi", "You"], tell=told.append)
    assert told[:2] == ["one: checking its sha256"] * 2
    assert told[-2:] == [f"the anchor begins to answer prompt {number} of 2" for number in (1, 2)]


def test_so_is_a_split_one(tmp_path: Path) -> None:
    assert measured(tmp_path, part_tensors=6).top == measured(tmp_path).top


def test_an_anchor_without_weights_is_not(tmp_path: Path) -> None:
    report = measured(tmp_path, has_weights=False)
    assert report.top is None
    assert report.notes == ("the anchor was not run: its file holds a vocabulary and no weights",)


def test_an_anchor_that_cannot_run_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> bool:
        raise ModelError("llama.cpp crashes with it")

    monkeypatch.setattr(probe, "weights_may_be_repacked", crash)
    with pytest.raises(ModelError, match="crashes"):
        measured(tmp_path)


def test_a_prompt_that_does_not_fit_is_named(tmp_path: Path) -> None:
    model = str(write_tiny(tmp_path / "one.gguf", "llama"))
    with pytest.raises(UsageError, match="is too long here: it begins 'xyxy"):
        measure_pair(model, model, Registry({}, {}, ""), bridge_width=5, prompts=["xy" * 4096])


@pytest.mark.parametrize("role", ["draft", "anchor"])
def test_a_file_other_than_its_name_promises_is_not_tried(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "require_vocabulary", lambda path: pytest.fail(f"tried {path}"))
    names: dict[str, Any] = {"draft": "good", "anchor": "good", role: "bad"}
    good = write_tiny(tmp_path / "good.gguf", "llama")
    known = {"good": ModelEntry(path=good), "bad": ModelEntry(path=good, sha256="0" * 64)}
    with pytest.raises(ModelError, match="is not the file that 'bad' names"):
        measure_pair(names["draft"], names["anchor"], registry=Registry(known, {}, ""), bridge_width=5)


def test_the_verdict_comes_first(tmp_path: Path) -> None:
    report = measured(tmp_path, has_weights=False)
    lines = _text(report).splitlines()
    assert lines[:3] == [report.verdict, *report.notes, ""]
    assert lines[3].startswith("draft ")
