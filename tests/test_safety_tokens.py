"""Safety tokens at inference: worked by hand on rows, then in answers of models without weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignbeam_local.config import Config
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.evaluation.methods.specs import parse_method
from alignbeam_local.evaluation.runs.runner import RunPlan, manifest
from alignbeam_local.lm.vocabulary import Vocabulary
from alignbeam_local.models.registry import Registry
from alignbeam_local.search.safety_tokens import ABLATED, UNCHANGED, SafetyTokens, safety_tokens
from alignbeam_local.tokens.token_file import FoundToken, Source, TokenFile, read_tokens, write_tokens
from tests.fake_lm import FakeLM, fake_vocabulary, hashed_row
from tests.llama_models import write_tiny
from tests.talk import DRAFT, Talk

ROW = np.array([0.5, 1.0, -2.0, 3.0], np.float32)
SAFE = Source(name="safe", weights_sha256="0" * 64)


def token_file(path: Path, *pieces: str, vocabulary: Vocabulary = DRAFT) -> Path:
    """A file that names the tokens of these pieces."""
    tokens = [FoundToken(id=vocabulary.encode(piece)[0], text=piece, d=0.5) for piece in pieces]
    found = TokenFile(kind="difference", vocabulary=vocabulary.fingerprint, safe=SAFE, tokens=tuple(tokens))
    write_tokens(path, found)
    return path


# --- rows


def test_boost_adds_and_ablate_takes_away() -> None:
    assert SafetyTokens([1, 3], 5.0).changed(ROW).tolist() == [0.5, 6.0, -2.0, 8.0]
    assert SafetyTokens([1, 3], None).changed(ROW).tolist() == [0.5, -1e9, -2.0, -1e9]
    assert ROW.tolist() == [0.5, 1.0, -2.0, 3.0], "the row itself stays"
    assert np.isfinite(ABLATED), "a grammar's -inf is another thing"


def test_a_probability_rises_as_worked_by_hand() -> None:
    """Of two equal tokens one is boosted by ln 3: 1/2 becomes 3/4."""
    row = SafetyTokens([1], float(np.log(3))).changed(np.zeros(2, np.float32))
    weights = np.exp(row)
    assert weights / weights.sum() == pytest.approx([0.25, 0.75])


def test_the_first_positions_or_all() -> None:
    first = SafetyTokens([1], 5.0, steps=2)
    assert [bool(first.changes(position)) for position in range(4)] == [True, True, False, False]
    assert first.changed(ROW, 2) is ROW
    assert SafetyTokens([1], 5.0).changes(10_000)
    assert not UNCHANGED.changes(0)
    assert UNCHANGED.changed(ROW) is ROW


def test_a_row_is_changed_where_it_lies() -> None:
    lm = FakeLM(DRAFT, hashed_row(DRAFT.size))
    lm.extend({0: [1]})
    before = lm.logits(0).copy()
    SafetyTokens([3, 5], 2.0).change(lm, 0, 0)
    moved = lm.logits(0) - before
    assert np.flatnonzero(moved).tolist() == [3, 5]
    assert moved[[3, 5]] == pytest.approx([2.0, 2.0], abs=1e-5)


# --- answers


def says(monkeypatch: pytest.MonkeyPatch, **knobs: Any) -> str:
    return Talk(monkeypatch, **{"depth": 0, **knobs}).ask("How?").text


@pytest.mark.parametrize("depth", [0, 6])
def test_boosted_tokens_win_and_ablated_ones_never_come(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, depth: int
) -> None:
    """The draft would say "Take a pan …", at its next best "Use a pot."; a logit of 1 is between them."""
    file = str(token_file(tmp_path / "tokens.json", "U"))
    knobs: dict[str, Any] = {"safety_file": file, "depth": depth, "alpha": 0.0}
    assert says(monkeypatch, depth=depth, alpha=0.0).startswith("Take")
    assert says(monkeypatch, safety_tokens="boost", **knobs) == "Use a pot."
    assert says(monkeypatch, safety_tokens="boost", boost=0.5, **knobs).startswith("Take")
    taken = str(token_file(tmp_path / "taken.json", "T"))
    assert says(monkeypatch, safety_tokens="ablate", **{**knobs, "safety_file": taken}) == "Use a pot."


def test_in_the_first_step_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No answer begins with an a, so that nothing changes; in all steps none is left."""
    file = str(token_file(tmp_path / "tokens.json", "a"))
    whole, first = (
        says(monkeypatch, safety_tokens="ablate", safety_file=file, safety_steps=steps) for steps in (None, 1)
    )
    assert first == says(monkeypatch)
    assert "a" in first
    assert "a" not in whole


def test_the_next_answer_is_not_changed_by_the_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The prompt's row is kept between answers: as the model made it."""
    talk = Talk(monkeypatch, depth=0)
    file = str(token_file(tmp_path / "tokens.json", "U"))
    assert talk.ask("How?", safety_tokens="boost", safety_file=file).text == "Use a pot."
    assert talk.retry().text.startswith("Take")


