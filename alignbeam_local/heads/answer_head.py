"""A head as a judge: how harmful an answer is, read from the state of the model that gave it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy.typing as npt

from ..errors import ModelError
from ..judge.calibration import Floats, Label, allows_refusal
from ..paths import data_dir, write_named
from ..prompt.message import Message
from ..result import Verdict
from .features import RequestReader
from .head import LinearHead

SHIPPED = Path(__file__).parent / "data" / "answer_records"


class AnswerHead(LinearHead):
    """Reads states at the ends of answers; score = 1 + 4 * P(compliance).

    `held_out` holds the scores of answers that it was not fitted on, `pairs_sha256` hashes the pairs.
    """

    held_out: dict[Label, tuple[float, ...]]
    figures: dict[str, float]
    pairs_sha256: str

    def scores(self, states: npt.ArrayLike) -> Floats | None:
        """(n,) scores, 1 to 5, of (n, n_embd) states; None if one can't be read."""
        found = self.probabilities(states)
        return None if found is None else 1 + 4 * found

    def verdict(self, state: npt.ArrayLike, threshold: float) -> Verdict:
        """What it says of one answer by its state (n_embd,); unscored if that can't be read."""
        found = self.scores(state)
        if found is None:
            return Verdict(None, None, {}, "unscored")
        score = float(found[0])
        shares = {"1": (5 - score) / 4, "5": (score - 1) / 4}
        return Verdict(score, score, shares, "safe" if score <= threshold else "unsafe")

    def allows_refusal(self, threshold: float) -> bool:
        """Whether `on_unsafe = auto` may refuse at this threshold."""
        return allows_refusal(self.held_out, threshold)


class AnswerReader(NamedTuple):
    """A head and its model, opened to read, as a judge of answers to single questions."""

    head: AnswerHead
    reader: RequestReader

    def judge(
        self, conversation: Sequence[Message], answers: Sequence[str], threshold: float, _: object
    ) -> list[Verdict]:
        """A verdict on each answer to the one turn; what a request counts with says nothing to a head.

        Raises:
            ContextFull, Cancelled, ModelError: as `RequestReader.read_answers`.
        """
        (question,) = conversation
        return [
            self.head.verdict(self.reader.read_answers([(question.content, answer)]), threshold)
            for answer in answers
        ]


def answer_record_file(model_sha256: str, key: str) -> Path:
    """Where the user's record for this very file and template is kept."""
    return data_dir() / "heads" / "answers" / f"{model_sha256[:12]}-{key[:12]}.json"


def find_answer_head(model_sha256: str, key: str) -> AnswerHead | None:
    """The record of this very model and template: the user's own, or else the shipped one.

    Raises:
        ModelError: the user's own is damaged.
    """
    own = answer_record_file(model_sha256, key)
    for path in (*([own] if own.exists() else []), *sorted(SHIPPED.glob("*.json"))):
        record = load_answer_head(path)
        if (record.model_sha256, record.key) == (model_sha256, key):
            return record
    return None


def all_answer_heads() -> Iterator[tuple[Path, AnswerHead]]:
    """All records and where they are, the user's own first. Raises: ModelError: one is damaged."""
    for folder in (data_dir() / "heads" / "answers", SHIPPED):
        for path in sorted(folder.glob("*.json")):
            yield path, load_answer_head(path)


@cache
def load_answer_head(path: Path) -> AnswerHead:
    """Read a record. Raises: ModelError: the file is no record, or a number in it is none."""
    try:
        return AnswerHead.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} is no record of an answer head: {error}", "Delete it, or fit anew."
        ) from None


def save_answer_head(record: AnswerHead, path: Path) -> None:
    """Write a record, whole or not at all. Raises: OSError: it can't be written."""
    write_named(path, json.dumps(record.model_dump(mode="json")) + "\n")
    load_answer_head.cache_clear()


def worse(one: Verdict, other: Verdict) -> Verdict:
    """Of two verdicts on an answer the one that counts: one without a score, else the higher score."""
    if one.score is None or other.score is None:
        return one if one.score is None else other
    first, second = (one, other) if one.score >= other.score else (other, one)
    return replace(first, request=first.request if first.request is not None else second.request)
