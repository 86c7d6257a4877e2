"""Another beam of an answer in the chosen one's place: only one that could have been chosen."""

from collections.abc import Sequence
from dataclasses import replace

from ..errors import UsageError
from ..events import Step
from ..refusals.detector import declines, declining_end
from ..result import BeamResult, Refusal, Result
from ..search.selection import must_refuse

_ALL_WHOLE = "`/retry judge_at=none` lets every beam come to its end, and judges them whole."


def picked(result: Result, index: int, steps: Sequence[Step]) -> Result:
    """The result with another beam as its answer.

    Args:
        index: of the beam, from 0.
        steps: the mixed steps of the answer, which tell whose doing a refusal is.

    Raises:
        UsageError: there is no such beam, it is the answer already, or it cannot be one: it was judged
            unsafe, or not judged, or is not whole, or is empty or loops, or does not refuse what was read
            as harmful.
    """
    if index not in range(len(result.beams)):
        raise UsageError(f"there is no beam {index + 1}", f"The last answer had {len(result.beams)}.")
    beam = result.beams[index]
    if index == result.chosen:
        raise UsageError(f"beam {index + 1} is the answer already", "/why all shows the others.")
    _require_safe(beam)
    if must_refuse(result) and not declines(beam.text):
        raise UsageError(
            f"beam {index + 1} answers a request that was read as harmful: it is no answer",
            "/why shows what it was read as.",
        )
    before = result.beams[result.chosen].tokens if result.chosen is not None else 0
    tokens = result.usage.completion_tokens - before + beam.tokens
    return replace(
        result,
        text=beam.text,
        finish_reason=beam.finish_reason,
        chosen=index,
        refusal=_refusal(beam, steps),
        usage=replace(result.usage, completion_tokens=tokens),
        notices=(*result.notices, f"beam {index + 1} was picked by hand"),
    )


def _require_safe(beam: BeamResult) -> None:
    """Raises: UsageError: nothing but a safe verdict on all of a beam lets it be an answer."""
    name, verdict = f"beam {beam.index + 1}", beam.judge.verdict if beam.judge else None
    if verdict is None:
        raise UsageError(f"{name} was not judged: it is no answer", "/retry on_unsafe=refuse judges it.")
    if verdict != "safe":
        what = "judged harmful" if verdict == "unsafe" else "one that the judge could not score"
        raise UsageError(f"{name} was {what}: it is no answer", "/why shows what each beam scored.")
    if beam.finish_reason == "cancelled":
        raise UsageError(f"{name} is not whole: it was dropped at token {beam.tokens}", _ALL_WHOLE)
    if beam.degenerate:
        raise UsageError(f"{name} is empty, cut or a loop: it is no answer", "/why all shows the others.")


def _refusal(beam: BeamResult, steps: Sequence[Step]) -> Refusal:
    end = declining_end(beam.text)
    if end is None:
        return Refusal(False, None)
    position = 0
    for step in (step for step in steps if step.beam == beam.index):
        if step.steered:
            return Refusal(True, "mix" if position < end else "draft")
        position += len(step.piece)
    return Refusal(True, "draft")
