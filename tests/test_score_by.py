"""Scores where the request was read by somebody else too, and the most that they can be."""

from itertools import product

import numpy as np
import pytest

from alignbeam_local.judge.calibration import Fit, Line
from alignbeam_local.judge.formats import RubricFormat
from alignbeam_local.knobs.steering import RequestBy
from alignbeam_local.prompt.message import Message
from alignbeam_local.search.steering import asked_by
from tests.test_judge import FILLER, QUESTION, THRESHOLD, make_judge, prefix_cells

pytestmark = pytest.mark.usefixtures("few_examples")


@pytest.mark.parametrize(("by", "innocent", "harm"), [("head", 0.9, 0.1), ("both", 0.999, 0.001)])
def test_what_somebody_else_reads_of_the_request_counts_in_the_score(
    by: RequestBy, innocent: float, harm: float
) -> None:
    judge, _ = make_judge()
    (asked_for_harm,) = judge.judge(
        [Message("user", "INNOCENT")], ["HARM"], THRESHOLD, asked_by(by, innocent)
    )
    assert asked_for_harm.verdict == ("unsafe" if by == "head" else "safe")
    (asked_for_none,) = judge.judge(QUESTION, ["HARM"], THRESHOLD, asked_by(by, harm))
    assert asked_for_none.verdict == ("safe" if by == "head" else "unsafe")
    own = judge.judge(QUESTION, ["HARM"], THRESHOLD)[0]
    assert (asked_for_none.raw, asked_for_none.request) == (own.raw, own.request)
    assert judge.judge(QUESTION, ["HARM"], THRESHOLD, asked_by("judge", harm)) == [own]


def test_a_judge_that_is_not_asked_about_requests_goes_by_no_other_reading() -> None:
    judge, _ = make_judge(RubricFormat(), num_cells=8192)
    own = judge.judge(QUESTION, ["HARM"], THRESHOLD)
    assert judge.judge(QUESTION, ["HARM"], THRESHOLD, asked_by("head", 0.001)) == own


def test_a_calibrated_score_is_of_both_readings() -> None:
    fit = Fit(
        answer=Line(slope=2.0, intercept=-1.0),
        request=Line(slope=0.5, intercept=0.5),
        final=Line(slope=1.5, intercept=0.7),
    )
    features, head = (1.2, -0.6), 0.02
    helps, judged = 1 / (1 + np.exp(-1.4)), 1 / (1 + np.exp(-0.2))
    mean = 1 / (1 + np.exp(-(0.2 + np.log(head / (1 - head))) / 2))
    by: RequestBy
    for by, harm in (("judge", judged), ("head", head), ("both", mean)):
        product = helps * harm
        expected = 1 + 4 / (1 + np.exp(-(1.5 * np.log(product / (1 - product)) + 0.7)))
        assert fit.score([features], asked_by(by, head))[0] == pytest.approx(expected)


def test_of_a_long_request_the_worst_window_counts_though_the_head_alone_decides() -> None:
    judge, _ = make_judge(num_cells=prefix_cells() + 1600)
    long = [Message("user", f"INNOCENT {FILLER}{FILLER} INNOCENT")]
    own = judge.judge(long, ["HARM"], THRESHOLD)[0]
    assert own.request == judge.request(long) == pytest.approx(1.0)
    by_head = judge.judge(long, ["HARM"], THRESHOLD, asked_by("head", 0.9))[0]
    assert (by_head.request, by_head.raw) == (own.request, own.raw)


def test_no_answer_is_worse_than_the_worst() -> None:
    judge, lm = make_judge()
    (innocent, harmful) = ([Message("user", "INNOCENT")], QUESTION)
    for turns, by in product((innocent, harmful), (None, 0.02, 0.4, 0.98)):
        asked = asked_by("both", by)
        worst = judge.worst(turns, THRESHOLD, asked)
        assert worst is not None
        assert worst.unread
        for verdict in judge.judge(turns, ["Boil it.", "HARM", "I am sorry."], THRESHOLD, asked):
            assert verdict.score is not None
            assert worst.score is not None
            assert verdict.score <= worst.score
            assert verdict.request == worst.request
    helped = judge.judge(harmful, ["HARM"], THRESHOLD)[0]
    worst = judge.worst(harmful, THRESHOLD)
    assert worst is not None
    assert worst.score == pytest.approx(helped.score, abs=1e-3)
    before = lm.decoded_tokens
    judge.worst(harmful, THRESHOLD)
    assert lm.decoded_tokens == before, "what was said of the request is known"


def test_of_a_request_that_can_not_be_read_no_worst_answer_is_safe() -> None:
    judge, _ = make_judge()
    worst = judge.worst([Message("user", "MUMBLE")], 5.0)
    assert worst is not None
    assert worst.verdict == "unscored"
    assert make_judge(RubricFormat(), num_cells=8192)[0].worst(QUESTION, 5.0) is None
