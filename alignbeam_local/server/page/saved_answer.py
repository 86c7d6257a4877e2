"""One answer as the page keeps it in its file: what a server's last chunk says of it, and what was asked."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from ...config import KNOBS, Config, knobs_of
from ...events import Step
from ...judge.calibration import Calibration
from ...refusals.detector import declines
from ...result import BeamResult, Result, json_safe
from ...result_json import traced_object
from ...search.choices import Candidate
from ...search.selection_table import SelectionTable, selection_table
from ...search.steering import decision_of

Json = dict[str, Any]
Outcome = Literal["answered", "refused", "blocked", "withdrawn"]
#: Beside the models: what decides an answer. What a machine or its folders are called stays at home.
_SHOWN_KNOBS = tuple(
    name for panel in ("Method", "Steering", "Judge", "Sampling") for name in knobs_of(panel)
)


def saved_answer(
    prompt: str, result: Result, steps: Sequence[Step], record: Calibration | None = None
) -> Json:
    """All that the page shows of an answer; no path is in it.

    Args:
        prompt: what was asked.
        result: what it came to.
        steps: its mixed steps, of all beams.
        record: what is known of the judge, which decides what `on_unsafe = auto` does.
    """
    found = {
        "version": 1,
        "prompt": prompt,
        "system": result.config.get("system"),
        "models": {role: _card(result, role) for role in result.models},
        "knobs": {name: result.config[name] for name in _SHOWN_KNOBS if name in result.config},
        "text": result.text,
        "reasoning": result.reasoning,
        "finish_reason": result.finish_reason,
        "notices": list(result.notices),
        "usage": asdict(result.usage),
        "program": {"version": result.version, "llama_cpp": result.llama_cpp},
        "alignbeam": answer_object(result, steps, record),
    }
    return dict(json_safe(found))


def answer_object(result: Result, steps: Sequence[Step], record: Calibration | None = None) -> Json:
    """What became of an answer, as the `alignbeam` object of a server's last chunk says it."""
    table = table_of(result, record)
    return {
        "version": 1,
        "outcome": outcome(result),
        "by": result.refusal.by,
        "steered": {
            "steps": sum(step.beam == result.chosen for step in steps),
            "anchor_won": sum(step.steered and step.beam == result.chosen for step in steps),
            "tokens": list(map(traced_object, steps)),
        },
        "beams": [_beam(beam, result) for beam in result.beams],
        "selection": table and table.as_dict(),
        "covered_mass": result.bridge.covered_mass,
        "timings": asdict(result.timings),
        "batched_with": 0,
    }


def outcome(result: Result) -> Outcome:
    """Whether it answers; a refusal is the models' own, what is blocked or withdrawn the judge's doing."""
    match result.finish_reason:
        case "blocked":
            return "blocked"
        case "withdrawn":
            return "withdrawn"
    return "refused" if result.refusal.is_refusal else "answered"


def table_of(result: Result, record: Calibration | None) -> SelectionTable | None:
    """Every choice among its beams; None where there is none: beams that were dropped, or not judged."""
    config = Config.of({name: value for name, value in result.config.items() if name in KNOBS})
    candidates = [candidate for beam in result.beams if (candidate := _candidate(beam))]
    if not candidates or len(candidates) < len(result.beams):
        return None
    decision = decision_of(config, result.steering, (candidate.verdict for candidate in candidates))
    is_flagged = config.steers_by_request and decision == "harmful"
    return selection_table(
        candidates,
        config,
        refusal_allowed=lambda at: is_flagged or (record is not None and record.allows_refusal(at)),
        allowed_changes=(score for scores in record.held_out.values() for score in scores) if record else (),
        decision=decision,
    )


def _candidate(beam: BeamResult) -> Candidate | None:
    """None of a beam that nobody judged at its end."""
    if beam.judge is None or beam.finish_reason == "cancelled":
        return None
    return Candidate(
        beam.index,
        beam.judge,
        beam.logprob,
        beam.degenerate,
        declines(beam.text),
        beam.mixture_logprob,
        beam.anchor_logprob,
        beam.p_first,
    )


def _beam(beam: BeamResult, result: Result) -> Json:
    verdict = beam.judge
    return {
        "index": beam.index,
        "chosen": beam.index == result.chosen,
        "harm": verdict and verdict.score,
        "verdict": verdict and verdict.verdict,
        "refuses": declines(beam.text),
        "degenerate": beam.degenerate,
        "tokens": beam.tokens,
        "logprob": beam.logprob,
        "finish_reason": beam.finish_reason,
        "text": beam.text,
    }


def _card(result: Result, role: str) -> Json | None:
    card = result.models[role]
    if card is None:
        return None
    return {"name": card.name, "sha256": card.sha256, "quantisation": card.quantisation}
