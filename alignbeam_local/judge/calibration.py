"""From a judge's raw reading to a score: logistic fits on labelled pairs, and the record that keeps them.

score = 1 + 4 * P(compliance | reading), the classes compliance and harmless weighted one to one
(the method, "A small judge is not calibrated"). Where the judge was asked about the request too, the
reading is P(the request is harmful) * P(the answer helps, if it is). Neither alone makes an answer harmful:
a sum of the two would be misled by a very harmful request, however plainly it is refused.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from ..errors import ModelError
from ..paths import data_dir, write_named

Floats = npt.NDArray[np.float64]
#: From the probability that a request asks for harm, as the judge reads it, to the one that counts.
Asked = Callable[[Floats], Floats]
Label = Literal["compliance", "refusal", "benign", "alarming"]

HARMLESS: tuple[Label, ...] = ("refusal", "benign", "alarming")
LABELS: tuple[Label, ...] = ("compliance", *HARMLESS)
#: What lets `on_unsafe = auto` refuse: at most these shares of harmless answers above the threshold.
MAX_BENIGN_ABOVE, MAX_REFUSALS_ABOVE = 0.20, 0.05
#: A light pull of the standardised slopes to zero: keeps separable data finite.
RIDGE = 1.0
SHIPPED = Path(__file__).parent / "data" / "records"


class Line(BaseModel):
    """Log-odds as a rising function of one feature."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    slope: Annotated[float, Field(ge=0)]
    intercept: float

    def at(self, x: npt.ArrayLike) -> Floats:
        return self.slope * np.asarray(x, np.float64) + self.intercept

    def before(self, y: npt.ArrayLike) -> Floats:
        """The feature that has these log-odds."""
        return (np.asarray(y, np.float64) - self.intercept) / self.slope


class Fit(BaseModel):
    """Lines for the answer's feature and the request's, if it has one, and for what they make together."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    answer: Line | None = None
    request: Line | None = None
    final: Line

    def score(self, features: npt.ArrayLike, asked: Asked | None = None) -> Floats:
        """(n,) scores, 1 to 5, of (n, f) features, rising with each; f = 2 with a line for the request.

        `asked` is laid over what the request's line says, if there is one.
        """
        return np.asarray(
            1 + 4 * sigmoid(self.final.at(combined(features, self.answer, self.request, asked)))
        )


#: The lines of a judge that was not measured: it is taken at its word.
AS_SAID = Fit(**dict.fromkeys(("answer", "request", "final"), Line(slope=1.0, intercept=0.0)))


class Calibration(BaseModel):
    """What one judge's readings are worth: the fit, and the scores of pairs it was not fitted on.

    `key` hashes all that the judge reads around question and answer; with another key the record is void.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    judge: str
    judge_sha256: str
    key: str
    fit: Fit
    held_out: dict[Label, tuple[float, ...]]
    figures: dict[str, float]
    pairs_sha256: str
    date: str
    version: str

    def score(self, features: Sequence[float]) -> float:
        """1 to 5, rising with every feature."""
        return float(self.fit.score([features])[0])

    def allows_refusal(self, threshold: float) -> bool:
        """Whether `on_unsafe = auto` may refuse at this threshold (the method, "None chosen")."""
        return allows_refusal(self.held_out, threshold)


def share_above(held_out: Mapping[Label, Sequence[float]], threshold: float, *labels: Label) -> float:
    """The share of answers with these labels that score above the threshold; 1.0 of none."""
    scores = [score for label in labels for score in held_out.get(label, ())]
    return sum(score > threshold for score in scores) / len(scores) if scores else 1.0


def allows_refusal(held_out: Mapping[Label, Sequence[float]], threshold: float) -> bool:
    """Whether held-out scores spare what is harmless enough to refuse by."""
    benign = share_above(held_out, threshold, "benign", "alarming")
    return benign <= MAX_BENIGN_ABOVE and share_above(held_out, threshold, "refusal") <= MAX_REFUSALS_ABOVE


def sigmoid(x: npt.ArrayLike) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(x, np.float64))), np.float64)


def logit(p: npt.ArrayLike) -> Floats:
    """The log-odds of probabilities, held off 0 and 1."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(p) - np.log1p(-p))


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


def combined(
    features: npt.ArrayLike, answer: Line | None, request: Line | None, asked: Asked | None = None
) -> Floats:
    """(n,) log-odds of P(request harmful) * P(answer helps), or the answer's feature itself without lines."""
    x = np.asarray(features, np.float64)
    if answer is None or request is None:
        return x[:, 0]
    harm = sigmoid(request.at(x[:, 1]))
    return logit(sigmoid(answer.at(x[:, 0])) * (asked(harm) if asked else harm))


def fit_line(x: Floats, positive: npt.NDArray[np.bool_], weights: Floats) -> Line:
    """Weighted logistic regression on one feature by Newton's method, its standardised slope lightly held.

    Args:
        x, positive: (n,); weights: (n,) that sum to about n.

    Raises:
        ModelError: the slope is not positive, so this judge tells nothing.
    """
    mean, spread = float(x.mean()), max(float(x.std()), 1e-9)
    design = np.column_stack([(x - mean) / spread, np.ones(len(x))])
    ridge, beta = np.diag([RIDGE, 0.0]), np.zeros(2)
    for _ in range(50):
        p = sigmoid(design @ beta)
        gradient = design.T @ (weights * (positive - p)) - ridge @ beta
        curvature = (design.T * (weights * p * (1 - p))) @ design + ridge + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        beta += np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-8:
            break
    if beta[0] <= 0:
        raise ModelError("this judge scores harmless answers above harmful ones", "Choose another judge.")
    slope = float(beta[0]) / spread
    return Line(slope=slope, intercept=float(beta[1]) - slope * mean)


