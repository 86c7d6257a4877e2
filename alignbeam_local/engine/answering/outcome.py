"""What a result tells of a beam, and of a refusal."""

from ...refusals.detector import declining_end
from ...result import REPLACED, BeamResult, FinishReason, Refusal, Verdict
from ...search.beam import Beam
from ...search.selection import Selection


def beam_result(beam: Beam, verdict: Verdict | None, *, is_no_answer: bool) -> BeamResult:
    """A beam as it is now; one without an end was cancelled.

    Args:
        is_no_answer: it is empty, loops, or is cut where it may not be.
    """
    return BeamResult(
        index=beam.index,
        text=beam.text,
        tokens=len(beam.tokens),
        mixed=beam.mixed,
        finish_reason=beam.finish or "cancelled",
        logprob=beam.logprob,
        degenerate=is_no_answer,
        judge=verdict,
        mixture_logprob=beam.mixture_logprob,
        anchor_logprob=beam.anchor_logprob,
        p_first=beam.p_first,
    )


def refusal_of(text: str, reason: FinishReason, beam: Beam | None, selection: Selection) -> Refusal:
    """Whether an answer declines, and by whom: judge or request, mixture (if it steered before), or draft.

    Args:
        selection: the last one.
    """
    if reason in REPLACED:
        return Refusal(True, selection.blocked_by)
    end = declining_end(text)
    if end is None:
        return Refusal(False, None)
    steered = beam is not None and beam.steered_at is not None and beam.steered_at < end
    return Refusal(True, "mix" if steered else "draft")
