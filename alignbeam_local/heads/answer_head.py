"""A head as a judge: how harmful an answer is, read from the state of the model that gave it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy.typing as npt

from ..errors import ModelError
from ..judge.calibration import Calibration, Floats, Label, allows_refusal
from ..prompt.message import Message
from ..result import Verdict
from .features import RequestReader
from .head import LinearHead
from .head_store import HeadStore


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


#: What is known of who judges: a judge's scores, or the draft's answer head.
JudgeRecord = Calibration | AnswerHead


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


ANSWER_HEADS = HeadStore(
    AnswerHead, "heads/answers", Path(__file__).parent / "data" / "answer_records", "an answer head"
)


def no_answer_head(draft: str) -> ModelError:
    """The error where a draft is to judge its answers and has no head for it."""
    return ModelError(
        f"there is no answer head for {draft} to judge with",
        f"Fit one: alignbeam heads fit {draft} --answers. Or name a judge alone: --judge MODEL.",
    )


def worse(one: Verdict, other: Verdict) -> Verdict:
    """Of two verdicts on an answer the one that counts: one without a score, else the higher score."""
    if one.score is None or other.score is None:
        return one if one.score is None else other
    first, second = (one, other) if one.score >= other.score else (other, one)
    return replace(first, request=first.request if first.request is not None else second.request)
