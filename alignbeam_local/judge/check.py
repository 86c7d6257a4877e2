"""How well a judge tells harmful answers from harmless ones: measured on labelled pairs, and calibrated."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import __version__
from ..errors import ModelError, UsageError
from ..intervals import auc_interval, wilson_interval
from ..prompt.message import Message
from ..reading import read_text
from ..result import ModelCard
from ..result_json import parsed_row
from .calibration import HARMLESS, LABELS, Calibration, Label, auc, fit_scores, held_out_figures
from .formats import JudgeReading
from .judge import Judge, score_of

_PAIR_HINT = f"Each line: question, answer, label ({', '.join(LABELS)}), and split if you calibrate."
PAIRS_FILE = Path(__file__).parent / "data" / "pairs.jsonl"


class Pair(BaseModel):
    """A question, an answer, and what a person calls it."""

    model_config = ConfigDict(frozen=True)

    question: str
    answer: str
    label: Label
    split: Literal["fit", "held_out"] | None = None


@dataclass(frozen=True)
class Measured:
    """A pair and what the judge said of it."""

    pair: Pair
    reading: JudgeReading


class LabelRow(BaseModel):
    """How one label fared; an unscored answer counts as above the threshold."""

    label: Label
    n: Annotated[int, Field(ge=1)]
    unscored: int
    raw_above: float
    above: Annotated[float, Field(ge=0, le=1)]
    low: float
    high: float


class Auc(BaseModel):
    """The chance that compliance scores above this label, with its 95 % interval."""

    over: Label
    raw: float
    calibrated: float
    low: float
    high: float


class JudgeReport(BaseModel):
    """What `alignbeam judge check` tells."""

    judge: str
    calibrated: bool
    threshold: float
    rows: list[LabelRow]
    aucs: list[Auc]


def read_pairs(path: Path) -> list[Pair]:
    """Labelled pairs, one JSON object a line.

    Raises:
        UsageError: the file can't be read, or holds none, or a line is no pair.
    """
    lines = read_text(path, "Give a UTF-8 file with a pair a line.").split("\n")
    found = [_pair(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise UsageError(f"{path} holds no pair", _PAIR_HINT)
    return found


def _pair(path: Path, number: int, line: str) -> Pair:
    place = f"{path}, line {number}"
    try:
        return Pair.model_validate(parsed_row(line))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{place}: {where} {first['msg'].lower()}".replace("  ", " "), _PAIR_HINT) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: not JSON: {error}", _PAIR_HINT) from None


def held_out(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs that no calibration is fitted on."""
    return [pair for pair in pairs if pair.split == "held_out"]


def require_apart(what: str, splits: Iterable[tuple[str | None, str]]) -> None:
    """Raises: UsageError: something is in split `fit` and in `held_out`; `what` each of these is."""
    found = set(splits)
    if both := sorted(name for split, name in found if split == "fit" and ("held_out", name) in found):
        raise UsageError(
            f"a {what} is in both splits, and figures of what was fitted on flatter: {both[0][:60]}",
            f"Put all that is about a {what} into one split.",
        )


def require_splits(pairs: Iterable[Pair]) -> None:
    """Raises: UsageError: nothing to fit a calibration on, or nothing to judge the fit by, or the same."""
    pairs = list(pairs)
    require_apart("question", ((pair.split, pair.question) for pair in pairs))
    found = {(pair.split, pair.label == "compliance") for pair in pairs}
    for split in ("fit", "held_out"):
        if not {(split, True), (split, False)} <= found:
            raise UsageError(
                f"calibration needs pairs of split '{split}', of label compliance and of another one",
                f"Labels: {', '.join(LABELS)}.",
            )


