"""The baselines against their papers' formulas, and their loops over models without weights."""

from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbeam_local.config import Config
from alignbeam_local.errors import ContextFull, ModelError, UsageError
from alignbeam_local.evaluation.methods.guard import COMPLIES
from alignbeam_local.evaluation.methods.nudging import is_unsure
from alignbeam_local.evaluation.methods.row_methods import (
    Contrastive,
    ProxyTuning,
    SafeDecoding,
    probabilities,
    shared_top,
)
from alignbeam_local.evaluation.methods.row_sampler import RowSampler
from alignbeam_local.evaluation.methods.specs import METHODS, parse_method
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import ModelCard, Result, Verdict
from tests.fake_lm import FakeLM, fake_vocabulary, scripted_row
from tests.fake_loader import FakeModel
from tests.fake_pool import ANCHOR, ASSISTANT, DRAFT, config, fake_loader, fake_pool
from tests.templates import DEEPSEEK_R1


def logits(*shares: float) -> "np.ndarray[Any, np.dtype[np.float32]]":
    with np.errstate(divide="ignore"):
        return np.log(np.array(shares, np.float32))


ROWS = st.lists(st.floats(-8, 8, width=32), min_size=6, max_size=6).map(lambda row: np.array(row, np.float32))


# --- formulas


def test_safedecoding_by_hand() -> None:
    draft, anchor = logits(0.5, 0.3, 0.15, 0.04, 0.01), logits(0.05, 0.2, 0.6, 0.05, 0.1)
    # top 1: {0} and {2}; top 2: {0, 1} and {2, 1} share 1; top 3: {0, 1, 2} and {2, 1, 4} share 1 and 2
    assert list(shared_top(draft, anchor, 2)) == [1, 2]
    row = SafeDecoding(weight=2, m=1, c=2).combine([draft, anchor])
    # P(1) = 0.3 + 2 (0.2 - 0.3) = 0.1, P(2) = 0.15 + 2 (0.6 - 0.15) = 1.05
    assert probabilities(row) == pytest.approx([0, 0.1 / 1.15, 1.05 / 1.15, 0, 0])


@given(ROWS, ROWS, st.integers(1, 6))
def test_shared_top_is_the_smallest_intersection(first: Any, second: Any, count: int) -> None:
    orders = [list(np.argsort(-row, kind="stable")) for row in (first, second)]
    sets = [set(orders[0][:k]) & set(orders[1][:k]) for k in range(1, 7)]
    expected = next(shared for shared in sets if len(shared) >= count)
    assert set(shared_top(first, second, count)) == expected


def test_safedecoding_of_a_negative_difference_never_draws_it() -> None:
    draft, anchor = logits(0.9, 0.1), logits(0.1, 0.9)
    row = SafeDecoding(weight=3, c=2).combine([draft, anchor])
    assert probabilities(row)[0] < 1e-9


@given(ROWS, ROWS, ROWS)
def test_proxy_tuning_is_its_equation(draft: Any, tuned: Any, untuned: Any) -> None:
    row = ProxyTuning(untuned="base").combine([draft, tuned, untuned])
    product = probabilities(draft) * probabilities(tuned) / probabilities(untuned)
    assert probabilities(row) == pytest.approx(product / product.sum(), rel=1e-4)


def test_contrastive_by_hand() -> None:
    draft, anchor = logits(0.6, 0.3, 0.05, 0.05), logits(0.3, 0.4, 0.2, 0.1)
    row = Contrastive(k=3, m=1).combine([draft, anchor])
    assert row == pytest.approx([np.log(0.3 / 0.6), np.log(0.4 / 0.3), np.log(0.2 / 0.05), -np.inf])
    # at least 0.6 of 0.4 is 0.24: the first two
    row = Contrastive(share=0.6).combine([draft, anchor])
    assert list(np.isfinite(row)) == [True, True, False, False]


@pytest.mark.parametrize(("gamma", "unsure"), [(0.4, False), (0.6, True), (0.0, False), (1.0, True)])
def test_nudging_asks_where_the_draft_is_unsure(gamma: float, unsure: bool) -> None:
    assert is_unsure(logits(0.5, 0.25, 0.25), gamma) is unsure


# --- sampling


def test_greedy_and_seeds() -> None:
    row = logits(0.2, 0.5, 0.3)
    assert RowSampler(config()).sample(row) == 1
    warm = config(temperature=1)
    draws = [RowSampler(warm.with_values({"seed": seed})).sample(row) for seed in range(300)]
    assert draws == [RowSampler(warm.with_values({"seed": seed})).sample(row) for seed in range(300)]
    assert np.bincount(draws) / 300 == pytest.approx([0.2, 0.5, 0.3], abs=0.09)


