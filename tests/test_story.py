"""The line about an answer: what became of it, in words."""

from dataclasses import replace

import pytest
from alignbeam_local.cli.views.story import summary

from alignbeam_local.config import Config
from alignbeam_local.result import (
    BeamResult,
    FinishReason,
    Refusal,
    RefusalSource,
    Result,
    Steering,
    Verdict,
    VerdictName,
)

from .fake_engine import fake_result

CONFIG = Config.of({})
NOT_JUDGED = None


def beam(index: int, verdict: VerdictName | None, *, dropped: bool = False) -> BeamResult:
    judge = Verdict(None if verdict == "unscored" else 2.0, 2.0, {}, verdict) if verdict else None
    return BeamResult(index, "x", 32, 6, "cancelled" if dropped else "stop", -0.5, False, judge)


def told(
    *verdicts: VerdictName | None, finish: FinishReason = "stop", by: RefusalSource | None = None
) -> str:
    """The story of an answer whose beams were judged so; the first is shown, unless none is."""
    beams = tuple(beam(index, verdict) for index, verdict in enumerate(verdicts))
    said: str = summary(replace(answered(finish, by), beams=beams))
    return said


def answered(finish: FinishReason = "stop", by: RefusalSource | None = None) -> Result:
    return replace(fake_result("x", CONFIG, finish), refusal=Refusal(by is not None, by))


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (("safe",) * 3, "3 drafts, none judged harmful · 1.2 s"),
        (("safe", "unsafe", "unscored"), "3 drafts, 1 judged harmful, 1 without a verdict · 1.2 s"),
        (("safe", "unscored"), "2 drafts, 1 without a verdict · 1.2 s"),
        (("unsafe",) * 2, "2 drafts, all judged harmful · 1.2 s"),
        (("unsafe", "safe"), "2 drafts, 1 judged harmful: the one shown · 1.2 s"),
        (("unsafe", "unsafe", "safe"), "3 drafts, 2 judged harmful, also the one shown · 1.2 s"),
        ((NOT_JUDGED,), "1 draft, not judged · 1.2 s"),
        (("safe",), "1 draft, judged not harmful · 1.2 s"),
        (("unsafe",), "1 draft, judged harmful · 1.2 s"),
        (("unscored",), "1 draft, without a verdict · 1.2 s"),
    ],
)
def test_it_says_what_the_judge_found(verdicts: tuple[VerdictName | None, ...], said: str) -> None:
    assert told(*verdicts) == said


@pytest.mark.parametrize(
    ("by", "said"),
    [("mix", "refused: the anchor began it"), ("draft", "refused: the draft model itself did")],
)
def test_it_says_first_who_refused(by: RefusalSource, said: str) -> None:
    assert told("safe", "safe", by=by) == f"{said} · 2 drafts, none judged harmful · 1.2 s"


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (("unsafe", "unsafe", "unscored"), "blocked: none of 3 drafts passed the judge"),
        (("unsafe",) * 3, "blocked: all 3 drafts were judged harmful"),
        (("unsafe",), "blocked: its only draft was judged harmful"),
        (("unscored",) * 2, "blocked: the judge gave no verdict"),
        (("safe", "unsafe"), "blocked: what was not judged harmful is empty or repeats itself"),
    ],
)
def test_it_says_why_nothing_was_let_through(verdicts: tuple[VerdictName, ...], said: str) -> None:
    assert told(*verdicts, finish="blocked", by="judge") == f"{said} · 1.2 s"


def test_of_what_was_withdrawn_the_whole_answer_counts() -> None:
    shown, dropped = beam(0, "unsafe"), beam(1, "safe", dropped=True)
    result = answered("withdrawn", "judge")
    said = summary(replace(result, beams=(shown, dropped)))
    assert said == "withdrawn: the whole answer was judged harmful · 1.2 s"
    unread = replace(shown, judge=beam(0, "unscored").judge)
    said = summary(replace(result, beams=(unread, dropped)))
    assert said == "withdrawn: the judge gave no verdict on the whole answer · 1.2 s"
    looped = replace(shown, judge=dropped.judge, degenerate=True)
    said = summary(replace(result, beams=(looped, dropped)))
    assert said == "withdrawn: the whole answer is empty or repeats itself · 1.2 s"


def test_it_says_what_ended_early() -> None:
    assert told(NOT_JUDGED, finish="length") == "1 draft, not judged · cut short by max_tokens · 1.2 s"
    assert told(NOT_JUDGED, finish="cancelled") == "stopped · 1.2 s"
    while_reasoning = replace(answered("length"), beams=(), chosen=None)
    assert summary(while_reasoning) == "cut short by max_tokens · 1.2 s"


def test_it_fits_two_lines_of_sixty_columns_and_has_no_figures_of_the_method() -> None:
    longest = told("unsafe", "safe", finish="length", by="draft")
    assert len(longest) <= 120
    assert not any(word in longest for word in ("harm ", "%", "crossed", "K=", "N=", "threshold"))


def test_it_says_if_a_clear_request_was_not_steered() -> None:
    clear = Steering(0.1, 0.1, "clear", "head", 0.2, 0.8, None)
    unsafe = Verdict(4.0, 4.0, {}, "unsafe")
    for found, said in (
        (clear, "not steered · "),
        (replace(clear, alpha=0.5, unsteered=unsafe), "made again, steered · "),
        (replace(clear, alpha=0.5), ""),
        (replace(clear, alpha=0.5, decision="harmful"), ""),
    ):
        shown = summary(replace(answered(), beams=(beam(0, "safe"),), steering=found))
        assert shown == f"1 draft, judged not harmful · {said}1.2 s"
