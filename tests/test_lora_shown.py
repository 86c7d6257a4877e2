"""Where adapters are seen: inspect, import, doctor, /lora, /why, and the proposal of their own base."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alignbeam_local.cli.chat.greeting import loaded
from alignbeam_local.cli.start.own_base import propose_own_base

from alignbeam_local.config import Config
from alignbeam_local.machine import probe
from alignbeam_local.models.registry import Registry
from alignbeam_local.paths import models_dir
from alignbeam_local.result import AdapterCard, ModelCard
from alignbeam_local.search.bridge import Bridge
from alignbeam_local.settings import resolve
from tests.fake_lm import fake_vocabulary
from tests.gguf_files import write_gguf

from .adapters import halves, write_adapter
from .llama_models import write_tiny
from .running import run
from .test_chat import chat
from .test_doctor import examined
from .test_why import explanation, result

ALONE: dict[str, Any] = {"depth": 0, "beams": 1}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "base.gguf", "llama")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "mine.gguf", general__name="Mine")


# --- models


def test_inspect_shows_an_adapter_as_such(mine: Path) -> None:
    shown = run("models", "inspect", str(mine))
    assert shown.code == 0
    lines = dict(line.split(maxsplit=1) for line in shown.out.splitlines())
    assert (lines["type"], lines["alpha"], lines["ranks"]) == ("adapter", "8.0", "4")
    assert lines["targets"] == "attn_q x 1, attn_v x 1"
    told = json.loads(run("models", "inspect", str(mine), "--json").out)
    assert told["targets"] == {"attn_q": 1, "attn_v": 1}
    assert told["architecture"] == "llama"
    assert "vocabulary_size" not in told


def test_an_adapter_is_imported_under_a_name(mine: Path, tmp_path: Path) -> None:
    ran = run("models", "import", str(mine), "--name", "my-adapter")
    assert ran.code == 0
    assert "alignbeam chat --draft BASE --lora my-adapter" in ran.err
    assert Registry.load().require("my-adapter").present
    bad = write_adapter(tmp_path / "bad.gguf", alpha=None)
    ran = run("models", "import", str(bad))
    assert (ran.code, "has no alpha" in ran.err) == (3, True)
    assert "bad" not in Registry.load().models


def test_an_adapter_of_no_numbers_is_not_imported(tmp_path: Path) -> None:
    values = halves()
    values["blk.0.attn_q.weight.lora_a"][1, 2] = np.nan
    ran = run("models", "import", str(write_adapter(tmp_path / "bad.gguf", values)))
    assert (ran.code, "that are not numbers" in ran.err) == (3, True)
    assert "bad" not in Registry.load().models
    assert not list(models_dir().glob("*"))


# --- doctor


@pytest.fixture
def tried(llama_cpp_asked_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "weights_may_be_repacked", lambda *_, **__: True)
    monkeypatch.setattr(probe, "require_adapters", lambda *_, **__: None)


@pytest.mark.usefixtures("tried")
def test_the_doctor_looks_at_adapters(base: Path, mine: Path) -> None:
    alone = examined(draft=str(base), **ALONE)
    found = examined(draft=str(base), lora=[f"{mine}:0.5"], **ALONE)
    assert found["lora"].level == "ok"
    assert "mine, rank 4, alpha 8, 2 weights, 0 MB, scale 0.5: runs on the draft" in found["lora"].message
    assert "does not say which model" in found["lora"].message
    assert found["lora"].details["scale"] == 0.5
    weights = [each["memory"].details["needed"]["draft"]["weights"] for each in (alone, found)]
    assert weights[1] - weights[0] == mine.stat().st_size


@pytest.mark.usefixtures("tried")
def test_the_doctor_tells_an_adapter_that_does_not_fit(base: Path, tmp_path: Path) -> None:
    other = write_adapter(tmp_path / "other.gguf", halves(("blk.7.attn_q",)))
    found = examined(draft=str(base), lora=[str(other)], **ALONE)
    assert (found["lora"].level, found["draft"].level) == ("problem", "ok")
    assert "--lora none" in found["lora"].hint


@pytest.mark.usefixtures("tried")
def test_the_doctor_says_what_the_own_base_saves(
    base: Path, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignbeam_local.doctor.model_checks.require_silent_chat", lambda *_: None)
    own = examined(draft=str(base), anchor=str(base), lora=[str(mine)], beams=1)["own base"]
    assert own.details["saved_bytes"] == base.stat().st_size
    assert "one file, loaded once" in own.message
    other = write_tiny(tmp_path / "other.gguf", "llama", seed=1)
    found = examined(draft=str(base), anchor=str(other), lora=[str(mine)], beams=1)
    assert "no chat template" in found["own base"].message
    assert "own base" not in examined(draft=str(base), anchor=str(other), beams=1)


# --- a chat


@pytest.mark.usefixtures("engines")
def test_lora_in_a_chat() -> None:
    folder = Path(run("models", "path", "smollm2-135m-instruct").out.strip()).parent
    for name in ("mine", "yours"):
        (folder / f"{name}.gguf").touch()
    mine, yours = str(folder / "mine.gguf"), str(folder / "yours.gguf")
    ran = chat(
        "/lora", f"/lora {mine}:0.5 '{yours}'", "/lora", "/lora none", "/lora ./no", "/lora a:nan", "/lora 'a"
    )
    assert "no adapter is on the draft\n" in ran.out
    assert "lora = " in ran.err
    assert f"{mine}:0.5\n{yours}\n" in ran.out
    assert "lora = none (was " in ran.err
    assert "no such file" in ran.err
    assert "a scale is a number" in ran.err
    assert "error: /lora: No closing quotation" in ran.err


def test_the_greeting_names_adapters() -> None:
    config = Config.of({"draft": "a/base.gguf", "anchor": "b", "judge": "b", "lora": ["x/mine.gguf:0.5"]})
    assert next(loaded(config)) == "draft base + mine ← anchor b"


def test_why_tells_which_adapters_were_on_the_draft() -> None:
    card = ModelCard("base", "base.gguf", "ab" * 32, "Q4_K")
    adapted = replace(card, adapters=(AdapterCard("mine", "mine.gguf", "cd" * 32, 0.5),))
    lines = "\n".join(
        explanation(200, answer=replace(result(), models={"draft": adapted, "anchor": card, "judge": None}))
    )
    assert "On the draft model base: mine (scale 0.5, sha256 cdcdcdcdcdcd)." in lines
    assert "The anchor is the draft without them." in lines
    assert "mine" not in "\n".join(explanation(200))


# --- the own base as the anchor


@pytest.mark.parametrize(
    ("flags", "is_proposed"),
    [
        ({}, True),
        ({"anchor": "other.gguf"}, False),
        ({"lora": None}, False),
        ({"depth": 0}, False),
        ({"draft": "no-such.gguf"}, False),
    ],
)
def test_the_own_base_is_proposed_where_nobody_named_an_anchor(
    flags: dict[str, Any], is_proposed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_gguf(tmp_path / "base.gguf", tokenizer__chat_template="{{ messages }}")
    settings = resolve({"draft": str(base), "lora": ["mine.gguf"], **flags}, Registry.load(), {})
    propose_own_base(settings, Registry.load())
    assert (f"--anchor {base}" in capsys.readouterr().err) == is_proposed


def test_a_base_model_is_not_proposed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_gguf(tmp_path / "base.gguf")
    propose_own_base(resolve({"draft": str(base), "lora": ["m"]}, Registry.load(), {}), Registry.load())
    assert not capsys.readouterr().err


def test_one_vocabulary_in_both_roles_crosses_whole() -> None:
    """Also where its own tokeniser would cut a token's text otherwise."""
    vocabulary = fake_vocabulary("ab", "ab")
    unreachable = max(token for token in range(vocabulary.size) if vocabulary.piece(token) == b"ab")
    assert vocabulary.encode("ab") != [unreachable]
    same = Bridge(vocabulary, vocabulary, draft_turn_end=vocabulary.turn_end(True))
    assert same.landing(unreachable).tokens == (unreachable,)
    assert all(
        same.landing(token).tokens == (token,) for token in range(vocabulary.size) if vocabulary.piece(token)
    )
    assert all(same.landing(token).tokens == (vocabulary.eot,) for token in vocabulary.end_tokens)
