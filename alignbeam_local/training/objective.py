"""What each method minimises on the rows of a batch: the task's loss and the method's own term."""

from dataclasses import dataclass
from typing import NamedTuple

from .losses import (
    Array,
    constrained_loss,
    cross_entropy,
    log_mass,
    log_softmax,
    mass_term,
    pact_kl,
    picked,
    str_loss,
    token_weights,
)
from .settings import TrainingSettings


@dataclass(frozen=True)
class ReferenceRows:
    """The model without its adapter at the same T positions.

    Attributes:
        full: (T, K) logits of S behind the conversation.
        post: the same behind the answer so far alone, without the question; None where no method asks.
        log_sums: (T,) logs of the sum of exponentials over the vocabulary.
        labels: (T,) logits of the labels.
    """

    full: Array
    post: Array | None
    log_sums: Array
    labels: Array


@dataclass(frozen=True)
class AnswerRows:
    """The positions of a batch's answers.

    Attributes:
        logits: (T, vocabulary) of the model in training.
        labels: (T,) ids.
        positions: (T,) places in the answer, from 0.
        num_answers: how many answers they are of.
        reference: None where the method has none.
    """

    logits: Array
    labels: Array
    positions: Array
    num_answers: int
    reference: ReferenceRows | None


class SafetyTokens(NamedTuple):
    """S as arrays: (K,) ids, and (K,) values d(v)."""

    ids: Array
    differences: Array


class Losses(NamedTuple):
    """What is minimised, the cross-entropy of it, and the method's own term before its weight."""

    total: Array
    task: Array
    own: Array


def losses(rows: AnswerRows, settings: TrainingSettings, tokens: SafetyTokens | None) -> Losses:
    """The losses of a batch by its method."""
    log_probs = log_softmax(rows.logits)
    task = cross_entropy(log_probs, rows.labels)
    if settings.method == "sft":
        return Losses(task, task, 0 * task)
    if settings.method == "constrained":
        total = _constrained(rows, log_probs)
        return Losses(total, task, total)
    assert tokens is not None
    own = (_str if settings.method == "str" else _pact)(rows, log_probs, settings, tokens)
    weight = settings.str_weight if settings.method == "str" else settings.pact.kl_weight
    return Losses(task + weight * own, task, own)


def _constrained(rows: AnswerRows, log_probs: Array) -> Array:
    reference = _reference(rows)
    label_logs = reference.labels - reference.log_sums
    return constrained_loss(picked(log_probs, rows.labels), label_logs, rows.positions, rows.num_answers)


def _str(rows: AnswerRows, log_probs: Array, settings: TrainingSettings, tokens: SafetyTokens) -> Array:
    reference = _reference(rows)
    if settings.str_on == "logits":
        tuned, fixed = rows.logits[:, tokens.ids], reference.full
    else:
        tuned, fixed = log_probs[:, tokens.ids], reference.full - reference.log_sums[:, None]
    return str_loss(tuned, fixed, rows.positions, settings.str_first)


def _pact(rows: AnswerRows, log_probs: Array, settings: TrainingSettings, tokens: SafetyTokens) -> Array:
    reference, form = _reference(rows), settings.pact
    assert reference.post is not None
    weights = token_weights(tokens.differences, settings.variant)
    tuned = rows.logits[:, tokens.ids]
    own = pact_kl(tuned, reference.full, reference.post, rows.positions, weights=weights, form=form)
    if form.mass_weight:
        fixed = log_mass(reference.full - reference.log_sums[:, None], slice(None))
        own = own + form.mass_weight * mass_term(log_mass(log_probs, tokens.ids), fixed)
    return own


def _reference(rows: AnswerRows) -> ReferenceRows:
    assert rows.reference is not None, "the method has a reference"
    return rows.reference