def measure(judge: Judge, pairs: Sequence[Pair]) -> Iterator[Measured]:
    """Ask the judge about each pair; pairs of one question go together. Not in the order given.

    As answers are judged, but for those to fit by: what a reading is worth is fitted on whole answers.
    """
    for (question, split), group in groupby(sorted(pairs, key=_asked_as), key=_asked_as):
        together = list(group)
        turns, answers = [Message("user", question)], [pair.answer for pair in together]
        readings = judge.readings(turns, answers, in_parts=split != "fit")
        yield from map(Measured, together, readings)


def _asked_as(pair: Pair) -> tuple[str, str]:
    return pair.question, pair.split or ""


def calibrate(measured: Sequence[Measured], key: str, card: ModelCard, threshold: float) -> Calibration:
    """Fit on the pairs of split `fit`, judge the fit by those of split `held_out`; `key` is the judge's.

    Raises:
        UsageError: as `require_splits`.
        ModelError: the judge could not score, or does not tell the classes apart.
    """
    require_splits(m.pair for m in measured)
    fit, rest = ([m for m in measured if m.pair.split == split] for split in ("fit", "held_out"))
    if any(not m.reading.is_scored for m in measured):
        raise ModelError("the judge could not score every pair", "See: alignbeam judge check")
    features = np.array([m.reading.features for m in fit]).reshape(len(fit), -1)
    draft = Calibration(
        judge=card.name,
        judge_sha256=card.sha256,
        key=key,
        fit=fit_scores(features, [m.pair.label for m in fit]),
        held_out={},
        figures={},
        pairs_sha256=pairs_hash(m.pair for m in measured),
        date=date.today().isoformat(),
        version=__version__,
    )
    scores = {
        label: tuple(round(draft.score(m.reading.features), 3) for m in rest if m.pair.label == label)
        for label in LABELS
    }
    return draft.model_copy(update={"held_out": scores, "figures": held_out_figures(scores, threshold)})


def report(
    measured: Sequence[Measured], record: Calibration | None, name: str, threshold: float
) -> JudgeReport:
    """Shares above the threshold and AUCs, per label that occurs."""
    raw = _by_label(measured, lambda reading: reading.raw)
    scores = _by_label(measured, lambda reading: score_of(reading, record))
    found = [label for label in LABELS if label in scores]
    harmless = [label for label in HARMLESS if label in scores and "compliance" in scores]
    return JudgeReport(
        judge=name,
        calibrated=record is not None,
        threshold=threshold,
        rows=[_row(label, raw[label], scores[label], threshold) for label in found],
        aucs=[_auc(label, raw, scores) for label in harmless],
    )


def _by_label(
    measured: Sequence[Measured], score: Callable[[JudgeReading], float]
) -> dict[Label, list[float]]:
    """Scores by label, infinite where the judge could not tell."""
    found: dict[Label, list[float]] = {}
    for m in measured:
        value = score(m.reading) if m.reading.is_scored else float("inf")
        found.setdefault(m.pair.label, []).append(value)
    return found


def _row(label: Label, raw: Sequence[float], scores: Sequence[float], threshold: float) -> LabelRow:
    above = sum(score > threshold for score in scores)
    low, high = wilson_interval(above, len(scores))
    return LabelRow(
        label=label,
        n=len(scores),
        unscored=sum(np.isinf(scores)),
        raw_above=sum(score > threshold for score in raw) / len(raw),
        above=above / len(scores),
        low=low,
        high=high,
    )


def _auc(label: Label, raw: dict[Label, list[float]], scores: dict[Label, list[float]]) -> Auc:
    value = auc(scores["compliance"], scores[label])
    low, high = auc_interval(value, len(scores["compliance"]), len(scores[label]))
    return Auc(over=label, raw=auc(raw["compliance"], raw[label]), calibrated=value, low=low, high=high)


def pairs_hash(pairs: Iterable[Pair]) -> str:
    """Of what a record was fitted on, whatever the order."""
    lines = sorted(pair.model_dump_json() for pair in pairs)
    return sha256("\n".join(lines).encode()).hexdigest()
