"""Eq. 1 by hand, and against a slow float64 reference on random distributions."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbeam_local.errors import ModelError
from alignbeam_local.knobs.method import DraftMass, Variant
from alignbeam_local.search.mixing import (
    RULES,
    UNMAPPED,
    Crossing,
    Drop,
    Exact,
    First,
    Mixture,
    TopTokens,
    log_normaliser,
    mix,
    top_tokens,
)


def tops(tokens: list[int], probabilities: list[float]) -> TopTokens:
    return TopTokens(np.array(tokens), np.array(probabilities))


def crossing(single: list[int], first: list[int] | None = None) -> Crossing:
    return Crossing(np.array(single), np.array(first if first is not None else single))


def as_dict(mixture: Mixture) -> dict[int, float]:
    return {int(t): float(p) for t, p in zip(mixture.tokens, mixture.probabilities, strict=True)}


ANCHOR = tops([10, 11, 12], [0.5, 0.3, 0.2])
LANDS = crossing([1, 2, UNMAPPED], [1, 2, 2])  # 12 falls into two draft tokens, of which 2 is the first
DRAFT = np.array([0.1, 0.4, 0.4])  # P_d of 1, 2, 2


def test_eq1_by_hand_drop() -> None:
    mixed = mix(ANCHOR, LANDS, DRAFT, alpha=0.5, rule=Drop(), draft_mass="each")
    # f(1) = .5*.5 + .5*.1 = .30, f(2) = .5*.3 + .5*.4 = .35
    assert as_dict(mixed) == pytest.approx({2: 0.35 / 0.65, 1: 0.30 / 0.65})
    assert mixed.tokens.tolist() == [2, 1]
    assert mixed.covered_mass == pytest.approx(0.8)


def test_eq1_by_hand_first() -> None:
    mixed = mix(ANCHOR, LANDS, DRAFT, alpha=0.5, rule=First(), draft_mass="each")
    # f(2) gains .5*.2 + .5*.4 from token 12's first sub-token
    assert as_dict(mixed) == pytest.approx({2: 0.65 / 0.95, 1: 0.30 / 0.95})
    assert mixed.covered_mass == pytest.approx(0.8), "what crossed is the same under every variant"


def test_eq1_by_hand_once() -> None:
    mixed = mix(ANCHOR, LANDS, DRAFT, alpha=0.5, rule=First(), draft_mass="once")
    # f(2) = .5*(.3 + .2) + .5*.4 = .45
    assert as_dict(mixed) == pytest.approx({2: 0.45 / 0.75, 1: 0.30 / 0.75})


def test_eq1_by_hand_exact() -> None:
    top = tops([3, 1], [0.6, 0.2])
    mixed = mix(ANCHOR, LANDS, DRAFT, alpha=0.5, rule=Exact(), draft_mass="each", draft_top=top)
    # what token 12 held, .5*.2 = .1, goes to the draft's own: .075 to 3, .025 to 1
    assert as_dict(mixed) == pytest.approx({2: 0.35 / 0.75, 1: 0.325 / 0.75, 3: 0.075 / 0.75})


def test_alpha_one_is_the_anchor_on_its_support() -> None:
    mixed = mix(ANCHOR, LANDS, DRAFT, alpha=1, rule=Drop(), draft_mass="each")
    assert as_dict(mixed) == pytest.approx({1: 0.5 / 0.8, 2: 0.3 / 0.8})


def test_alpha_zero_is_the_draft_on_the_anchors_support() -> None:
    mixed = mix(ANCHOR, LANDS, DRAFT, alpha=0, rule=Drop(), draft_mass="each")
    assert as_dict(mixed) == pytest.approx({1: 0.2, 2: 0.8})


def test_nothing_crossed_is_empty() -> None:
    lands = crossing([UNMAPPED] * 3)
    mixed = mix(ANCHOR, lands, DRAFT, alpha=0.5, rule=Drop(), draft_mass="each")
    assert len(mixed.tokens) == 0
    assert mixed.covered_mass == pytest.approx(0)


def reference(
    anchor: TopTokens,
    lands: Crossing,
    draft_row: np.ndarray,
    draft_top: TopTokens,
    *,
    alpha: float,
    variant: Variant,
    draft_mass: DraftMass,
) -> dict[int, float]:
    """Eq. 1 token by token, as the paper writes it."""
    f: dict[int, float] = defaultdict(float)
    seen: set[int] = set()
    unmapped = 0.0
    for slot, p in enumerate(anchor.probabilities):
        did = int(lands.single[slot])
        if did == UNMAPPED:
            unmapped += p
            if variant == "first":
                did = int(lands.first[slot])
        if did == UNMAPPED:
            continue
        f[did] += alpha * p
        if draft_mass == "each" or did not in seen:
            f[did] += (1 - alpha) * draft_row[did]
        seen.add(did)
    if variant == "exact":
        for did, p in zip(draft_top.tokens, draft_top.probabilities, strict=True):
            f[int(did)] += alpha * unmapped * p / draft_top.probabilities.sum()
    total = sum(f.values())
    return {did: p / total for did, p in f.items() if p > 0} if total else {}


@given(
    seed=st.integers(0, 2**32 - 1),
    alpha=st.floats(0, 1),
    variant=st.sampled_from(["drop", "first", "exact"]),
    draft_mass=st.sampled_from(["each", "once"]),
    width=st.integers(1, 40),
)
def test_mix_equals_the_slow_reference(
    seed: int, alpha: float, variant: Variant, draft_mass: DraftMass, width: int
) -> None:
    rng = np.random.default_rng(seed)
    row_s = rng.normal(0, 4, 120).astype(np.float32)
    row_d = rng.normal(0, 4, 90).astype(np.float32)
    anchor = top_tokens(row_s, width, log_normaliser(row_s))
    normaliser = log_normaliser(row_d)
    draft_row = np.exp(row_d.astype(np.float64) - normaliser)
    first = rng.integers(-1, 90, 120)
    single = np.where(rng.random(120) < 0.7, first, UNMAPPED)
    lands = Crossing(single[anchor.tokens], first[anchor.tokens])
    targets = lands.first if variant == "first" else lands.single
    draft_top = top_tokens(row_d, width, normaliser)
    mixed = mix(
        anchor,
        lands,
        draft_row[targets],
        alpha=alpha,
        rule=RULES[variant],
        draft_mass=draft_mass,
        draft_top=draft_top,
    )
    expected = reference(
        anchor, lands, draft_row, draft_top, alpha=alpha, variant=variant, draft_mass=draft_mass
    )
    assert as_dict(mixed) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert (np.diff(mixed.probabilities) <= 0).all()


@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(1, 60),
    size=st.integers(1, 3000),
    levels=st.sampled_from([1, 2, 12, 10**6]),
)
def test_top_tokens_equal_a_full_sort_and_softmax(seed: int, width: int, size: int, levels: int) -> None:
    row = np.random.default_rng(seed).integers(0, levels, size).astype(np.float32) * (12 / levels)
    exact = np.exp(row.astype(np.float64))
    top = top_tokens(row, width, log_normaliser(row))
    assert top.tokens.tolist() == sorted(range(size), key=lambda token: (-row[token], token))[:width]
    assert top.probabilities == pytest.approx((exact / exact.sum())[top.tokens], rel=1e-5)


@pytest.mark.parametrize("size", [1, 1000, 1 << 15, 152_064])
def test_the_normaliser_equals_one_in_double_precision(size: int) -> None:
    row = np.random.default_rng(size).normal(0, 4, size).astype(np.float32) + 200
    assert log_normaliser(row) == pytest.approx(np.logaddexp.reduce(row.astype(np.float64)), abs=1e-6)


def test_broken_logits_are_an_error_not_a_choice() -> None:
    with pytest.raises(ModelError):
        log_normaliser(np.array([0.0, np.nan], np.float32))
