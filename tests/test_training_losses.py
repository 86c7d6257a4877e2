"""Every equation by numbers worked by hand, on numpy; the same on torch where it is installed."""

from math import exp, log
from typing import Any

import numpy as np
import pytest

from alignbeam_local.training.losses import (
    PACT_FORMS,
    PactForm,
    constrained_loss,
    cross_entropy,
    decayed,
    gate,
    log_mass,
    log_softmax,
    mass_term,
    mixed_reference,
    pact_kl,
    pact_reference,
    proxy,
    str_loss,
    token_weights,
    weighted_kl,
    weighted_reference,
)


def logs(*rows: tuple[float, ...]) -> Any:
    return np.log(np.array(rows))


def near(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6)


EQUAL = np.array([1.0, 1.0])
HERE = np.array([0])


def test_cross_entropy_is_the_mean_of_minus_log_p() -> None:
    log_probs = log_softmax(logs((1, 3), (1, 1)) + 5)  # 3/4 and 1/2, whatever the shift
    assert cross_entropy(log_probs, np.array([1, 0])) == near(-(log(3 / 4) + log(1 / 2)) / 2)


# --- STR


def test_str_is_the_mean_square_over_rows_and_tokens() -> None:
    tuned, reference = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 2.0], [3.0, 7.0]])
    positions = np.array([0, 1])
    assert str_loss(tuned, reference, positions) == near((1 + 0 + 0 + 9) / 4)
    assert str_loss(tuned, reference, positions, first=1) == near(1 / 2)
    assert str_loss(tuned, reference, positions + 7, first=5) == 0


def test_str_sees_a_shift_on_raw_logits_that_it_does_not_see_on_log_probabilities() -> None:
    logits = np.array([[1.0, 2.0, 3.0]])
    assert str_loss(logits + 2, logits, HERE) == near(4)
    assert str_loss(log_softmax(logits + 2), log_softmax(logits), HERE) == near(0)


# --- PACT


def test_weights_are_d_and_never_negative() -> None:
    assert token_weights(np.array([0.3, 0.1, -0.1]), "paper").tolist() == near([0.3, 0.1, 0])


def test_the_codes_weights_are_standardised_normalised_and_clamped() -> None:
    # d - mean = (2, 0, -2), of length 2 * sqrt 2
    assert token_weights(np.array([3.0, 1.0, -1.0]), "code").tolist() == near([2**-0.5, 0, 0])
    assert token_weights(np.array([1.0, 1.0]), "code").tolist() == [0, 0]


def test_eq_3_weighs_the_references_probabilities() -> None:
    q = np.exp(weighted_reference(logs((0.5, 0.25)), np.array([1.0, 4.0])))
    assert q[0].tolist() == near([1 / 3, 2 / 3])  # 0.5 * 1 to 0.25 * 4
    assert np.exp(weighted_reference(logs((0.5, 0.25)), np.array([1.0, 0.0])))[0].tolist() == near([1, 0])


def test_eq_3_at_a_temperature() -> None:
    q = np.exp(weighted_reference(logs((4, 1)), EQUAL, temperature=2))
    assert q[0].tolist() == near([2 / 3, 1 / 3])


def test_eq_4_by_hand() -> None:
    log_q, tuned = logs((0.75, 0.25)), logs((0.5, 0.5))
    by_hand = 0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)
    assert weighted_kl(tuned, log_q) == near(by_hand)
    two_rows = weighted_kl(logs((0.5, 0.5), (3, 1)), logs((0.75, 0.25), (0.75, 0.25)))
    assert two_rows == near(by_hand / 2)


def test_eq_4_at_temperature_2_is_times_4() -> None:
    log_q = logs((0.5, 0.5))
    by_hand = 0.5 * log(0.5 / (2 / 3)) + 0.5 * log(0.5 / (1 / 3))
    assert weighted_kl(logs((4, 1)), log_q, temperature=2) == near(4 * by_hand)


