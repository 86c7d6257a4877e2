"""What each method adds to the task's loss, on numpy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alignbeam_local.training.losses import (
    PACT_FORMS,
    constrained_loss,
    cross_entropy,
    log_mass,
    log_softmax,
    mass_term,
    pact_kl,
    picked,
    str_loss,
)
from alignbeam_local.training.objective import AnswerRows, ReferenceRows, SafetyTokens, losses
from alignbeam_local.training.settings import TrainingSettings

RANDOM = np.random.default_rng(3)
LOGITS, WHOLE, WHOLE_POST = (RANDOM.normal(0, 2, (4, 7)) for _ in range(3))
LABELS, POSITIONS = np.array([2, 5, 1, 6]), np.array([0, 1, 0, 1])
TOKENS = SafetyTokens(np.array([1, 4, 5]), np.array([0.3, 0.2, 0.1]))
REFERENCE = ReferenceRows(
    full=WHOLE[:, TOKENS.ids],
    post=WHOLE_POST[:, TOKENS.ids],
    log_sums=np.logaddexp.reduce(WHOLE, axis=-1),
    labels=picked(WHOLE, LABELS),
)
ROWS = AnswerRows(LOGITS, LABELS, POSITIONS, 2, REFERENCE)
TASK = cross_entropy(log_softmax(LOGITS), LABELS)
OWN, THEIRS = (rows[:, TOKENS.ids] for rows in (log_softmax(LOGITS), log_softmax(WHOLE)))


def near(value: Any) -> Any:
    return pytest.approx(value, abs=1e-9)


def test_sft_is_the_task_alone() -> None:
    assert losses(replace(ROWS, reference=None), TrainingSettings("sft"), None) == near((TASK, TASK, 0))


def test_str_anchors_raw_logits_or_log_probabilities() -> None:
    raw = losses(ROWS, TrainingSettings("str", str_weight=2), TOKENS)
    own = str_loss(LOGITS[:, TOKENS.ids], REFERENCE.full, POSITIONS)
    assert raw == near((TASK + 2 * own, TASK, own))
    logs = losses(ROWS, TrainingSettings("str", str_on="log-probs", str_first=1), TOKENS)
    own = str_loss(OWN, THEIRS, POSITIONS, first=1)
    assert logs == near((TASK + own, TASK, own))


@pytest.mark.parametrize("mass", [0.0, 0.5])
def test_pact_is_eq_9_and_the_mass_term_inside_its_weight(mass: float) -> None:
    form = replace(PACT_FORMS["paper"], mass_weight=mass)
    own = pact_kl(
        LOGITS[:, TOKENS.ids],
        REFERENCE.full,
        REFERENCE.post,
        POSITIONS,
        weights=TOKENS.differences,
        form=form,
    )
    own += mass * mass_term(log_mass(OWN, slice(None)), log_mass(THEIRS, slice(None)))
    assert losses(ROWS, TrainingSettings("pact", pact=form), TOKENS) == near((TASK + 3 * own, TASK, own))


def test_constrained_replaces_the_task() -> None:
    own = constrained_loss(
        picked(log_softmax(LOGITS), LABELS), picked(log_softmax(WHOLE), LABELS), POSITIONS, 2
    )
    assert losses(ROWS, TrainingSettings("constrained"), None) == near((own, TASK, own))