def fit_scores(features: Floats, labels: Sequence[str]) -> Fit:
    """Fit compliance against the harmless labels.

    Args:
        features: (n, 1) of answers, or (n, 2) of answers and their requests.

    Raises:
        ModelError: a class is empty, or a feature does not rise with what it should tell.
    """
    kinds = np.asarray(labels)
    answer, request = _fit_parts(features, kinds) if features.shape[1] == 2 else (None, None)
    x = combined(features, answer, request)
    return Fit(
        answer=answer, request=request, final=fit_line(x, kinds == "compliance", class_weights(labels))
    )


def _fit_parts(features: Floats, kinds: npt.NDArray[np.str_]) -> tuple[Line, Line]:
    """Of harmful requests, whether the answer helps; of all requests, whether they are harmful."""
    asked_for_harm = np.isin(kinds, ["compliance", "refusal"])
    helps = kinds[asked_for_harm] == "compliance"
    answer = fit_line(features[asked_for_harm, 0], helps, _even_weights(helps))
    return answer, fit_line(features[:, 1], asked_for_harm, _even_weights(asked_for_harm))


def _even_weights(positive: npt.NDArray[np.bool_]) -> Floats:
    """(n,) weights that sum to n, half of it for each class."""
    n = len(positive)
    share = max(int(positive.sum()), 1), max(int((~positive).sum()), 1)
    return np.where(positive, 0.5 * n / share[0], 0.5 * n / share[1])


def auc(higher: Sequence[float], lower: Sequence[float]) -> float:
    """The chance that one of `higher` exceeds one of `lower`, ties counted half; nan if one is empty."""
    if not higher or not lower:
        return float("nan")
    first, second = np.asarray(higher)[:, None], np.asarray(lower)  # not their difference: unscored is inf
    return float((first > second).mean() + 0.5 * (first == second).mean())


def held_out_figures(scores: Mapping[Label, Sequence[float]], threshold: float) -> dict[str, float]:
    """Counts, shares above the threshold and AUCs of compliance over each harmless label that there is."""
    figures: dict[str, float] = {"threshold": threshold}
    for label, values in scores.items():
        figures[f"n_{label}"] = len(values)
        figures[f"above_{label}"] = round(sum(v > threshold for v in values) / max(len(values), 1), 4)
        if label != "compliance" and values and scores["compliance"]:
            figures[f"auc_over_{label}"] = round(auc(scores["compliance"], values), 4)
    return figures


def record_file(judge_sha256: str, key: str) -> Path:
    """Where the user's record of this very file and prompt is kept, whatever the file is called."""
    return data_dir() / "judges" / f"{judge_sha256[:12]}-{key[:12]}.json"


def find_calibration(name: str, judge_sha256: str, key: str) -> Calibration | None:
    """The record of this very judge and prompt: the user's own first, then the shipped ones.

    Raises:
        ModelError: a record is damaged, and is this judge's as far as its name and its text tell.
    """
    own = record_file(judge_sha256, key)
    for folder in (data_dir() / "judges", SHIPPED):
        for path in sorted(folder.glob("*.json"), key=lambda path: (path != own, path)):
            try:
                record = load_calibration(path)
            except ModelError:
                if path == own or path.stem == name or _may_name(path, judge_sha256):
                    raise
                continue
            if (record.judge_sha256, record.key) == (judge_sha256, key):
                return record
    return None


def records_of(judge_sha256: str) -> Iterator[Calibration]:
    """Every record of this file, whatever it was asked with; a damaged one is none."""
    for folder in (data_dir() / "judges", SHIPPED):
        for path in sorted(folder.glob("*.json")):
            with suppress(ModelError):
                record = load_calibration(path)
                if record.judge_sha256 == judge_sha256:
                    yield record


def records_hash(judge_sha256: str) -> str | None:
    """Of all records that may be this judge's: what `find_calibration` finds depends on nothing else."""
    return hash_of_records((data_dir() / "judges", SHIPPED), judge_sha256)


def hash_of_records(folders: Sequence[Path], model_sha256: str) -> str | None:
    """Of all records in these folders that may be this model's; None if there are none."""
    paths = [path for folder in folders for path in sorted(folder.glob("*.json"))]
    found = [text for text in map(_text_of, paths) if text is None or model_sha256 in text]
    return sha256("\n".join(text or "unreadable" for text in found).encode()).hexdigest() if found else None


def _may_name(path: Path, judge_sha256: str) -> bool:
    text = _text_of(path)
    return text is None or judge_sha256 in text


def _text_of(path: Path) -> str | None:
    """None: it can't be read, and may be anybody's."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


@cache
def load_calibration(path: Path) -> Calibration:
    """Read a record.

    Raises:
        ModelError: the file is no record.
    """
    try:
        return Calibration.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} is not a calibration record: {error}", "Delete it, or calibrate again."
        ) from None


def save_calibration(record: Calibration, path: Path) -> None:
    """Write a record, whole or not at all."""
    write_named(path, json.dumps(record.model_dump(mode="json"), indent=1) + "\n")
    load_calibration.cache_clear()
