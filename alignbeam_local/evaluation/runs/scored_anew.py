"""Kept verdicts as they would be, had another reading of the request counted in their scores."""

from collections.abc import Mapping, Sequence
from math import isclose
from typing import Any

from ...config import Config, RequestBy
from ...errors import UsageError
from ...judge.calibration import AS_SAID, Asked, Fit, logit, records_of, sigmoid
from ...search.steering import asked_by
from .run_directory import Json

#: As near as a kept score comes to itself by way of the probabilities that are kept with it.
_NEAR = 1e-6


def scored_by(result: Json, by: RequestBy) -> Json:
    """A sample's result with scores that go by this reading of the request.

    Those of judges that are not asked about requests stay as they are, and all verdicts.

    Raises:
        UsageError: an answer head voted too, or the record that the judge was calibrated with is not here.
    """
    knobs, read = result["config"], result.get("steering")
    kept, head = kept_config(knobs).scored_by, read["p"] if read else None
    was, now = asked_by(kept, head), asked_by(by, head)
    if kept == by or (was is None and now is None):
        return result
    if knobs.get("head_votes"):
        raise UsageError(
            "the run was judged by a judge and an answer head, whose scores are not told apart",
            "Run it with --head-votes off.",
        )
    judge = result["models"].get("judge")
    fits = [*(record.fit for record in records_of(judge["sha256"])), AS_SAID] if judge else []
    beams = [{**beam, "judge": _anew(beam["judge"], fits, was, now)} for beam in result["beams"]]
    return {**result, "beams": beams, "config": {**knobs, "score_by": by}}


def kept_config(knobs: Mapping[str, Any]) -> Config:
    """The knobs that a run holds; in older ones the judge's own reading was all that scores went by."""
    return Config.of(
        {"score_by": "judge"} | {knob: knobs[knob] for knob in Config.model_fields if knob in knobs}
    )


def _anew(verdict: Json | None, fits: Sequence[Fit], was: Asked | None, now: Asked | None) -> Json | None:
    if verdict is None or verdict["score"] is None or verdict.get("request") is None:
        return verdict
    for fit in fits:
        if fit.request is None:
            continue
        features = _features(verdict, fit)
        if isclose(fit.score([features], was)[0], verdict["score"], abs_tol=_NEAR):
            return {**verdict, "score": float(fit.score([features], now)[0])}
    raise UsageError(
        "the record that this run's judge was calibrated with is not here", "Judge again: --judge MODEL."
    )


def _features(verdict: Json, fit: Fit) -> tuple[float, float]:
    """What a judge asked two questions said of answer and request, if it was calibrated so."""
    assert fit.request is not None
    request = fit.request.before(logit(verdict["request"]))
    helps = verdict["probabilities"].get("5", 0.0) / sigmoid(request)
    return float(logit(helps)), float(request)
