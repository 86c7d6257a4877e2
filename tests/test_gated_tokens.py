"""A draft's safety tokens drawn to the anchor's by PACT's gate: the formulas by hand, and the loop."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.evaluation.methods import gated
from alignbeam_local.evaluation.methods.decoding import decode
from alignbeam_local.evaluation.methods.gated import GatedTokens
from alignbeam_local.evaluation.methods.specs import parse_method
from alignbeam_local.evaluation.runs.runner import RunPlan, manifest
from alignbeam_local.models.registry import Registry
from alignbeam_local.result import Result
from alignbeam_local.search.gate import decayed, gate
from tests.fake_lm import scripted_row
from tests.fake_loader import FakeModel
from tests.fake_pool import ASSISTANT, DRAFT, config, fake_loader, fake_pool
from tests.llama_models import write_tiny
from tests.test_safety_tokens import token_file

REFUSAL = "I can't help."
TOKENS = np.array([0, 1], np.int64)
#: Shares of four tokens, of which the first two are safety tokens.
OWN, FULL, POST = ([0.05, 0.05, 0.6, 0.3], [0.8, 0.1, 0.05, 0.05], [0.1, 0.1, 0.4, 0.4])


def rows(*shares: list[float]) -> list[Any]:
    """Logits with these shares, each row with an offset of its own, which must not count."""
    return [np.log(np.array(each, np.float32)) + 3 * n for n, each in enumerate(shares)]


def shares_of(row: Any) -> list[float]:
    return list(np.exp(row.astype(np.float64)))


def test_the_row_by_hand() -> None:
    """Both of the draft and of the anchor without the question need two of two tokens: c is a half."""
    row = GatedTokens().combined(rows(OWN, FULL, POST), TOKENS, 0)
    expected = [(0.8 * 0.1) ** 0.5, (0.1 * 0.1) ** 0.5, 0.6, 0.3]
    assert shares_of(row) == pytest.approx(expected, rel=1e-4)


def test_without_a_gate_they_are_the_anchors_and_half_way_the_mean() -> None:
    row = GatedTokens(n=0, tau=1e-3).combined(rows(OWN, FULL, POST), TOKENS, 50)
    assert shares_of(row) == pytest.approx([0.8, 0.1, 0.6, 0.3], rel=1e-4)
    row = GatedTokens(n=0, tau=1e-3, weight=0.5).combined(rows(OWN, FULL, POST), TOKENS, 50)
    assert shares_of(row)[0] == pytest.approx((0.05 * 0.8) ** 0.5, rel=1e-4)
    row = GatedTokens(weight=0).combined(rows(OWN, FULL, POST), TOKENS, 0)
    assert shares_of(row) == pytest.approx(OWN, rel=1e-4)


def test_the_gate_goes_by_both_breadths_and_fades() -> None:
    """A draft sure of one of two tokens beside a view that is not: c = 1 / (1 + exp(1/2)), and less later."""
    sure = [0.95, 0.01, 0.02, 0.02]
    for position, c in ((0, gate(0.5, 1.0)), (10, decayed(gate(0.5, 1.0), 10, 8, 8.0))):
        row = GatedTokens().combined(rows(sure, FULL, POST), TOKENS, position)
        assert shares_of(row)[0] == pytest.approx(0.8 ** (1 - c) * 0.1**c, rel=1e-4)


# --- the loop


def answered(monkeypatch: pytest.MonkeyPatch, spec: str, **knobs: Any) -> Result:
    """The draft says "Sure"; so does the anchor without a question, and with it it refuses."""
    says = {f"Steal?{ASSISTANT}": ["Sure, do so.", REFUSAL]}
    anchor = FakeModel(DRAFT, scripted_row(DRAFT, {f"Steal?{ASSISTANT}": REFUSAL}))
    fake_loader(monkeypatch, says, anchor=anchor)
    entry = parse_method(spec, config(max_tokens=40, **knobs))
    with closing(fake_pool()) as pool:
        (found,) = entry.method.open(entry.config, pool)([("Steal?", entry.config)])
    if not isinstance(found, Result):
        raise found
    return found


def test_the_anchors_safety_tokens_come_and_without_weight_they_do_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = token_file(tmp_path / "tokens.json", "I", "S", vocabulary=DRAFT)
    found = answered(monkeypatch, f"gated-tokens:n=0,tau=0.001,safety_file={file}")
    assert found.text == REFUSAL
    assert found.refusal.is_refusal
    cards = {role: card.name for role, card in found.models.items() if card}
    assert cards == {"draft": "draft", "anchor": "anchor", "unasked": "anchor"}
    for own in ("weight=0", "m=0"):
        found = answered(monkeypatch, f"gated-tokens:{own},safety_file={file}")
        assert found.text == "Sure, do so."


def test_a_missing_file_and_another_vocabulary_are_errors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="needs a file"):
        answered(monkeypatch, "gated-tokens")
    fake_loader(monkeypatch)
    entry = parse_method(
        "gated-tokens", config(safety_file=str(token_file(tmp_path / "t.json", "I", vocabulary=DRAFT)))
    )
    with closing(fake_pool()) as pool:
        (found,) = entry.method.open(entry.config, pool)([("Steal?", entry.config)])
    assert isinstance(found, ModelError)
    assert "do not share a vocabulary" in found.message


def test_the_files_hash_is_in_the_manifest(tmp_path: Path) -> None:
    base, file = write_tiny(tmp_path / "base.gguf", "llama"), token_file(tmp_path / "tokens.json", "I")
    knobs = {"draft": str(base), "anchor": str(base), "safety_file": str(file)}
    entry = parse_method("gated-tokens", config(**knobs))
    about = manifest(RunPlan([entry], [], [1]), Registry({}, {}, ""))["methods"]["gated-tokens"]
    assert len(about["safety_tokens"]["sha256"]) == 64
    assert set(about["models"]) == {"draft", "anchor", "unasked"}


def test_all_three_read_how_the_answer_has_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The anchor without the question too: else its row is of another place in the answer."""
    seen: list[list[Sequence[int]]] = []

    def noted(models: Any, prompts: Any, *others: Any) -> Any:
        seen.append(prompts)
        return decode(models, prompts, *others)

    monkeypatch.setattr(gated, "decode", noted)
    file = token_file(tmp_path / "tokens.json", "I", vocabulary=DRAFT)
    answered(monkeypatch, f"gated-tokens:safety_file={file}", prefill="Sure, ")
    ((own, asked, unasked),) = seen
    begun = DRAFT.encode("Sure, ")
    assert [list(ids[-len(begun) :]) for ids in (own, asked, unasked)] == [begun] * 3
