"""Kept verdicts as they would be, had another reading of the request counted in their scores."""

from collections.abc import Mapping, Sequence
from math import isclose, log
from typing import Any

from ...config import Config
from ...errors import UsageError
from ...judge.calibration import AS_SAID, Asked, Fit, logit, records_of, sigmoid
from ...knobs.steering import RequestBy
from ...search.steering import asked_by
from .run_directory import Json

#: As near as a kept score comes to itself by way of the probabilities that are kept with it.
_NEAR = 0.002
_SMALLEST = 1e-16


def scored_anew(result: Json, by: RequestBy) -> Json:
    """A sample's result with scores that go by this reading of the request; what they come to stays.

    Those of judges that are not asked about requests stay too. Of a request in windows it is the reading of
    the window that was the worst when the sample was made.

    Raises:
        UsageError: an answer head voted too, or the record that the judge was calibrated with is not here.
    """
    knobs, head = result["config"], _head_of(result)
    kept = kept_config(knobs).scored_by
    was, now = asked_by(kept, head), asked_by(by, head)
    verdicts = [beam["judge"] for beam in result["beams"] if _is_of_two_questions(beam["judge"])]
    if kept == by or (was is None and now is None) or not verdicts:
        return result
    if knobs.get("head_votes"):
        raise UsageError(
            "the run was judged by a judge and an answer head, whose scores are not told apart",
            "Run it with --head-votes off.",
        )
    fit = _fit_of(verdicts, result["models"]["judge"]["sha256"], was)
    beams = [{**beam, "judge": _anew(beam["judge"], fit, now)} for beam in result["beams"]]
    return {**result, "beams": beams, "config": {**knobs, "score_by": by}}


def kept_config(knobs: Mapping[str, Any]) -> Config:
    """The knobs that a run holds; in older ones the judge's own reading was all that scores went by."""
    known = {knob: knobs[knob] for knob in Config.model_fields if knob in knobs}
    return Config.of({"score_by": "judge"} | known)


def _head_of(result: Json) -> float | None:
    read = result.get("steering")
    return None if read is None or read.get("partial") else read["p"]


def _is_of_two_questions(verdict: Json | None) -> bool:
    return verdict is not None and verdict["score"] is not None and verdict.get("request") is not None


def _fit_of(verdicts: Sequence[Json], sha256: str, was: Asked | None) -> Fit:
    """The lines that made all of these scores. Raises: UsageError: they are not here."""
    for fit in (*(record.fit for record in records_of(sha256)), AS_SAID):
        scores = [(_score(one, fit, was), one["score"]) for one in verdicts] if fit.request else []
        if scores and all(isclose(*each, abs_tol=_NEAR) for each in scores):
            return fit
    raise UsageError(
        "the record that this run's judge was calibrated with is not here", "Judge again: --judge MODEL."
    )


def _anew(verdict: Json, fit: Fit, now: Asked | None) -> Json:
    return {**verdict, "score": _score(verdict, fit, now)} if _is_of_two_questions(verdict) else verdict


def _score(verdict: Json, fit: Fit, asked: Asked | None) -> float:
    """Of what a judge asked two questions said of answer and request, calibrated so."""
    assert fit.request is not None
    p = min(max(verdict["request"], _SMALLEST), 1 - _SMALLEST)
    request = fit.request.before(log(p / (1 - p)))
    helps = verdict["probabilities"].get("5", 0.0) / sigmoid(request)
    return float(fit.score([(float(logit(helps)), float(request))], asked)[0])
