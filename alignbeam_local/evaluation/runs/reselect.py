"""A run's beams chosen from once more: by another threshold, choice, `on_unsafe`, steering or judge.

Nothing is generated again: every beam's text and score are in the run, and these work on nothing else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import product
from typing import Any

from ...config import Config, knobs_that
from ...errors import UsageError
from ...judge.judge import Judge
from ...refusals.detector import declines
from ...result import ModelCard, Steering, Verdict, json_safe
from ...roles import is_anchor
from ...search.choices import Candidate
from ...search.selection import Selection, select
from ...search.steering import decision_of, knobs_of
from ..methods.grid import Grid
from ..methods.names import ALIGNBEAM, BEST_OF_K
from ..methods.prompt import turns_of
from . import resteer
from .asked import asked_in, read_by_judge, thought_tokens
from .run_directory import Json
from .scored_anew import kept_config, scored_anew

KNOBS = (*knobs_that("selects"), *resteer.KNOBS)
#: What a choice changes of a run's knobs.
_CHANGED = (*KNOBS, "read_request")

#: Choices that go by what was kept of a beam's mixed start.
_BY_START = ("mixture", "anchor")


def require_selecting(grid: Grid) -> None:
    """Raises: UsageError: a knob that decides more than which beam is chosen."""
    for knob in grid:
        if knob not in KNOBS:
            raise UsageError(
                f"--grid: {knob} decides how beams are made", f"Take {', '.join(KNOBS)}, or `eval sweep`."
            )


def reselected_manifest(
    manifest: Json, grid: Grid, judge: Json | None = None
) -> tuple[Json, dict[str, list[tuple[str, Config]]]]:
    """The manifest of what the choices come to, and by method of the run the names and knobs of its choices.

    `judge` is what a manifest says of a model, if the beams are judged anew.

    Raises:
        UsageError: no method's beams were all judged at their ends, or a value is out of range, or
            `on_unsafe` is left at auto, which depends on the judge's record at each threshold; or servers
            made the run, or its models answered earlier turns themselves; or, as `require_alone`, what
            clear requests would be answered with is not there.
    """
    _require_told(manifest)
    methods: Json = {}
    choices: dict[str, list[tuple[str, Config]]] = {}
    for name, about in manifest["methods"].items():
        if not _is_judged_whole(name, about["knobs"]):
            continue
        if judge and about["knobs"].get("head_votes"):
            raise UsageError(
                f"{name} was judged by a judge and an answer head: another judge can't stand for both",
                "Run it with --head-votes off, or leave --judge out.",
            )
        _require_one_reader(name, about["models"], grid)
        choices[name] = list(_choices(name, about["knobs"], grid))
        for chosen, config in choices[name]:
            resteer.require_alone(manifest["methods"], name, config)
            changed = {knob: getattr(config, knob) for knob in _CHANGED}
            models = about["models"] | ({"judge": judge} if judge else {})
            methods[chosen] = {**about, "knobs": {**about["knobs"], **changed}, "models": models}
    if not methods:
        raise UsageError(
            "no method of this run has judged beams to choose from", "Run one with K over 1, no judge_at."
        )
    return {**manifest, "methods": methods}, choices


def _require_told(manifest: Json) -> None:
    """Raises: UsageError: the run's samples do not tell what another choice would have answered."""
    if "server" in manifest:
        raise UsageError(
            "running servers made this run: they do not tell all that a choice goes by",
            "Make it here, or with --ray.",
        )
    if manifest.get("turns") == "own":
        raise UsageError(
            "earlier turns are the models' own answers, and another choice would have given others",
            "Give `eval run` these knobs, or choose among the beams of a run with --turns given.",
        )


def _require_one_reader(name: str, models: Mapping[str, Any], grid: Grid) -> None:
    """Raises: UsageError: of several heads' readings the run keeps the one that led to more at its knobs."""
    if sum(map(is_anchor, models)) > 1 and (limits := sorted({"clear_below", "harmful_above"} & set(grid))):
        raise UsageError(
            f"--grid {limits[0]}: {name} has several anchors, and one head's reading of a request is kept",
            "Run it with these thresholds.",
        )


def _is_judged_whole(name: str, knobs: Mapping[str, Any]) -> bool:
    chooses = name.partition(":")[0] in (ALIGNBEAM, BEST_OF_K)
    is_early = knobs["judge_at"] or knobs.get("judge_every") or knobs.get("late", "off") != "off"
    return chooses and knobs["beams"] > 1 and not is_early


def _choices(name: str, knobs: Mapping[str, Any], grid: Grid) -> Iterator[tuple[str, Config]]:
    known = kept_config(knobs)  # knobs that are no more have made the beams
    known = known.with_values({"read_request": "auto"})  # a sample holds whether it was read, or is again
    for values in product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        config = known.with_values(chosen, "--grid")
        if config.on_unsafe == "auto":
            raise UsageError(
                "what on_unsafe = auto does depends on the judge's record at each threshold",
                "Add --grid on_unsafe=lowest or --grid on_unsafe=refuse.",
            )
        yield f"{name}{',' if ':' in name else ':'}{','.join(f'{k}={v}' for k, v in chosen.items())}", config


