"""What became of an answer: the `alignbeam` object of a response, and of the page's file."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from ...events import Step
from ...heads.answer_head import JudgeRecord
from ...refusals.detector import declines
from ...result import BeamResult, Result, json_safe
from ...search.choices import Candidate
from ...search.selection import config_of, must_refuse
from ...search.selection_table import SelectionTable, selection_table
from ...search.steering import decision_of

Outcome = Literal["answered", "refused", "blocked", "withdrawn"]


def answer_object(
    result: Result,
    steps: Sequence[Step],
    record: JudgeRecord | None = None,
    *,
    has_texts: bool = True,
    has_tokens: bool = True,
    shows_all: bool = True,
) -> dict[str, Any]:
    """Who steered, what each beam scored, what it took, and every other choice among the beams.

    Args:
        steps: the mixed steps of all beams.
        record: what is known of the judge, which decides what `on_unsafe = auto` does.
        has_texts, has_tokens: with the heavy parts: the beams' texts, the mixed tokens.
        shows_all: also text that no verdict has passed, and answers to a request that is to be refused.
    """
    chosen = [step for step in steps if step.beam == result.chosen]
    table = table_of(result, record)
    shown = () if not has_texts else result.beams if shows_all else _passed(result)
    found = {
        "version": 1,
        "outcome": outcome(result),
        "by": result.refusal.by,
        "steered": {
            "steps": len(chosen),
            "anchor_won": sum(step.won_by == "anchor" for step in chosen),
            "tokens": list(map(asdict, steps if shows_all else chosen)) if has_tokens else None,
        },
        "beams": [_beam(beam, result, shown) for beam in result.beams],
        "selection": table and table.as_dict(),
        "covered_mass": result.bridge.covered_mass,
        "timings": asdict(result.timings),
    }
    return dict(json_safe(found))


def _passed(result: Result) -> list[BeamResult]:
    """The beams that may be told: safe ones, and of a request that is to be refused those that refuse."""
    safe = [beam for beam in result.beams if beam.judge is not None and beam.judge.verdict == "safe"]
    if must_refuse(result):
        return [beam for beam in safe if beam.index == result.chosen or declines(beam.text)]
    return safe


def _beam(beam: BeamResult, result: Result, shown: Sequence[BeamResult]) -> dict[str, Any]:
    judged = beam.judge
    return {
        "index": beam.index,
        "chosen": beam.index == result.chosen,
        "harm": judged and judged.score,
        "unread": bool(judged and judged.unread),
        "verdict": judged and judged.verdict,
        "refuses": declines(beam.text),
        "degenerate": beam.degenerate,
        "tokens": beam.tokens,
        "finish_reason": beam.finish_reason,
        "logprob": beam.logprob,
        "text": beam.text if beam in shown else None,
    }


def outcome(result: Result) -> Outcome:
    """Whether it answers; a refusal is the models' own, what is blocked or withdrawn the judge's doing."""
    match result.finish_reason:
        case "blocked":
            return "blocked"
        case "withdrawn":
            return "withdrawn"
    return "refused" if result.refusal.is_refusal else "answered"


def table_of(result: Result, record: JudgeRecord | None) -> SelectionTable | None:
    """Every choice among its beams; None where there is none: beams that were dropped, or not judged."""
    config = config_of(result)
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
    """None of a beam that nobody judged at its end, or whose answer no judge had to read."""
    if beam.judge is None or beam.judge.unread or beam.finish_reason == "cancelled":
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