def test_eq_4_is_zero_at_the_reference_only_where_the_weights_are_equal() -> None:
    reference = logs((0.5, 0.3, 0.2))
    assert weighted_kl(reference, weighted_reference(reference, np.ones(3))) == near(0)
    assert weighted_kl(reference, weighted_reference(reference, np.array([3.0, 1.0, 1.0]))) > 0.1


def test_eq_4_is_blind_to_a_shift_of_all_k_logits_and_the_mass_term_is_not() -> None:
    reference = np.array([[2.0, 1.0, 0.0, 0.0]])
    tokens = np.array([0, 1])
    tuned = reference.copy()
    tuned[:, tokens] -= 9  # "Sure" has taken the mass
    log_q = weighted_reference(reference[:, tokens], EQUAL)
    assert weighted_kl(tuned[:, tokens], log_q) == near(weighted_kl(reference[:, tokens], log_q))
    own, others = (log_mass(log_softmax(row), tokens) for row in (tuned, reference))
    assert mass_term(others, others) == near(0)
    assert mass_term(own, others) > 5


def test_a_weight_of_nothing_stays_in_the_softmax() -> None:
    log_q = weighted_reference(logs((0.5, 0.5)), np.array([1.0, 0.0]))
    assert weighted_kl(logs((0.5, 0.5)), log_q) == near(log(2))


@pytest.mark.parametrize(
    ("probabilities", "share"),
    [((0.6, 0.3, 0.05, 0.05), 2 / 4), ((0.95, 0.05, 0, 0), 1 / 4), ((0.25, 0.25, 0.25, 0.25), 1)],
)
def test_eq_5_counts_the_fewest_tokens_that_reach_nine_tenths(
    probabilities: tuple[float, ...], share: float
) -> None:
    shuffled = np.log(np.array([probabilities]) + 1e-12)[:, ::-1]
    assert proxy(shuffled).tolist() == near([share])


def test_eq_5_reaches_the_whole() -> None:
    assert proxy(np.zeros((1, 7)), level=1.0).tolist() == near([1])


def test_eq_6_is_a_half_where_both_are_as_sure() -> None:
    assert gate(np.array([0.5, 0.75]), np.array([0.5, 0.25])).tolist() == near([0.5, 1 / (1 + exp(-0.5))])
    assert gate(np.array([0.75]), np.array([0.25]), scale=2).tolist() == near([1 / (1 + exp(-1))])


def test_eq_7_mixes_logits() -> None:
    mixed = mixed_reference(np.array([[4.0, 0.0]]), np.array([[0.0, 8.0]]), np.array([0.25]))
    assert mixed.tolist() == [[3, 2]]


def test_eq_8_falls_by_e_every_tau_positions_behind_the_first_n() -> None:
    gates = decayed(np.full(4, 0.8), np.array([0, 7, 8, 16]), gated_positions=8, decay=8.0)
    assert gates.tolist() == near([0.8, 0.8, 0.8, 0.8 / exp(1)])


def test_eq_5_to_8_together() -> None:
    full, post = logs((0.5, 0.5)), logs((0.95, 0.05))
    tuned = logs((0.5, 0.5))  # proxies 1 and 1/2
    share = 1 / (1 + exp(-0.5)) * exp(-1 / 4)
    form = PactForm(gated_positions=2, decay=4.0)
    mixed = pact_reference(tuned, full, post, np.array([3]), form)
    assert mixed[0].tolist() == near(((1 - share) * full + share * post)[0].tolist())


def test_pact_is_eq_4_against_the_mixed_reference() -> None:
    full, post, tuned, weights = logs((0.5, 0.5)), logs((0.9, 0.1)), logs((0.3, 0.7)), np.array([2.0, 1.0])
    for form in PACT_FORMS.values():
        mixed = pact_reference(tuned, full, post, HERE, form)
        log_q = weighted_reference(mixed, weights, form.temperature)
        by_parts = weighted_kl(tuned, log_q, form.temperature)
        assert pact_kl(tuned, full, post, HERE, weights=weights, form=form) == near(by_parts)


