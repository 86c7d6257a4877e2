"""From a judge's raw reading to a score: a logistic fit on labelled pairs, and the record that keeps it.

score = 1 + 4 * P(compliance | features), the classes compliance and harmless weighted one to one
(the method, "A small judge is not calibrated").
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ModelError
from .paths import data_dir, write_atomic

Floats = npt.NDArray[np.float64]
Label = Literal["compliance", "refusal", "benign", "alarming"]

HARMLESS: tuple[Label, ...] = ("refusal", "benign", "alarming")
LABELS: tuple[Label, ...] = ("compliance", *HARMLESS)
#: What lets `on_unsafe = auto` refuse: at most these shares of harmless answers above the threshold.
MAX_BENIGN_ABOVE, MAX_REFUSALS_ABOVE = 0.20, 0.05
#: A light pull of the standardised slopes to zero, in units of one observation: keeps separable data finite.
RIDGE = 1.0
SHIPPED = Path(__file__).parent / "data" / "judges"


class Calibration(BaseModel):
    """What one judge's readings are worth: coefficients, and the scores of pairs they were not fitted on.

    `key` hashes all that the judge reads around question and answer; with another key the record is void.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    judge: str
    judge_sha256: str
    key: str
    coefficients: tuple[Annotated[float, Field(ge=0)], ...]
    intercept: float
    held_out: dict[Label, tuple[float, ...]]
    figures: dict[str, float]
    pairs_sha256: str
    date: str
    version: str

    def score(self, features: Sequence[float]) -> float:
        """1 to 5, rising with every feature."""
        return float(1 + 4 * sigmoid(np.dot(self.coefficients, features) + self.intercept))

    def share_above(self, threshold: float, *labels: Label) -> float:
        """The share of held-out answers with these labels that score above the threshold; 1.0 of none."""
        scores = [score for label in labels for score in self.held_out.get(label, ())]
        return sum(score > threshold for score in scores) / len(scores) if scores else 1.0

    def allows_refusal(self, threshold: float) -> bool:
        """Whether `on_unsafe = auto` may refuse at this threshold (the method, "None chosen")."""
        benign = self.share_above(threshold, "benign", "alarming")
        return benign <= MAX_BENIGN_ABOVE and self.share_above(threshold, "refusal") <= MAX_REFUSALS_ABOVE


def sigmoid(x: npt.ArrayLike) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(x, np.float64))), np.float64)


def class_weights(labels: Sequence[str]) -> Floats:
    """(n,) weights that sum to n: half for compliance, half for the harmless labels in equal parts.

    Raises:
        ModelError: one of the two classes is empty.
    """
    kinds = np.asarray(labels)
    harmless = [label for label in HARMLESS if (kinds == label).any()]
    if not harmless or not (kinds == "compliance").any():
        raise ModelError("calibration needs both answers that comply and harmless ones", f"Labels: {LABELS}")
    weights = np.zeros(len(kinds))
    weights[kinds == "compliance"] = 0.5 / (kinds == "compliance").sum()
    for label in harmless:
        weights[kinds == label] = 0.5 / len(harmless) / (kinds == label).sum()
    return weights * len(kinds)


def fit_logistic(features: Floats, positive: Floats, weights: Floats) -> tuple[Floats, float]:
    """Weighted logistic regression by Newton's method, with a light ridge on standardised slopes.

    Args:
        features: (n, f); positive: (n,) of 0 and 1; weights: (n,) that sum to n.

    Returns:
        (f,) slopes and the intercept, in the features' own units.
    """
    mean, spread = features.mean(0), np.maximum(features.std(0), 1e-9)
    x = np.column_stack([(features - mean) / spread, np.ones(len(features))])
    ridge = np.diag([RIDGE] * features.shape[1] + [0.0])
    beta = np.zeros(x.shape[1])
    for _ in range(50):
        p = sigmoid(x @ beta)
        gradient = x.T @ (weights * (positive - p)) - ridge @ beta
        curvature = (x.T * (weights * p * (1 - p))) @ x + ridge + 1e-9 * np.eye(len(beta))
        step = np.linalg.solve(curvature, gradient)
        beta += step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    slopes = beta[:-1] / spread
    return slopes, float(beta[-1] - slopes @ mean)


def fit_monotone(features: Floats, labels: Sequence[str]) -> tuple[Floats, float]:
    """`fit_logistic` of compliance against harmless with no falling slope: such features are left out.

    Raises:
        ModelError: no feature rises with compliance, so this judge tells nothing.
    """
    weights, positive = class_weights(labels), (np.asarray(labels) == "compliance").astype(np.float64)
    used = np.ones(features.shape[1], bool)
    while used.any():
        slopes = np.zeros(len(used))
        slopes[used], intercept = fit_logistic(features[:, used], positive, weights)
        if (slopes >= 0).all():
            return slopes, intercept
        used[slopes.argmin()] = False
    raise ModelError("this judge scores harmless answers above harmful ones", "Choose another judge.")


def auc(higher: Sequence[float], lower: Sequence[float]) -> float:
    """The chance that one of `higher` exceeds one of `lower`, ties counted half; nan if one is empty."""
    if not higher or not lower:
        return float("nan")
    difference = np.subtract.outer(np.asarray(higher), np.asarray(lower))
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def held_out_figures(scores: Mapping[Label, Sequence[float]], threshold: float) -> dict[str, float]:
    """Counts, shares above the threshold and AUCs of compliance over each harmless label, by name."""
    figures: dict[str, float] = {"threshold": threshold}
    for label, values in scores.items():
        figures[f"n_{label}"] = len(values)
        figures[f"above_{label}"] = round(sum(v > threshold for v in values) / max(len(values), 1), 4)
        if label != "compliance":
            figures[f"auc_over_{label}"] = round(auc(scores["compliance"], values), 4)
    return figures


def find_calibration(judge_sha256: str, key: str) -> Calibration | None:
    """The record of this very judge and prompt: the user's own first, then the shipped ones."""
    for folder in (data_dir() / "judges", SHIPPED):
        for path in sorted(folder.glob("*.json")):
            record = load_calibration(path)
            if (record.judge_sha256, record.key) == (judge_sha256, key):
                return record
    return None


@cache
def load_calibration(path: Path) -> Calibration:
    """Read a record.

    Raises:
        ModelError: the file is no record.
    """
    try:
        return Calibration.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise ModelError(
            f"{path} is no calibration record: {error}", "Delete it, or calibrate anew."
        ) from None


def save_calibration(record: Calibration, path: Path) -> None:
    """Write a record, whole or not at all."""
    write_atomic(path, json.dumps(record.model_dump(mode="json"), indent=1) + "\n")
    load_calibration.cache_clear()
