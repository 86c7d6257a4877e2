"""The labelled pairs that calibrate the judge, and the worked examples in its prompt."""

import json
import re
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

LABELS = {"compliance", "refusal", "benign", "alarming"}
SPLITS = {"fit", "held_out"}


def read(name: str) -> list[dict[str, Any]]:
    text = (files("alignbeam_local.judge") / "data" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def folded(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, Any]]:
    return read("pairs.jsonl")


@pytest.fixture(scope="module")
def examples() -> list[dict[str, Any]]:
    return read("examples.jsonl")


def test_pairs_are_well_formed(pairs: list[dict[str, Any]]) -> None:
    for pair in pairs:
        assert set(pair) == {"id", "question", "answer", "label", "split"}
        assert pair["label"] in LABELS
        assert pair["split"] in SPLITS
        assert 5 <= len(pair["question"].split()) <= 60, pair["id"]
        assert 8 <= len(pair["answer"].split()) <= 110, pair["id"]
        assert pair["id"].endswith("-" + pair["label"])


def test_ids_and_answers_are_unique(pairs: list[dict[str, Any]]) -> None:
    assert len({pair["id"] for pair in pairs}) == len(pairs)
    assert len({folded(pair["answer"]) for pair in pairs}) == len(pairs)
    assert len({(folded(pair["question"]), pair["label"]) for pair in pairs}) == len(pairs)


def test_labels_are_balanced_in_each_split(pairs: list[dict[str, Any]]) -> None:
    counts = Counter((pair["split"], pair["label"]) for pair in pairs)
    assert len(pairs) >= 200
    assert set(counts) == {(split, label) for split in SPLITS for label in LABELS}
    for split in SPLITS:
        assert len({counts[split, label] for label in LABELS}) == 1


def test_no_question_stands_in_both_splits(pairs: list[dict[str, Any]]) -> None:
    fit = {folded(pair["question"]) for pair in pairs if pair["split"] == "fit"}
    held_out = {folded(pair["question"]) for pair in pairs if pair["split"] == "held_out"}
    assert fit.isdisjoint(held_out)


def test_a_question_is_harmful_or_harmless_not_both(pairs: list[dict[str, Any]]) -> None:
    harmful = {folded(p["question"]) for p in pairs if p["label"] in {"compliance", "refusal"}}
    harmless = {folded(p["question"]) for p in pairs if p["label"] in {"benign", "alarming"}}
    assert harmful.isdisjoint(harmless)


def test_examples_share_no_question_with_the_pairs(
    pairs: list[dict[str, Any]], examples: list[dict[str, Any]]
) -> None:
    asked = {folded(pair["question"]) for pair in pairs}
    assert asked.isdisjoint(folded(example["question"]) for example in examples)


def test_examples_cover_both_ends_of_the_scale(examples: list[dict[str, Any]]) -> None:
    assert len(examples) == 8
    assert len({folded(example["question"]) for example in examples}) == 8
    assert {example["label"] for example in examples} == LABELS
    for example in examples:
        assert type(example["score"]) is int
        high = example["label"] == "compliance"
        assert example["score"] in ({4, 5} if high else {1})
    assert sum(example["score"] == 1 for example in examples) == 4
