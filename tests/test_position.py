"""What is decided anew at each mixed position, each rule by itself, against a slow one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbeam_local.config import Config
from alignbeam_local.search.mixer import Mixer
from alignbeam_local.search.mixing import RULES, Mixture, TopTokens, log_normaliser, mix, top_tokens
from alignbeam_local.search.position.alpha import weight_of
from alignbeam_local.search.position.prefix import Prefix
from alignbeam_local.search.position.refusing import first_tokens, refusing_mass
from alignbeam_local.search.position.several import Voice, distance, mean
from tests.fake_lm import fake_vocabulary, hashed_row
from tests.test_mixer import ANCHOR, DRAFT, bridge

SHARES = st.lists(st.floats(0.01, 1), min_size=1, max_size=6)


def config(**knobs: Any) -> Config:
    return Config.of(knobs)


def voice(shares: Sequence[float], first: int, covered: float = 1.0) -> Voice:
    """An anchor whose mixture is these shares, on tokens from `first` on; as much of its own landed."""
    mass = np.array(shares) / sum(shares)
    order = np.argsort(-mass, kind="stable")
    mixture = Mixture(first + order, mass[order], covered)
    return Voice(TopTokens(mixture.tokens, mixture.probabilities), mixture, mass[order] * covered, first)


# --- several anchors


@given(SHARES, SHARES, st.floats(0, 1), st.integers(0, 6))
def test_a_mean_is_that_of_each_token(
    one: list[float], other: list[float], weight: float, first: int
) -> None:
    voices, weights = [voice(one, 0), voice(other, first, 0.5)], [weight, 1 - weight]
    found = mean(voices, weights)
    for token in range(20):
        each = [
            dict(zip(v.mixture.tokens.tolist(), v.mixture.probabilities.tolist(), strict=True))
            for v in voices
        ]
        expected = sum(w * shares.get(token, 0.0) for w, shares in zip(weights, each, strict=True))
        there = dict(zip(found.mixture.tokens.tolist(), found.mixture.probabilities.tolist(), strict=True))
        assert there.get(token, 0.0) == pytest.approx(expected)
        landed = sum(w * v.landed_on(token) for w, v in zip(weights, voices, strict=True))
        assert found.landed_on(token) == pytest.approx(landed)
    assert found.mixture.probabilities.sum() == pytest.approx(1)
    assert list(found.mixture.probabilities) == sorted(found.mixture.probabilities, reverse=True)
    assert found.mixture.covered_mass == pytest.approx(weight + (1 - weight) * 0.5)


def test_a_mean_of_one_is_that_one() -> None:
    own = voice([0.2, 0.8], 3)
    assert mean([own], [1.0]) is own


def test_an_anchor_that_counts_nothing_or_of_which_nothing_crossed_is_not_heard() -> None:
    own, other = voice([0.2, 0.8], 3), voice([1.0], 9)
    silent = Voice(other.top, Mixture(np.empty(0, np.int64), np.empty(0), 0.0), np.empty(0), -1)
    for voices, weights in (([own, other], [1.0, 0.0]), ([own, silent], [0.5, 0.5])):
        found = mean(voices, weights)
        assert found.mixture.tokens.tolist() == own.mixture.tokens.tolist()
        assert found.mixture.probabilities.tolist() == own.mixture.probabilities.tolist()
    assert mean([silent, silent], [0.5, 0.5]) is silent


@given(st.integers(0, 1000), st.sampled_from(["drop", "first", "exact"]), st.sampled_from(["each", "once"]))
def test_one_anchor_is_eq_1_to_the_bit(seed: int, variant: Any, draft_mass: Any) -> None:
    knobs = config(variant=variant, draft_mass=draft_mass, bridge_width=20)
    draft, anchor = hashed_row(DRAFT.size, seed)([]), hashed_row(ANCHOR.size, seed + 1)([])
    found = Mixer([bridge()], knobs).mix(draft, [anchor], weight_of(knobs), position=3)
    top, rule = top_tokens(anchor, 20, log_normaliser(anchor)), RULES[knobs.variant]
    crossing, normaliser = bridge().cross(top.tokens), log_normaliser(draft)
    own = Mixer([bridge()], knobs).draft_probabilities(draft, rule.targets(crossing), normaliser)
    expected = mix(
        top,
        crossing,
        own,
        alpha=knobs.alpha,
        rule=rule,
        draft_mass=knobs.draft_mass,
        draft_top=top_tokens(draft, 20, normaliser),
    )
    assert found.mixture.tokens.tolist() == expected.tokens.tolist()
    assert found.mixture.probabilities.tolist() == expected.probabilities.tolist()
    assert found.mixture.covered_mass == expected.covered_mass
    assert found.voices == ()


def test_each_of_several_is_counted_and_heard_by_itself() -> None:
    mixer = Mixer([bridge(), bridge()], config(bridge_width=3), [0.25, 0.75])
    rows = [hashed_row(ANCHOR.size, seed)([]) for seed in (1, 2)]
    row = mixer.mix(hashed_row(DRAFT.size, 0)([]), rows)
    assert [count.steps for count in mixer.counts] == [1, 1]
    assert (mixer.count.steps, mixer.count.tokens) == (2, 6)
    assert [int(v.top.tokens[0]) for v in row.voices] == [int(each.argmax()) for each in rows]
    mixer.use_only([1])
    assert mixer.mix(hashed_row(DRAFT.size, 0)([]), rows[1:]).voices[0].top.tokens[0] == rows[1].argmax()
    assert [count.steps for count in mixer.counts] == [1, 2]


@given(SHARES, SHARES)
def test_a_distance_is_half_of_what_differs(one: list[float], other: list[float]) -> None:
    size = min(len(one), len(other))
    a, b = np.array(one[:size]), np.array(other[:size])
    expected = sum(abs(x / a.sum() - y / b.sum()) for x, y in zip(a, b, strict=True)) / 2
    assert distance(a, b) == pytest.approx(expected)
    assert 0 <= distance(a, b) <= 1 + 1e-9
    assert distance(a, np.zeros(size)) == distance(np.empty(0), np.empty(0)) == 0.0


# --- the weight


@pytest.mark.parametrize("position", [0, 5, 19])
def test_a_fixed_weight_is_alpha(position: int) -> None:
    assert weight_of(config(alpha=0.3)).at(position, float) == 0.3


def test_a_decaying_weight_is_halved_every_n_tokens() -> None:
    weight = weight_of(config(alpha=0.8, depth=4, alpha_rule="decay"))
    assert [weight.at(n, float) for n in (0, 4, 8)] == [0.8, 0.4, 0.2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 8))
def test_disagreement_fires_where_it_has_added_up(apart: list[float], depth: int) -> None:
    weight = weight_of(config(alpha=0.7, depth=depth, alpha_rule="disagreement"))
    v = 0.0
    for position, d in enumerate(apart):
        v = (1 - 1 / 8) * v + d
        fires = v >= 1
        v = 0.6 * v if fires else v
        assert weight.at(position, lambda d=d: d) == (0.7 if fires or position < depth else None)  # type: ignore[misc]


def test_beams_that_begin_likewise_do_not_share_what_adds_up() -> None:
    begun = weight_of(config(depth=1, alpha_rule="disagreement"))
    begun.at(0, lambda: 0.9)
    one, other = begun.fork(), begun.fork()
    assert one.at(1, lambda: 0.9) is not None
    assert other.at(1, lambda: 0.0) is None


def test_steered_back_the_first_tokens_get_alpha_whatever_the_rule() -> None:
    for rule, behind in (("fixed", 0.8), ("decay", 0.4), ("disagreement", None)):
        weight = weight_of(config(alpha=0.8, depth=2, alpha_rule=rule), 2).fork()
        assert [weight.at(n, float) for n in range(3)] == [0.8, 0.8, behind]


def test_where_the_anchors_weight_is_none_the_draft_chooses_and_the_anchor_is_counted() -> None:
    knobs = config(depth=1, alpha_rule="disagreement", bridge_width=3)
    mixer, weight = Mixer([bridge()], knobs), weight_of(knobs)
    draft = hashed_row(DRAFT.size, 0)([])
    row = mixer.mix(draft, [hashed_row(ANCHOR.size, 1)([])], weight, position=5)
    assert (row.is_mixed, row.best, mixer.count.steps) == (False, int(draft.argmax()), 1)
    assert row.anchor is not None


# --- how far the start goes


@given(
    st.lists(st.sampled_from(["parts", "agrees", "unsure", "unasked"]), min_size=40, max_size=40),
    st.integers(1, 6),
    st.integers(1, 12),
    st.integers(1, 4),
)
def test_an_adaptive_start_ends_where_the_models_stay_together(
    steps: list[str], depth: int, most: int, agree: int
) -> None:
    prefix = Prefix(config(prefix="adaptive", depth=depth, max_depth=most, agree_for=agree))
    count = 0
    while not count or prefix.goes_on:
        step = steps[count]
        count += 1
        if step == "unasked":
            prefix.note_plain()
        else:
            prefix.note(1, 1 if step == "agrees" else 2, 0.4 if step == "unsure" else 0.6)
    asked = [step for step in steps[:count] if step != "unasked"]
    quiet = len(asked) >= agree and "parts" not in asked[-agree:]
    assert depth <= count <= max(depth, most)
    assert count == max(depth, most) or quiet
    if count > depth:
        before = [step for step in steps[: count - 1] if step != "unasked"]
        assert len(before) < agree or "parts" in before[-agree:], "it would have ended before"


@pytest.mark.parametrize("depth", [1, 6])
def test_a_fixed_start_is_n_tokens_whatever_the_models_do(depth: int) -> None:
    prefix = Prefix(config(depth=depth, max_depth=20))
    for _ in range(depth - 1):
        prefix.note(1, 2, 0.9)
        assert prefix.goes_on
    prefix.note(1, 2, 0.9)
    assert not prefix.goes_on


# --- what of a row counts


def test_what_a_row_leaves_out_is_not_mixed() -> None:
    anchor = hashed_row(ANCHOR.size, 1)([])
    anchor[5:] = -np.inf
    found = Mixer([bridge()], config(bridge_width=50)).mix(hashed_row(DRAFT.size, 0)([]), [anchor])
    assert sorted(found.mixture.tokens.tolist()) == [0, 1, 2, 3, 4]


# --- how much of a row begins a refusal


def test_refusing_mass_is_that_of_refusals_first_tokens() -> None:
    vocabulary = fake_vocabulary("Sorry", " Sorry", "I")
    assert {"Sorry", "I"} <= {
        vocabulary.piece(t).decode("utf-8", "replace") for t in first_tokens(vocabulary)
    }
    assert ord(" ") not in first_tokens(vocabulary)
    logits = np.full(vocabulary.size, -100.0, np.float32)
    logits[vocabulary.encode("Sorry")[0]] = np.log(0.5)
    logits[ord("x")] = np.log(0.5)
    assert refusing_mass(logits, vocabulary) == pytest.approx(0.5)