# --- the file


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = token_file(tmp_path / "tokens.json", "U", "a")
    found = read_tokens(path)
    assert found.ids == (ord("U"), ord("a"))
    assert [token.text for token in found.tokens] == ["U", "a"]
    found.require(DRAFT, path, "draft")


def test_another_vocabulary_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = fake_vocabulary("other")
    path = token_file(tmp_path / "tokens.json", "U", vocabulary=other)
    with pytest.raises(ModelError, match=r"tokens\.json names tokens of another vocabulary than draft's"):
        says(monkeypatch, safety_tokens="boost", safety_file=str(path))
    path = tmp_path / "large.json"
    row = FoundToken(id=10**6, text="x", d=1)
    write_tokens(path, TokenFile(kind="random", vocabulary=DRAFT.fingerprint, safe=SAFE, tokens=(row,)))
    with pytest.raises(ModelError, match="another vocabulary"):
        says(monkeypatch, safety_tokens="boost", safety_file=str(path))


def test_no_file_is_an_error_that_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="needs a file") as caught:
        says(monkeypatch, safety_tokens="ablate")
    assert "alignbeam tokens find" in caught.value.hint


GOOD: dict[str, Any] = {
    "format": "alignbeam safety tokens 1",
    "kind": "difference",
    "vocabulary": "0" * 64,
    "safe": SAFE.model_dump(mode="json"),
    "tokens": [{"id": 1, "text": "x", "d": 0.5}],
}


@pytest.mark.parametrize(
    "changed",
    [
        {"format": "alignbeam safety tokens 2"},
        {"tokens": []},
        {"tokens": GOOD["tokens"] * 2},
        {"tokens": [{"id": -1, "text": "x", "d": 0.5}]},
        {"vocabulary": "short"},
        {"share": 2},
        {"more": 1},
    ],
)
def test_a_file_that_is_none(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    assert read_tokens(path).ids == (1,)
    path.write_text(json.dumps({**GOOD, **changed}), encoding="utf-8")
    with pytest.raises(UsageError, match="is no file of tokens"):
        read_tokens(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000, b'{"tokens": NaN}'])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        read_tokens(path)
    with pytest.raises(UsageError):
        read_tokens(tmp_path / "none.json")


# --- eval


def test_a_method_of_its_own_and_the_files_hash_in_the_manifest(tmp_path: Path) -> None:
    base, file = write_tiny(tmp_path / "base.gguf", "llama"), token_file(tmp_path / "tokens.json", "U")
    config = Config.of({"draft": str(base), "safety_file": str(file)})
    specs = ("draft", "safety-tokens", "safety-tokens:safety_tokens=ablate,safety_steps=4")
    entries = [parse_method(spec, config) for spec in specs]
    assert [entry.config.safety_tokens for entry in entries] == ["none", "boost", "ablate"]
    assert all((entry.config.depth, entry.config.beams) == (0, 1) for entry in entries)
    about = manifest(RunPlan(entries, [], [1]), Registry({}, {}, ""))["methods"]
    assert "safety_tokens" not in about["draft"]
    assert len(about["safety-tokens"]["safety_tokens"]["sha256"]) == 64
    assert str(file) not in json.dumps(about)


def test_methods_that_do_nothing_to_them_do_not_record_it(tmp_path: Path) -> None:
    """A run's flag reaches the draft that the engine answers with, and no anchor, and no rows of others."""
    model, file = write_tiny(tmp_path / "m.gguf", "llama"), token_file(tmp_path / "tokens.json", "U")
    knobs = {"draft": str(model), "anchor": str(model), "judge": str(model), "safety_file": str(file)}
    base = Config.of({**knobs, "safety_tokens": "boost", "boost": 3, "safety_steps": 2})
    boosts, others = (
        ("draft", "system-prompt", "alignbeam"),
        ("anchor", "guard", "safedecoding", "hard-prefix"),
    )
    entries = [parse_method(spec, base) for spec in (*boosts, *others)]
    methods = manifest(RunPlan(entries, [], [1]), Registry({}, {}, ""))["methods"]
    kept = {name: about["knobs"]["safety_tokens"] for name, about in methods.items()}
    assert kept == dict.fromkeys(boosts, "boost") | dict.fromkeys(others, "none")
    assert {name for name, about in methods.items() if "safety_tokens" in about} == set(boosts)
    assert {methods[name]["knobs"]["boost"] for name in others} == {Config().boost}
    for spec in ("guard:safety_tokens=boost", "anchor:safety_steps=3", "safedecoding:boost=2"):
        with pytest.raises(UsageError, match=r"sets \w+ itself"):
            parse_method(spec, Config.of(knobs))


def test_nothing_is_read_where_nothing_is_done() -> None:
    config = Config.of({"safety_file": "no-such-file.json"})
    assert safety_tokens(config, FakeLM(DRAFT, hashed_row(DRAFT.size)), "draft") is UNCHANGED
