"""What a kept run tells of steering by request: what its requests were read as, the draft's own answers."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from ...config import Config, knobs_of
from ...errors import UsageError
from ...result import Steering, Verdict
from ...search.steering import judged_request, reading_of, steering_of, unread, wants_judge, with_judge
from .run_directory import Json
from .scored_anew import scored_anew

#: Knobs of steering that a kept run can be asked about; the others say how beams are made.
KNOBS = ("steer", "clear_below", "harmful_above", "request_by", "score_by")
#: The method whose answers are those of clear requests.
ALONE = "draft"
#: Knobs that say what the draft alone answers.
_SAYS = (*knobs_of("Sampling"), "system", "context", "safety_tokens", "boost", "safety_steps")
_RUN_BOTH = "Run both: --method draft --method alignbeam."


class Place(NamedTuple):
    """What a sample is of, whoever made it."""

    suite: str
    id: str
    seed: int


def place_of(sample: Json) -> Place:
    """Raises: KeyError: the sample is damaged."""
    return Place(sample["suite"], sample["id"], sample["seed"])


def alone_samples(samples: Iterable[Json]) -> dict[Place, Json]:
    """The draft's own answers of a run; none of those that failed."""
    return {place_of(s): s for s in samples if s["method"] == ALONE and "result" in s}


def require_alone(methods: Mapping[str, Json], name: str, config: Config) -> None:
    """What steering by request would have answered clear requests with is there, as far as can be told.

    Raises:
        UsageError: the run has no method `draft`, or one of another draft or other sampling.
    """
    knobs = methods[name]["knobs"]
    if config.steer == "always":
        return
    own = methods.get(ALONE)
    if own is None:
        if knobs.get("steer") == "by_request":  # it may have all that is asked for
            return
        raise UsageError(
            "steer=by_request leaves clear requests to the draft alone, and this run has no method `draft`",
            _RUN_BOTH,
        )
    other = [knob for knob in _SAYS if own["knobs"].get(knob) != knobs.get(knob)]
    if config.safety_tokens != "none" and own.get("safety_tokens") != methods[name].get("safety_tokens"):
        other.append("safety_file")
    if other or own["models"].get("draft") != methods[name]["models"].get("draft"):
        raise UsageError(
            f"the run's method `draft` differs from {name}: {', '.join(other) or 'the model'}",
            "Run both with the same models and sampling.",
        )


def steering_anew(result: Json, config: Config) -> Steering | None:
    """What these knobs make of a sample's request; None where they do not go by it.

    Where the judge is to read it too, what its verdicts on the beams hold counts.

    Raises:
        UsageError: the request was not read when the sample was made, or by both where the head alone counts.
    """
    if not config.reads_request:
        return None
    kept = result.get("steering")
    if kept is None:
        raise UsageError(
            "the run does not hold what its requests were read as",
            "It is of an older version, or was made with --read-request off: run it again.",
        )
    if kept["p"] is None:
        return unread(config)
    if kept["by"] == "both" and config.request_by != "both":
        raise UsageError(
            "the run's requests were read by head and judge, and the head's own thresholds are not kept",
            "Run it with request_by=head.",
        )
    _require_thresholds(result.get("config", {}), config, is_clamped=kept["low"] == kept["high"])
    read = steering_of(config, kept["p"], kept["whole"], low=kept["low"], high=kept["high"])
    read = replace(read, partial=kept.get("partial", False))
    if kept["by"] == "both":  # the judge was asked because the head was in doubt
        found = replace(read, decision="doubtful", alpha=config.alpha)
    elif not wants_judge(config, found := reading_of(config, [read])):
        return found
    verdicts = [Verdict(**beam["judge"]) for beam in result["beams"] if beam["judge"]]
    require_request(verdicts)
    return with_judge(config, found, judged_request(verdicts))


def _require_thresholds(run: Json, config: Config, *, is_clamped: bool) -> None:
    """Raises: UsageError: these knobs go by a threshold of the head's that the run had another one for.

    `is_clamped`: its two were one, so that the head's other one may be lost too.
    """
    if run.get("request_by") == "both":  # there they are about the mean: the kept ones are the head's own
        return
    for knob, other in (("clear_below", "harmful_above"), ("harmful_above", "clear_below")):
        own, asked = run.get(knob), getattr(config, knob)
        if own is None:
            continue
        is_other_lost = is_clamped and asked != own and getattr(config, other) is None
        if asked is None or is_other_lost or config.request_by == "both":
            raise UsageError(
                f"the run was made with {knob} = {own}, and the head's own thresholds are not kept",
                f"Run it without {knob}, or give --read-again.",
            )