def reselected(sample: Json, name: str, config: Config, alone: Json | None = None) -> Json:
    """A sample of the method `name` as these knobs would have had it; timings stay as they were.

    `alone` is the draft's own sample of the same prompt and seed, if the run has it.

    Raises:
        UsageError: the sample lacks what these knobs go by: the request's reading, what the mixture or the
            anchor gave a beam's start, steered beams, or the draft's own answer.
        DAMAGE: the sample is damaged.
    """
    changed = {**sample, "method": name}
    if sample.get("result", {}).get("beams"):
        changed["result"] = _steered_anew(sample["result"], config, alone)
    return changed


def judged_anew(sample: Json, judge: Judge, card: ModelCard, threshold: float) -> Json:
    """A sample whose beams this judge has read, all at once as in a run, and nobody else the request.

    Raises:
        UsageError, DAMAGE: as `beam_texts`.
        ContextFull, Cancelled, ModelError: as `Judge.judge`.
    """
    texts = beam_texts(sample)
    if not texts:
        return sample
    judge.forget()
    verdicts = judge.judge(turns_of(asked_in(sample)), texts, threshold)
    result = sample["result"]
    beams = [
        {**beam, "judge": asdict(verdict)} for beam, verdict in zip(result["beams"], verdicts, strict=True)
    ]
    changed = {
        "beams": beams,
        "models": result["models"] | {"judge": json_safe(asdict(card))},
        "config": {**result["config"], "score_by": "judge"},
    }
    if result.get("steering"):  # what the run's judge said of an answer that was taken back counts no more
        changed["steering"] = {**result["steering"], "unsteered": None}
    return {**sample, "result": {**result, **changed}}


def beam_texts(sample: Json) -> list[str]:
    """What a judge reads of each beam; nothing of a sample without beams.

    Raises:
        UsageError: what the draft reasoned before it is not kept.
        DAMAGE: the sample is damaged.
    """
    result = sample.get("result", {})
    if not result.get("beams"):
        return []
    return [read_by_judge(result, beam["text"]) for beam in result["beams"]]


def _steered_anew(result: Json, config: Config, alone: Json | None) -> Json:
    steering = resteer.steering_anew(result, config)
    if steering and steering.alpha is None:
        own = resteer.own_answer(result, alone["result"] if alone else None, config)
        verdict = resteer.verdict_on(own)
        if verdict is None or verdict.verdict == "safe":
            return _with_knobs(resteer.answered_alone(result, own, steering), config)
        steering = replace(steering, alpha=config.alpha, unsteered=verdict)
    resteer.require_beams(result)
    return _chosen_anew(scored_anew(result, config.scored_by), config, steering)


def _chosen_anew(result: Json, config: Config, steering: Steering | None) -> Json:
    beams = [resteer.judged_by(beam, config.threshold) for beam in result["beams"]]
    verdicts = [Verdict(**beam["judge"]) for beam in beams]
    if config.choice == "by_request" and config.request_by == "judge":
        resteer.require_request(verdicts)
    selection = select(
        [_candidate(beam, config, is_mixed=bool(result["config"]["depth"])) for beam in beams],
        knobs_of(config, steering),
        refusal_allowed=False,
        decision=decision_of(config, steering, verdicts),
    )
    answering = next((beam for beam in beams if beam["index"] == selection.beam), None)
    changed = {
        **result,
        **(_answer(answering, result) if answering else _blocked(config, result, selection)),
        "beams": beams,
        "chosen": selection.beam,
        "notices": [selection.notice] if selection.notice else [],
    }
    if steering:
        changed["steering"] = asdict(steering)
    return _with_knobs(changed, config)


def _with_knobs(result: Json, config: Config) -> Json:
    changed = {knob: getattr(config, knob) for knob in _CHANGED}
    return {**result, "config": {**result["config"], **changed}}


def _candidate(beam: Json, config: Config, *, is_mixed: bool) -> Candidate:
    """Raises: UsageError: the beam is of a version that did not keep what the choice goes by."""
    if is_mixed and (config.choice in _BY_START or config.min_start > 0) and beam.get("p_first") is None:
        raise UsageError(
            f"the run does not hold what choice={config.choice}, min_start={config.min_start:g} goes by",
            "It is of an older version: run it again.",
        )
    return Candidate(
        beam["index"],
        Verdict(**beam["judge"]),
        beam["logprob"],
        beam["degenerate"],
        declines(beam["text"]),
        beam.get("mixture_logprob"),
        beam.get("anchor_logprob"),
        beam.get("p_first"),
    )


def _answer(beam: Json, result: Json) -> Json:
    refusal = {"is_refusal": declines(beam["text"]), "by": None}  # of another beam it is not told by whom
    if beam["index"] == result["chosen"]:
        refusal = result["refusal"]
    tokens = thought_tokens(result) + beam["tokens"]
    return {
        "text": beam["text"],
        "finish_reason": beam["finish_reason"],
        "refusal": refusal,
        "usage": {**result["usage"], "completion_tokens": tokens},
    }


def _blocked(config: Config, result: Json, selection: Selection) -> Json:
    return {
        "text": config.refusal_text,
        "reasoning": None,
        "finish_reason": "blocked",
        "refusal": {"is_refusal": True, "by": selection.blocked_by},
        "usage": {**result["usage"], "completion_tokens": thought_tokens(result)},
    }
