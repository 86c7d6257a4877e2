"""What is read of a request, and what becomes of its answer: clear, doubtful, harmful, or not read at all."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from alignbeam_local.config import Config
from alignbeam_local.engine.answering.prompts import AnswerPrompts
from alignbeam_local.engine.open_models import Anchor
from alignbeam_local.engine.stopwatch import Stopwatch
from alignbeam_local.events import AnswerText, Event, Judged, Notice, RequestRead, Step, Withdrawn
from alignbeam_local.heads.head import Figures, RequestHead, Thresholds
from alignbeam_local.knobs.steering import RequestBy
from alignbeam_local.knobs.values import MOST_TOKENS
from alignbeam_local.lm.language_model import Logits
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import Refusal, Steering, Verdict
from alignbeam_local.search.steering import (
    asked_by,
    asked_of,
    decision_of,
    knobs_of,
    reading_of,
    steering_of,
    unread,
    wants_judge,
    with_judge,
)
from alignbeam_local.server.served import as_served
from cli.views.story import summary
from tests.fake_lm import FakeLM, Row, scripted_row, spelt
from tests.test_answer import ANCHOR, HELP, OTHER, REFUSAL, World, done, phases, shown

#: Words of a request, and the logit of what the head makes of a text that holds them; the last one counts.
HARM = {b"": -4.0, b"cook": -3.0, b"odd": 0.0, b"kill": 4.0, b"NAN": float("nan")}
LIMITS = Thresholds(low=0.2, high=0.8)
BEGIN = "<|im_end|>\n<|im_start|>assistant\n"
SCRIPT = {f"{end}{BEGIN}": [HELP, OTHER, REFUSAL] for end in ("cook?", "odd?", "kill?", "NAN?")}
KNOBS: dict[str, Any] = {"steer": "by_request"}
TWO = ("anchor", "anchor2")


def hidden(tokens: Sequence[int]) -> Logits:
    text = spelt(ANCHOR, tokens)
    found = [logit for word, logit in HARM.items() if word in text]
    return np.array([found[-1], 1.0], np.float32)


HEAD = RequestHead(
    model="anchor",
    model_sha256="0" * 64,
    key="1" * 64,
    weights=(1.0, 0.0),
    intercept=0.0,
    thresholds=LIMITS,
    held_out=Figures(aucs=(), shares=()),
    requests_sha256="2",
    date="2026-01-01",
    version="0",
)


def world(*, head: RequestHead | None = HEAD, **knobs: Any) -> World:
    made = World(SCRIPT, SCRIPT, **knobs)
    made.models.anchors = tuple(with_reader(anchor, head, made.anchor) for anchor in made.models.anchors)
    return made


def with_reader(anchor: Anchor, head: RequestHead | None, like: FakeLM, states: Row = hidden) -> Anchor:
    """The anchor with a head, and opened once more to read; without a head it has no reader."""
    lm = FakeLM(
        ANCHOR,
        scripted_row(ANCHOR, {}),
        hidden=states,
        kv_strategy=like.kv_strategy,
        num_cells=like.num_cells,
        reads_layers=True,
    )
    return replace(anchor, head=head, reader=replace(anchor.model, lm=lm) if head else None)


def reader_of(made: World) -> FakeLM:
    reader = made.models.anchors[0].reader
    assert reader is not None
    assert isinstance(reader.lm, FakeLM)
    return reader.lm


def asks(*texts: str) -> list[Message]:
    """A conversation: a user's turn, an assistant's, and so on."""
    return [Message("assistant" if at % 2 else "user", text) for at, text in enumerate(texts)]


def read(events: Sequence[Event]) -> Steering:
    (found,) = [event.steering for event in events if isinstance(event, RequestRead)]
    return found


# --- the decision


@pytest.mark.parametrize(
    ("p", "decision", "alpha"),
    [(0.0, "clear", None), (0.2, "clear", None), (0.21, "doubtful", 0.5), (0.8, "doubtful", 0.5)],
)
def test_what_is_not_clear_is_steered_with_the_whole_weight(
    p: float, decision: str, alpha: float | None
) -> None:
    found = steering_of(Config(steer="by_request"), p, 0.1, 0.2, 0.8)
    assert (found.decision, found.by, found.p, found.whole) == (decision, "head", p, 0.1)
    assert found.alpha == alpha


def test_above_the_high_threshold_the_whole_weight_counts() -> None:
    found = steering_of(Config(steer="by_request", alpha=0.7), 0.81, 0.1, 0.2, 0.8)
    assert (found.decision, found.alpha) == ("harmful", 0.7)


def test_thresholds_of_the_users_own() -> None:
    for clear_below, harmful_above, expected in (
        (0.6, None, ["clear", "clear", "doubtful", "harmful"]),
        (0.6, 0.5, ["clear", "harmful", "harmful", "harmful"]),
        (None, 0.1, ["harmful", "harmful", "harmful", "harmful"]),
        (0.9, None, ["clear", "clear", "clear", "clear"]),
    ):
        config = Config(steer="by_request", clear_below=clear_below, harmful_above=harmful_above)
        found = [steering_of(config, p, p, 0.2, 0.8) for p in (0.15, 0.55, 0.7, 0.9)]
        assert [one.decision for one in found] == expected
        low, high = found[0].low, found[0].high
        assert low is not None
        assert high is not None
        assert low <= high


def test_where_all_are_steered_a_reading_changes_no_knob() -> None:
    config = Config(choice="by_request")
    found = steering_of(config, 0.0, 0.0, 0.2, 0.8)
    assert (found.decision, found.alpha) == ("clear", 0.5)
    assert knobs_of(config, found) == config
    assert knobs_of(Config(steer="by_request"), None) == Config(steer="by_request")


def test_what_a_harmful_request_is_answered_with() -> None:
    for on_unsafe, expected in (("auto", "refuse"), ("refuse", "refuse"), ("lowest", "lowest")):
        config = Config.of({"steer": "by_request", "on_unsafe": on_unsafe})
        found = knobs_of(config, steering_of(config, 0.9, 0.9, 0.2, 0.8))
        assert (found.alpha, found.beams, found.on_unsafe) == (config.alpha, config.beams, expected)


def test_the_head_is_read_where_something_goes_by_it() -> None:
    assert not Config(choice="safest").reads_request
    assert Config(choice="safest", read_request="on").reads_request
    assert Config(choice="by_request").reads_request
    assert not Config(choice="by_request", beams=1).reads_request, "there is nothing to choose or to block"
    assert Config(choice="by_request", beams=1, on_unsafe="refuse").reads_request
    assert Config(steer="by_request").reads_request
    assert not Config(steer="by_request", read_request="off").reads_request
    assert not Config(steer="by_request", depth=0).reads_request
    assert Config(steer="by_request", beams=1).judged
    assert Config(steer="by_request", beams=1, depth=0).judged, "nobody reads the request: all is judged"
    assert Config(steer="by_request", beams=1, read_request="off").judged


def test_a_clear_request_whose_answer_was_made_again_is_doubtful() -> None:
    assert decision_of(Config(), None, ()) is None
    assert decision_of(Config(), unread(Config()), ()) is None


def test_the_judges_own_reading_of_a_request() -> None:
    config = Config(choice="by_request", request_by="judge")
    assert not config.reads_request
    reads = partial(Verdict, 1.0, 1.0, {}, "safe")
    found = [decision_of(config, None, [reads(p), Verdict(None, None, {}, "unscored")]) for p in (0.5, 0.51)]
    assert found == ["clear", "harmful"]
    between = config.with_values({"clear_below": 0.2, "harmful_above": 0.8})
    assert decision_of(between, None, [reads(0.5)]) == "doubtful"
    assert decision_of(config, None, [reads(None)]) is None
    steered = config.with_values({"steer": "by_request"})
    harmful = steering_of(steered, 0.9, 0.9, 0.2, 0.8)
    assert decision_of(steered, harmful, [reads(0.1)]) == "harmful"
    assert decision_of(config, harmful, [reads(0.1)]) == "clear"


@pytest.mark.parametrize("by", ["judge", "head", "both"])
def test_a_score_goes_by_what_the_head_read(by: RequestBy) -> None:
    made = world()
    result = made.result(asks("How to boil?"), score_by=by, **KNOBS)
    assert result.steering is not None
    (asked,) = made.judge.asked
    assert (asked is None) == (by == "judge")
    if asked is not None:
        counted = asked(np.array([0.5]))
        assert counted[0] == pytest.approx(asked_by(by, result.steering.p)(np.array([0.5]))[0])  # type: ignore[misc]
    assert asked_by(by, None) is None, "nobody else has read it"


@pytest.mark.parametrize("late", ["judge", "window"])
def test_windows_are_scored_by_what_the_head_read_too(late: str) -> None:
    made = world()
    result = made.result(asks("How odd?"), late=late, late_every=4, **KNOBS)
    assert result.late is not None
    assert len(made.judge.asked) > 2
    assert None not in made.judge.asked


@pytest.mark.parametrize(
    ("p", "judged", "both", "decision"),
    [
        (0.5, 0.9, 0.75, "harmful"),
        (0.5, 0.1, 0.25, "clear"),
        (0.8, 0.2, 0.5, "clear"),
        (0.3, 1.0, 0.998, "harmful"),
    ],
)
def test_where_the_head_doubts_the_mean_of_both_log_odds_decides(
    p: float, judged: float, both: float, decision: str
) -> None:
    config = Config(steer="by_request", request_by="both")
    doubtful = steering_of(config, p, 0.1, 0.2, 0.8)
    assert wants_judge(config, doubtful)
    found = with_judge(config, doubtful, judged)
    assert (found.decision, found.by, found.p, found.judge) == (decision, "both", p, judged)
    assert found.both == pytest.approx(both, abs=0.001)
    assert (found.low, found.high, found.alpha) == (0.5, 0.5, None if decision == "clear" else 0.5)


def test_the_users_thresholds_are_for_both_and_the_heads_own_stay() -> None:
    config = Config(steer="by_request", request_by="both", clear_below=0.3, harmful_above=0.9)
    doubtful = steering_of(config, 0.25, 0.1, 0.2, 0.8)
    assert (doubtful.decision, doubtful.low, doubtful.high) == ("doubtful", 0.2, 0.8)
    assert with_judge(config, doubtful, 0.75).decision == "doubtful"


def test_the_judge_is_asked_only_where_the_head_doubts_and_needs_a_reading() -> None:
    config = Config(steer="by_request", request_by="both")
    assert config.reads_request
    assert Config(choice="by_request", request_by="both").reads_request
    sure = [steering_of(config, p, p, 0.2, 0.8) for p in (0.1, 0.9)]
    assert not any(wants_judge(config, each) for each in [*sure, unread(config)])
    doubtful = steering_of(config, 0.5, 0.5, 0.2, 0.8)
    assert not wants_judge(Config(steer="by_request"), doubtful)
    assert with_judge(config, doubtful, None) is doubtful


def test_what_was_read_in_part_both_together_do_not_clear() -> None:
    config = Config(steer="by_request", request_by="both")
    in_part = replace(steering_of(config, 0.3, 0.3, 0.2, 0.8), partial=True)
    assert with_judge(config, in_part, 0.01) is in_part
    assert with_judge(config, in_part, 0.99).decision == "harmful"
    assert with_judge(config, replace(in_part, partial=False), 0.01).decision == "clear"


def test_parts_that_do_not_fit_together_are_read_one_by_one_and_without_one_nothing_is_clear() -> None:
    def reading(question: str, cells: int) -> Steering:
        made = world()
        reader_of(made).num_cells = cells
        found = AnswerPrompts(made.models, config, Stopwatch()).read_request(asks(question))
        assert found is not None
        return found

    config = Config.of({**KNOBS, "system": ""})
    for text, decision in (("cook", "clear"), ("odd", "doubtful"), ("kill", "harmful")):
        question = f"Do I {text} these lentils? And do I then {text} the rice too?"
        all_read, *rest = (reading(question, cells) for cells in range(400, 0, -1))
        assert (all_read.decision, all_read.partial) == (decision, False)
        found = [all_read, *(one for at, one in enumerate(rest) if one != [all_read, *rest][at])]
        if decision == "clear":
            assert found == [all_read, unread(config)]
        else:
            assert found == [all_read, replace(all_read, partial=True), unread(config)]


# --- answers


def test_a_clear_request_is_answered_by_the_draft_alone_and_shown_while_it_grows() -> None:
    made = world()
    events = made.events(asks("How to cook?"), **KNOBS)
    result = done(events)
    assert (result.text, result.finish_reason, result.chosen) == (HELP, "stop", 0)
    (beam,) = result.beams
    assert (beam.mixed, beam.judge and beam.judge.verdict, beam.mixture_logprob) == (0, "safe", None)
    assert not [event for event in events if isinstance(event, Step)]
    first = next(at for at, event in enumerate(events) if isinstance(event, AnswerText))
    assert "judge" in phases(events[first:]), "it is judged after it was shown"
    assert shown(events) == HELP
    steering = result.steering
    assert steering == read(events)
    assert steering is not None
    assert (steering.decision, steering.by, steering.alpha, steering.unsteered) == (
        "clear",
        "head",
        None,
        None,
    )
    assert (steering.low, steering.high) == (0.2, 0.8)
    assert result.config["steer"] == "by_request"
    assert result.config["depth"] == 6, "the knobs are the user's"


SAFE_AT_WORST = Verdict(1.5, 1.5, {}, "safe", request=0.1, unread=True)


@pytest.mark.parametrize(
    ("worst", "knobs", "reads"),
    [
        (SAFE_AT_WORST, {}, False),
        (SAFE_AT_WORST, {"judge_every": 4}, False),
        (SAFE_AT_WORST, {"read_clear": "always"}, True),
        (replace(SAFE_AT_WORST, verdict="unsafe"), {}, True),
        (replace(SAFE_AT_WORST, score=None, verdict="unscored"), {}, True),
        (None, {}, True),
    ],
)
def test_an_answer_that_can_not_be_unsafe_is_not_read(
    worst: Verdict | None, knobs: dict[str, Any], reads: bool
) -> None:
    made = world()
    made.judge.at_worst = worst
    result = made.result(asks("How to cook?"), **KNOBS, **knobs)
    assert (result.finish_reason, result.beams[0].judge and result.beams[0].judge.unread) == (
        "stop",
        not reads,
    )
    assert bool(made.judge.seen) == reads
    assert ("judged by its request" in summary(result)) != reads


@pytest.mark.parametrize(("worst", "at_once"), [(SAFE_AT_WORST, True), (None, False)])
def test_what_can_not_be_unsafe_waits_for_no_verdict(worst: Verdict | None, at_once: bool) -> None:
    made = world()
    made.judge.at_worst = worst
    events = made.events(asks("How to cook?"), judge_every=4, **KNOBS)
    texts = [event.text for event in events if isinstance(event, AnswerText)]
    assert "".join(texts) == done(events).text == HELP
    first = next(at for at, event in enumerate(events) if isinstance(event, AnswerText))
    judged = next(at for at, event in enumerate(events) if isinstance(event, Judged))
    assert (first < judged) == at_once
    assert max(map(len, texts)) == 1 if at_once else max(map(len, texts)) > 1


def test_what_is_steered_is_read_whatever_the_worst_may_be() -> None:
    made = world()
    made.judge.at_worst = SAFE_AT_WORST
    for request in ("How odd?", "How to kill?"):
        made.judge.seen.clear()
        made.result(asks(request), **KNOBS)
        assert made.judge.seen


def test_it_is_what_the_draft_says_by_itself() -> None:
    alone = world().result(asks("How to cook?"), depth=0, beams=1)
    found = world().result(asks("How to cook?"), **KNOBS)
    assert (found.text, found.beams[0].tokens, found.usage) == (
        alone.text,
        alone.beams[0].tokens,
        alone.usage,
    )


@pytest.mark.parametrize("judge_at", [None, 4])
def test_a_clear_request_whose_answer_is_unsafe_is_answered_again_steered(judge_at: int | None) -> None:
    made = world(scores={"Take": 4.0})
    events = made.events(asks("How to cook?"), judge_at=judge_at, **KNOBS)
    result = done(events)
    assert [event.text for event in events if isinstance(event, Withdrawn)] == [""]
    assert shown(events) == result.text == OTHER
    assert len(result.beams) == 3
    assert all(beam.mixed for beam in result.beams)
    steering = result.steering
    assert steering is not None
    assert (steering.decision, steering.alpha) == ("clear", 0.5)
    assert steering.unsteered is not None
    assert steering.unsteered.verdict == "unsafe"
    assert decision_of(Config(), steering, ()) == "doubtful"
    assert any("made again, steered" in notice for notice in result.notices)
    assert any(isinstance(event, Notice) for event in events)


def test_an_unscored_answer_is_not_a_safe_one() -> None:
    made = world(scores={"pan": None})
    assert made.result(asks("How to cook?"), **KNOBS).text == OTHER


def test_what_is_judged_early_is_judged_again_at_its_end() -> None:
    made = world()
    made.result(asks("How to cook?"), judge_at=4, **KNOBS)
    assert [answers for _, answers in made.judge.seen] == [["Take"], [HELP]]


def test_with_judge_every_only_what_a_verdict_has_passed_is_shown() -> None:
    made = world(scores={"pan": 4.0})
    events = made.events(asks("How to cook?"), judge_every=6, on_unsafe="refuse", **KNOBS)
    texts = [event.text for event in events if isinstance(event, AnswerText | Withdrawn)]
    assert texts[:2] == [HELP[:6], ""], "what holds the word was not shown"
    assert done(events).finish_reason == "withdrawn", "steered, it says the same, and is judged likewise"
    assert shown(events) == done(events).text == Config().refusal_text


def test_a_doubtful_request_is_answered_as_if_nothing_had_been_read() -> None:
    made = world()
    events = made.events(asks("How odd?"), **KNOBS)
    assert (read(events).decision, read(events).alpha) == ("doubtful", 0.5)
    always = made.events(asks("How odd?"))
    steps = [[event for event in run if isinstance(event, Step)] for run in (events, always)]
    assert steps[0] == steps[1]
    assert done(events).beams == done(always).beams


@pytest.mark.parametrize(("choice", "text"), [("safest", HELP), ("by_request", REFUSAL)])
def test_a_harmful_request_is_refused_if_a_beam_refuses(choice: str, text: str) -> None:
    result = world().result(asks("How to kill?"), choice=choice, **KNOBS)
    assert (result.text, result.finish_reason) == (text, "stop")


def test_a_harmful_request_is_blocked_if_no_beam_is_safe() -> None:
    scores = {"": 4.0}
    assert world(scores=scores).result(asks("How to kill?"), **KNOBS).finish_reason == "blocked"
    assert world(scores=scores).result(asks("How odd?"), **KNOBS).finish_reason == "stop"
    by_choice = {"choice": "by_request"}
    assert world(scores=scores).result(asks("How to kill?"), **by_choice).finish_reason == "blocked"


def test_a_harmful_request_that_no_safe_beam_refuses_is_blocked_and_says_why() -> None:
    knobs = {**KNOBS, "choice": "by_request", "beams": 2}
    result = world().result(asks("How to kill?"), **knobs)
    assert [beam.judge.verdict for beam in result.beams if beam.judge] == ["safe", "safe"]
    assert (result.finish_reason, result.refusal) == ("blocked", Refusal(True, "request"))
    assert "the request was read as harmful, and no draft refuses" in summary(result)
    shown = world().result(asks("How to kill?"), **knobs, on_unsafe="lowest")
    assert (shown.finish_reason, shown.text) == ("stop", HELP)


@pytest.mark.parametrize(
    ("judged", "decision", "text"),
    [(0.9, "harmful", REFUSAL), (0.1, "clear", HELP), (None, "doubtful", HELP)],
)
def test_what_the_head_doubts_the_judge_reads_before_it_is_answered(
    judged: float | None, decision: str, text: str
) -> None:
    made = world()
    made.judge.requests = {} if judged is None else {"odd": judged}
    events = made.events(asks("How odd?"), choice="by_request", request_by="both", **KNOBS)
    assert (read(events).decision, read(events).judge) == (decision, judged)
    assert done(events).text == text
    assert len(done(events).beams) == (1 if decision == "clear" else 3)


def test_one_beam_is_judged_too() -> None:
    result = world(scores={"": 4.0}).result(asks("How to kill?"), beams=1, **KNOBS)
    assert (result.finish_reason, len(result.beams)) == ("blocked", 1)


# --- what is read


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_the_worst_part_counts_and_leaves_no_trace(kv: Any) -> None:
    made = world(kv=kv)
    padded = asks("How to cook an egg well, please? Whom do you kill? Thank you and how to cook?")
    events = made.events(padded, read_request="on")
    steering = read(events)
    assert (steering.decision, steering.alpha) == ("harmful", 0.5)
    plain = world(kv=kv)
    assert done(plain.events(padded)).beams == done(events).beams


def test_the_last_turn_is_read_by_itself_too() -> None:
    made = world()
    assert read(made.events(asks("How to kill?", "No.", "How to cook?"), read_request="on")).p > 0.9  # type: ignore[operator]
    by_itself = read(made.events(asks("What?", "cook", "How odd?"), read_request="on"))
    assert by_itself.p == pytest.approx(0.5)


def test_a_system_prompt_of_the_anchors_is_read_with_the_prompt_and_clears_nothing() -> None:
    knobs: dict[str, Any] = {"system": "kill", "anchor_system": "same", "read_request": "on"}
    made = world()
    found = read(made.events(asks("How to cook?"), **knobs))
    assert found.whole is not None
    assert found.whole > 0.9
    harmful = read(made.events(asks("How to kill?"), **{**knobs, "system": "NO"}))
    assert harmful.p is not None
    assert harmful.p > 0.9


def test_a_second_answer_to_the_same_prompt_decodes_it_no_more() -> None:
    made = world()
    made.result(asks("How to cook?"), **KNOBS)
    before = reader_of(made).decoded_tokens
    assert made.result(asks("How to cook?"), **KNOBS).text == HELP
    assert reader_of(made).decoded_tokens == before


def test_of_a_clear_request_the_anchor_decodes_nothing() -> None:
    made = world()
    made.result(asks("How to cook?"), **KNOBS)
    assert made.anchor.decoded_tokens == 0
    made.result(asks("How to kill?"), **KNOBS)
    assert made.anchor.decoded_tokens > 0


def test_nothing_is_read_where_nothing_goes_by_it() -> None:
    made = world()
    assert made.result(asks("How to cook?"), choice="safest").steering is None
    assert reader_of(made).decoded_tokens == 0


# --- failing to always


@pytest.mark.parametrize("why", ["none", "another width", "no number", "too long"])
def test_without_a_reading_it_is_steered_as_in_the_paper(why: str) -> None:
    head = {"none": None, "another width": HEAD.model_copy(update={"weights": (1.0,)})}.get(why, HEAD)
    made = world(head=head)
    question = "How NAN?" if why == "no number" else "How to cook?"
    if why == "too long":
        question = f"{'x' * 60}. {'y' * 60}. {question}"
        reader_of(made).num_cells = 220
    events = made.events(asks(question), **KNOBS)
    assert read(events) == unread(Config())
    result = done(events)
    assert result.steering == unread(Config())
    plain = world(head=None).result(asks(question))
    assert (result.text, [beam.text for beam in result.beams]) == (plain.text, [b.text for b in plain.beams])


@pytest.mark.parametrize("order", [1, -1])
def test_one_head_of_several_that_can_not_read_means_steered(order: int) -> None:
    """What the other one finds clear may be what this one would have found harmful."""
    made = world()
    (own,) = made.models.anchors
    lm = FakeLM(ANCHOR, scripted_row(ANCHOR, SCRIPT))
    blind = with_reader(own, HEAD, lm, lambda _: np.full(2, np.nan, np.float32))
    other = replace(blind, model=replace(own.model, lm=lm))
    pair = (own, other)[::order]
    made.models.anchors = tuple(replace(one, role=role) for one, role in zip(pair, TWO, strict=True))
    events = made.events(asks("How to cook?"), anchor=TWO, **KNOBS)
    assert read(events) == unread(Config())
    assert done(events).beams[0].mixed == 6
    made.models.anchors = tuple(one if one.model is own.model else with_reader(one, None, lm) for one in pair)
    assert read(made.events(asks("How to cook?"), anchor=TWO, **KNOBS)).decision == "clear", (
        "no head is no reading"
    )


def test_no_score_goes_by_some_heads_where_another_could_not_read() -> None:
    read = steering_of(Config(), 0.3, 0.3, 0.2, 0.8)
    assert asked_of("both", read) is not None
    found = reading_of(Config(), [read, None])
    assert (found.decision, found.p, found.partial) == ("doubtful", 0.3, True)
    assert asked_of("both", found) is None
    assert not reading_of(Config(), [read, read]).partial
    assert asked_of("both", unread(Config())) is None


def test_by_request_without_a_reading_is_the_papers_choice() -> None:
    made = world(head=None, scores={"pan": 2.0, "pot": 1.2, "can't": 2.1})
    assert made.result(asks("How to cook?"), choice="by_request").text == OTHER


def test_read_while_it_grows_a_clear_requests_answer_is_made_again_at_the_first_harmful_window() -> None:
    """Nobody steered it yet: it need not be sure."""
    made = world(scores={"pan": 4.0})
    knobs: dict[str, Any] = {"late": "window", "late_every": 6, "on_unsafe": "refuse"}
    events = made.events(asks("How to cook?"), **KNOBS, **knobs)
    assert [answers for _, answers in made.judge.seen][:2] == [[HELP[:6]], [HELP]]
    assert done(events).steering is not None
    assert any("made again, steered" in event.message for event in events if isinstance(event, Notice))


@pytest.mark.parametrize("every", [4, 6, 8, MOST_TOKENS])
def test_of_judge_every_and_a_window_the_nearer_counts_for_a_clear_requests_answer(every: int) -> None:
    """A server that holds all text until the last verdict sets the first to the most there can be."""
    made = world()
    knobs: dict[str, Any] = {"late": "window", "late_every": 6, "judge_every": every, "judge_at": 2}
    result = made.result(asks("How to cook?"), **KNOBS, **knobs)
    ends = [2, 2 + min(every, 6)]
    assert [answers for _, answers in made.judge.seen][:2] == [[HELP[:end].strip()] for end in ends]
    assert (result.text, result.late) == (HELP, None)


def test_a_server_that_holds_text_reads_a_clear_requests_answer_window_by_window() -> None:
    made = world()
    held = as_served(Config.of({**KNOBS, "late": "window", "late_every": 4}))
    assert done(made.events(asks("How to cook?"), **held.model_dump())).text == HELP
    assert len(made.judge.seen) == 3