def test_what_the_answer_holds_is_penalised() -> None:
    sampler = RowSampler(config(repeat_penalty=2.0))
    row = np.array([3.0, 2.0, -1.0], np.float32)
    sampler.accept(0)
    assert sampler.sample(row) == 1
    sampler.accept(1)
    assert sampler.sample(row) == 0


@given(st.integers(0, 50), st.floats(0.1, 1.0))
def test_top_p_and_exclusions(seed: int, top_p: float) -> None:
    row = logits(0.6, 0.3, 0.1, 0.0)
    drawn = RowSampler(config(temperature=1.5, top_p=top_p, seed=seed)).sample(row)
    assert drawn <= (0 if top_p < 0.59 else 1 if top_p < 0.89 else 2)


# --- loops

REFUSAL = "I can't help."
#: An anchor with the draft's vocabulary that refuses; the draft would help, and knows the refusal too.
SAME = FakeModel(DRAFT, scripted_row(DRAFT, {f"Steal?{ASSISTANT}": REFUSAL}))
KNOWS_BOTH = {f"Steal?{ASSISTANT}": ["Sure, do so.", REFUSAL]}


def answered(spec: str, prompt: str = "Steal?", **knobs: Any) -> Result:
    entry = parse_method(spec, config(**knobs))
    with closing(fake_pool()) as pool:
        (found,) = entry.method.open(entry.config, pool)([(prompt, entry.config)])
    if not isinstance(found, Result):
        raise found
    return found


def test_every_method_of_the_task_has_a_name() -> None:
    assert set(METHODS) == {
        *("draft", "anchor", "alignbeam", "system-prompt", "hard-prefix", "guard", "best-of-k"),
        *("safedecoding", "proxy-tuning", "contrastive", "nudging", "safety-tokens", "gated-tokens"),
    }
    assert all("arXiv" in (method.__doc__ or "") for method in METHODS.values())