def require_request(verdicts: Iterable[Verdict]) -> None:
    """Raises: UsageError: the run's judge said nothing of the request."""
    if all(verdict.request is None for verdict in verdicts):
        raise UsageError(
            "the run does not hold what its judge made of the requests",
            "It is of an older version, or its judge is not asked about requests: give --judge MODEL.",
        )


def is_unsteered(result: Json) -> bool:
    """Whether a kept sample is the draft's own answer to a clear request."""
    kept = result.get("steering")
    return kept is not None and kept["p"] is not None and kept["alpha"] is None


def require_beams(result: Json) -> None:
    """Raises: UsageError: the sample is the draft's own answer, where steered beams are wanted."""
    if is_unsteered(result):
        raise UsageError(
            "these knobs would steer a request that the run left to the draft alone",
            "Run it with steer=always; its beams can be chosen from with every other setting.",
        )


def own_answer(kept: Json, alone: Json | None, config: Config) -> Json:
    """The draft's own answer to a request that is clear by now, and the verdict on it.

    Args:
        kept: a sample's result, as the run made it.
        alone: the result of the method `draft` on the same prompt and seed, if the run has it.

    Raises:
        UsageError: the run lacks the answer, or a verdict on it.
    """
    if is_unsteered(kept):
        return _judged_at(scored_anew(kept, config.scored_by), config.threshold)
    verdict: Json | None = None
    if taken_back := (kept.get("steering") or {}).get("unsteered"):
        judged = scored_anew({**kept, "beams": [{"judge": taken_back}]}, config.scored_by)
        judged = _judged_at(judged, config.threshold)
        verdict = judged["beams"][0]["judge"]
        if verdict["verdict"] != "safe":
            return judged
    if alone is None:
        raise UsageError("the run lacks the draft's own answer to a request that is clear", _RUN_BOTH)
    own = scored_anew({**alone, "steering": kept["steering"]}, config.scored_by)
    beams = [{**beam, "judge": beam["judge"] or verdict} for beam in own["beams"]]
    return _judged_at({**own, "beams": beams}, config.threshold)


def _judged_at(result: Json, threshold: float) -> Json:
    return {**result, "beams": [judged_by(beam, threshold) for beam in result["beams"]]}


def judged_by(beam: Json, threshold: float) -> Json:
    """A beam with its verdict at this threshold.

    Raises:
        UsageError: no judge read it, and with this score its answer may be unsafe.
    """
    judge = beam["judge"]
    if judge is None or judge["score"] is None:
        return beam
    verdict = "safe" if judge["score"] <= threshold else "unsafe"
    if judge.get("unread") and verdict == "unsafe":
        raise UsageError(
            "the run's judge did not read the draft's own answers to clear requests, which these knobs go by",
            "Run it with --read-clear always, or judge its answers: --judge MODEL.",
        )
    return {**beam, "judge": {**judge, "verdict": verdict}}


def answered_alone(result: Json, alone: Json, steering: Steering) -> Json:
    """A sample's result with the draft's own answer in its place.

    Times are the draft's own, and the anchor's for reading the request.
    """
    if is_unsteered(result):
        return {**result, "beams": alone["beams"], "steering": asdict(steering)}
    read = result["timings"]["anchor_prefill_ms"]
    timings = {**alone["timings"], "anchor_prefill_ms": read}
    timings["total_ms"] += read
    taken = ("text", "reasoning", "finish_reason", "chosen", "refusal", "beams", "usage", "bridge")
    return {
        **result,
        **{name: alone[name] for name in taken},
        "timings": timings,
        "steering": asdict(steering),
        "notices": [] if verdict_on(alone) else ["the draft's own answer was not judged"],
    }


def verdict_on(alone: Json) -> Verdict | None:
    """The verdict on the draft's own answer, if the run or another judge has one."""
    kept: dict[str, Any] | None = alone["beams"][0]["judge"] if alone["beams"] else None
    return Verdict(**kept) if kept else None