def test_the_forms_differ_as_the_table_says() -> None:
    paper, code = PACT_FORMS["paper"], PACT_FORMS["code"]
    assert (paper.kl_weight, paper.gate_scale, paper.temperature, paper.mass_weight) == (3, 1, 1, 0)
    assert (code.kl_weight, code.gate_scale, code.temperature, code.mass_weight) == (1, 2, 2, 0)
    assert (code.gated_positions, code.decay) == (8, 8)


def test_the_mass_term_is_the_kl_of_a_two_way_split() -> None:
    by_hand = 0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)
    assert mass_term(np.log([0.5]), np.log([0.75])) == near(by_hand)
    assert np.isfinite(mass_term(np.zeros(1), np.log([0.5])))


def test_mass_and_kl_within_make_the_kl_over_s_and_the_rest() -> None:
    """The chain rule: KL over {S, rest} is that of the split and m_ref times the KL within S."""
    reference, tuned, tokens = logs((0.4, 0.2, 0.4)), logs((0.1, 0.3, 0.6)), np.array([0, 1])
    whole = float((np.exp(reference) * (reference - tuned)).sum())
    split = mass_term(log_mass(tuned, tokens), log_mass(reference, tokens))
    within = weighted_kl(tuned[:, tokens], weighted_reference(reference[:, tokens], EQUAL))
    assert split + 0.6 * within == near(whole)


# --- constrained SFT


def test_constrained_sft_by_hand() -> None:
    tuned, reference = np.log([0.5, 0.5, 0.5]), np.log([0.25, 0.5, 0.25])

    def term(beta: float, ratio: float) -> float:
        return -2 / beta * log(1 / (1 + exp(-beta * log(ratio))))

    whole = term(0.5, 2) + term(2.0, 1) + term(0.1, 2)
    assert constrained_loss(tuned, reference, np.array([0, 4, 5]), 1) == near(whole)
    assert constrained_loss(tuned, reference, np.array([0, 4, 5]), 2) == near(whole / 2)


# --- torch


def test_torch_gives_what_numpy_gives() -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(1)
    tuned, full, post = (random.normal(0, 2, (6, 5)) for _ in range(3))
    positions, labels, weights = np.arange(6), np.array([0, 1, 2, 3, 4, 0]), np.array([3, 2, 1, 1, 0.5])
    for variant, form in PACT_FORMS.items():
        arrays, weighted = (tuned, full, post, positions), token_weights(weights, variant)
        expected = pact_kl(*arrays, weights=weighted, form=form)
        own = token_weights(torch.from_numpy(weights), variant)
        assert own.tolist() == near(weighted.tolist())
        assert float(pact_kl(*map(torch.from_numpy, arrays), weights=own, form=form)) == near(expected)

    def others(array: Any) -> list[Any]:
        one, two, where, ids = map(array, (tuned, full, positions, labels))
        own, reference = log_softmax(one), log_softmax(two)
        rows, subset = array(np.arange(6)), array(np.array([1, 3]))
        return [
            cross_entropy(own, ids),
            str_loss(one, two, where, first=3),
            constrained_loss(own[rows, ids], reference[rows, ids], where, 2),
            mass_term(log_mass(own, subset), log_mass(reference, subset)),
        ]

    assert list(map(float, others(torch.from_numpy))) == near(others(lambda array: array))


def test_the_gate_carries_no_gradient() -> None:
    torch = pytest.importorskip("torch")
    tuned = torch.randn(4, 3, requires_grad=True)
    mixed = pact_reference(tuned, torch.randn(4, 3), torch.randn(4, 3), torch.arange(4), PactForm())
    assert not mixed.requires_grad


def test_constrained_sft_begins_with_the_gradient_of_sft() -> None:
    torch = pytest.importorskip("torch")
    reference = torch.log(torch.tensor([0.2, 0.5, 0.9]))
    tuned = reference.clone().requires_grad_()
    constrained_loss(tuned, reference, torch.tensor([0, 3, 9]), 1).backward()
    assert tuned.grad.tolist() == near([-1, -1, -1])