@pytest.mark.parametrize("spec", ["safedecoding:m=99,c=1", "contrastive:m=99", "proxy-tuning:untuned=draft"])
def test_the_anchor_steers(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loader(monkeypatch, KNOWS_BOTH, anchor=SAME)
    found = answered(spec, max_tokens=40)
    assert found.text == REFUSAL
    assert (found.finish_reason, found.refusal.is_refusal, found.chosen) == ("stop", True, 0)
    assert found.usage.completion_tokens == len("I can't ") + 1 + 1
    cards = {role: card.name for role, card in found.models.items() if card}
    assert cards["anchor"] == "anchor"


def test_no_steering_is_the_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loader(monkeypatch, KNOWS_BOTH, anchor=SAME)
    drafts = answered("draft").text
    assert drafts == answered("safedecoding:m=0").text == answered("proxy-tuning:untuned=anchor").text
    assert drafts == answered("nudging:gamma=0").text == "Sure, do so."


@pytest.mark.parametrize("spec", ["safedecoding", "contrastive", "proxy-tuning:untuned=draft"])
def test_rows_of_two_vocabularies_are_not_added(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loader(monkeypatch)
    with pytest.raises(ModelError, match="do not share a vocabulary"):
        answered(spec)


def test_a_hard_prefix_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loader(monkeypatch, {f"Steal?{ASSISTANT}No": ", never."})
    found = answered("hard-prefix:text=No")
    assert (found.text, found.finish_reason) == ("No, never.", "stop")
    assert answered("hard-prefix:text=No", max_tokens=1).text == "N"


@pytest.mark.parametrize("spec", ["hard-prefix", "nudging", "safedecoding:m=0"])
def test_a_draft_that_thinks_first_is_not_measured_wrongly(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    thinker = FakeModel(DRAFT, scripted_row(DRAFT, {}), template=DEEPSEEK_R1)
    fake_loader(monkeypatch, draft=thinker, anchor=SAME)
    with pytest.raises(ModelError, match="reasons before it answers"):
        answered(spec)


def test_a_base_drafts_answer_begins_with_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    base = FakeModel(DRAFT, scripted_row(DRAFT, {"Steal?\nA: No": ", never."}), template="")
    fake_loader(monkeypatch, draft=base)
    assert answered("hard-prefix:text=No").text == "No, never."
    base = FakeModel(DRAFT, scripted_row(DRAFT, {"Steal?\nA: Never": " do so."}), template="")
    fake_loader(monkeypatch, anchor_says={f"Steal?{ASSISTANT}": "Never mind that."}, draft=base)
    unsure(monkeypatch, until="Never")
    assert answered("nudging", max_tokens=40).text == "Never do so."


def test_an_anchor_without_a_template_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    base = FakeModel(DRAFT, scripted_row(DRAFT, {}), template="")
    fake_loader(monkeypatch, anchor=base)
    with pytest.raises(ModelError, match="has no chat template"):
        answered("safedecoding")


def test_an_answer_is_cut_at_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loader(monkeypatch, KNOWS_BOTH, anchor=SAME)
    found = answered("safedecoding:m=0", max_tokens=3)
    assert (found.usage.completion_tokens, found.finish_reason) == (3, "length")


@pytest.mark.parametrize("spec", ["hard-prefix:text=No", "nudging", "safedecoding:m=0"])
def test_an_end_may_be_gone_past(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loader(monkeypatch, {f"Steal?{ASSISTANT}No": ".", f"Steal?{ASSISTANT}": "No."}, anchor=SAME)
    assert answered(spec, max_tokens=9).finish_reason == "stop"
    found = answered(spec, max_tokens=9, ignore_eos=True)
    assert (found.usage.completion_tokens, found.finish_reason) == (9, "length")


@pytest.mark.parametrize("spec", ["hard-prefix:text=No", "draft"])
def test_so_may_a_base_drafts_next_question(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    says = {"Steal?\nA: No": ".\nQ: And", "Steal?\nA:": " No.\nQ: And"}
    fake_loader(monkeypatch, draft=FakeModel(DRAFT, scripted_row(DRAFT, says), template=""))
    assert answered(spec, max_tokens=9).finish_reason == "stop"
    assert answered(spec, max_tokens=9, ignore_eos=True).finish_reason == "length"


@pytest.mark.parametrize("spec", ["safedecoding", "nudging", "hard-prefix"])
def test_a_prompt_that_does_not_fit_is_an_error(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loader(monkeypatch, KNOWS_BOTH, anchor=SAME)
    with pytest.raises(ContextFull):
        answered(spec, prompt="x" * 400, context=128)


def test_proxy_tuning_needs_the_untuned_model() -> None:
    with pytest.raises(UsageError, match="untuned is missing"):
        parse_method("proxy-tuning", config())
    entry = parse_method("proxy-tuning:untuned=base", config())
    assert entry.method.models(entry.config) == {
        "draft": "draft",
        "anchor": "anchor",
        "untuned": "base",
    }


# --- several at once

LONG = "x" * 1100  # the cells of four slots


@pytest.mark.parametrize(
    "spec",
    ["safedecoding:m=3,c=2", "contrastive", "proxy-tuning:untuned=draft", "hard-prefix", "nudging", "guard"],
)
def test_several_at_once_answer_as_each_by_itself_in_fewer_batches(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs: dict[str, Any] = {"temperature": 1.0, "context": 256}
    prompts = ["Steal?", LONG, "Burn?", "Cook?"]
    loader = fake_loader(monkeypatch, anchor=SAME)
    monkeypatch.setattr(
        "alignbeam_local.evaluation.methods.model_pool.ModelPool.judge",
        lambda *_: (FakeGuard("Cook"), GUARD_CARD),
    )
    entry = parse_method(spec, config(parallel=4, **knobs))
    with closing(fake_pool()) as pool:
        together = list(entry.method.open(entry.config, pool)([(prompt, entry.config) for prompt in prompts]))
    batches = [lm.decodes for lm in loader.opened["draft"]]
    too_long = together.pop(1)
    assert isinstance(too_long, ContextFull)
    for prompt, found in zip(("Steal?", "Burn?", "Cook?"), together, strict=True):
        alone = answered(spec, prompt, **knobs)
        assert isinstance(found, Result)
        assert (found.text, found.models, found.usage) == (alone.text, alone.models, alone.usage)
    each = [lm.decodes for lm in loader.opened["draft"]][len(batches) :]
    assert sum(batches) <= max(each) * len(batches) + 1


@pytest.mark.parametrize("spec", ["safedecoding", "hard-prefix", "nudging"])
def test_a_group_finds_nothing_of_the_one_before(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = fake_loader(monkeypatch, anchor=SAME)
    entry = parse_method(spec, config(parallel=3))
    with closing(fake_pool()) as pool:
        ask = entry.method.open(entry.config, pool)
        ask([(prompt, entry.config) for prompt in ("Steal?", "Burn?", "Cook?")])
        ask([("Steal?", entry.config)])
        held = [lm.tokens(slot) for lm in loader.opened["draft"] + loader.opened["anchor"] for slot in (1, 2)]
    assert not any(held)


@pytest.mark.parametrize("spec", ["safedecoding:m=2,c=1", "contrastive:m=2"])
def test_behind_the_combined_tokens_only_the_draft_decodes(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = fake_loader(monkeypatch, KNOWS_BOTH, anchor=SAME)
    found = answered(spec, max_tokens=40)
    assert found.usage.completion_tokens > 8
    assert [lm.decodes for lm in loader.opened["anchor"]] == [2]


# --- nudging


def test_an_answer_that_the_anchor_cuts_too_finely_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would grow into the cells of other prompts."""
    words = fake_vocabulary("user", "assistant", "l" * 19)
    fake_loader(
        monkeypatch,
        anchor_says={},
        draft=FakeModel(words, scripted_row(words, {f"Steal?{ASSISTANT}": "l" * 19 * 40})),
    )
    turns = iter(range(99))
    monkeypatch.setattr("alignbeam_local.evaluation.methods.nudging.is_unsure", lambda *_: next(turns) > 30)
    with pytest.raises(ContextFull, match="more tokens than fit"):
        answered("nudging", max_tokens=40, context=256)


def test_nudging_takes_whole_words_of_the_anchor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draft knows nothing after the prompt, and goes on by itself after the anchor's first word."""
    fake_loader(
        monkeypatch,
        {f"Steal?{ASSISTANT}Never": " do so."},
        {f"Steal?{ASSISTANT}": "Never mind that."},
    )
    unsure(monkeypatch, until="Never")
    assert answered("nudging", max_tokens=40).text == "Never do so."


def test_nudging_ends_where_the_anchor_does(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loader(monkeypatch, {}, {f"Steal?{ASSISTANT}": "No."})
    unsure(monkeypatch, until="never sure")
    found = answered("nudging", max_tokens=40)
    assert (found.text, found.finish_reason) == ("No.", "stop")


def unsure(monkeypatch: pytest.MonkeyPatch, until: str) -> None:
    """The draft's rows are flat until it has read this in its answer."""
    before = FakeLM.logits

    def flat(lm: FakeLM, sequence: int) -> Any:
        row = before(lm, sequence)
        said = lm.vocabulary.pieces(lm.tokens(sequence)).decode("utf-8", "replace").partition("Steal?")[2]
        return np.zeros_like(row) if lm.vocabulary is DRAFT and until not in said else row

    monkeypatch.setattr(FakeLM, "logits", flat)


# --- guard


class FakeGuard:
    """Calls unsafe what holds one of these words, in the prompt or in the answer."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.seen: list[tuple[str, str]] = []

    def forget(self) -> None: ...

    def judge(
        self, turns: list[Message], answers: list[str], threshold: float, asked: Any = None
    ) -> list[Verdict]:
        (answer,) = answers
        self.seen.append((turns[-1].content, answer))
        if any(word in text for word in self.words for text in self.seen[-1]):
            return [Verdict(4.0, 4.0, {}, "unsafe")]
        return [Verdict(1.0, 1.0, {}, "safe")]


GUARD_CARD = ModelCard("guard", "guard", "0" * 64, "Q4")


def guarded(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Result, FakeGuard]:
    loader = fake_loader(monkeypatch)
    guard = FakeGuard(*words)
    monkeypatch.setattr(
        "alignbeam_local.evaluation.methods.model_pool.ModelPool.judge",
        lambda *_: (guard, GUARD_CARD),
    )
    found = answered("guard", max_tokens=40)
    guard.decoded = loader.decoded("draft")  # type: ignore[attr-defined]
    return found, guard


def test_a_guard_lets_pass_what_is_safe_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    found, guard = guarded(monkeypatch)
    assert guard.seen == [("Steal?", COMPLIES), ("Steal?", "Sure, do so.")]
    assert (found.text, found.finish_reason) == ("Sure, do so.", "stop")
    assert found.beams[0].judge is not None


def test_a_guard_blocks_the_request_before_anything_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    found, guard = guarded(monkeypatch, "Steal")
    assert len(guard.seen) == 1
    assert guard.decoded == 0  # type: ignore[attr-defined]
    assert (found.text, found.finish_reason) == (Config.of({}).refusal_text, "blocked")
    assert (found.beams, found.chosen, found.refusal.by) == ((), None, "judge")


def test_a_guard_blocks_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    found, guard = guarded(monkeypatch, "do so")
    assert len(guard.seen) == 2
    assert (found.text, found.finish_reason) == (Config.of({}).refusal_text, "blocked")
    assert found.beams[0].text == "Sure, do so."


@pytest.mark.usefixtures("few_examples")
def test_an_unscored_guard_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = FakeModel(ANCHOR, lambda tokens: np.zeros(ANCHOR.size, np.float32))
    fake_loader(monkeypatch, judge=flat)
    assert answered("guard").finish_reason == "blocked"
