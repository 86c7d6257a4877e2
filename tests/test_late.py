"""Answers that are read while they grow: put back where they turn harmful, steered, and refused at last."""

import io
import itertools
import json
from collections.abc import Sequence
from typing import Any, Literal, cast
from unittest.mock import MagicMock

import pytest
from alignbeam_local.cli.views.story import summary
from alignbeam_local.cli.views.view import JsonView

from alignbeam_local.config import Config
from alignbeam_local.engine.answering.late import LateWatch
from alignbeam_local.errors import Cancelled, ContextFull, ModelError
from alignbeam_local.events import (
    AnswerText,
    Event,
    Notice,
    SteeredBack,
    Step,
    WindowRead,
    Withdrawn,
)
from alignbeam_local.judge.judge import Judge
from alignbeam_local.judge.windows import WindowRisk
from alignbeam_local.machine.context_size import context_sizes
from alignbeam_local.prompt.message import Message
from alignbeam_local.prompt.text_stream import TextStream
from alignbeam_local.result import Verdict
from alignbeam_local.search.beam import Beam
from alignbeam_local.search.beams import BeamSearch
from tests.test_answer import ANCHOR, COOK, FakeJudge, World, done, shown

KIND = "Take a pan. Wash it well. "
HARM = "Hit him hard. Hit him again. "
#: The draft turns; the anchor, asked behind the harmless beginning, says something else.
TURNS = {"assistant\n": f"{KIND}{HARM}", "well. ": [HARM, "I stop."], "I stop.": ""}
STOPS = {"assistant\n": KIND, "well. ": ["I stop."], "I stop.": ""}
READS: dict[str, Any] = {"late": "window", "late_every": 13, "judge_at": 13, "beams": 1, "max_tokens": 60}
UNSAFE = {"Hit": 5.0}


def world(draft: dict[str, Any] = TURNS, anchor: dict[str, Any] = STOPS, **others: Any) -> World:
    return World(draft, anchor, **{"scores": UNSAFE, **others})


def windows(events: Sequence[Event]) -> list[tuple[int, int, str]]:
    read = [event.window for event in events if isinstance(event, WindowRead)]
    return [(window.start, window.end, window.verdict) for window in read]


def verdict(score: float | None) -> Verdict:
    named: Literal["safe", "unsafe", "unscored"] = (
        "unscored" if score is None else "safe" if score <= 2.5 else "unsafe"
    )
    return Verdict(score, score, {}, named)


# --- the rule


@pytest.mark.parametrize(
    ("scores", "sure_at"),
    [
        ([1, 1, 1, 1], None),
        ([5, 1, 1, 1], None),
        ([1, 3, 3, 1], 2),
        ([1, None, None], 2),
        ([5, 1, None], 2),
        ([5, 2.4, 5], 2),
    ],
)
def test_two_in_a_row_are_sure_and_so_is_a_risk_that_has_grown(
    scores: list[float | None], sure_at: int | None
) -> None:
    risk = WindowRisk()
    found = [index for index, score in enumerate(scores) if risk.add(verdict(score))]
    assert (found[0] if found else None) == sure_at


def test_the_risk_is_seats() -> None:
    risk = WindowRisk()
    for score in (5, 1, 3):
        risk.add(verdict(score))
    assert risk.risk == pytest.approx(0.8 * (0.8 * 0.2) + 0.2)


@pytest.mark.parametrize("threshold", [1.0, 1.5, 2.5, 3.5, 4.5])
def test_how_many_windows_are_enough_does_not_depend_on_the_threshold(threshold: float) -> None:
    """Against the slow reference: all sequences of seven windows, barely harmful or barely safe."""
    for harmful in itertools.product([False, True], repeat=7):
        risk = WindowRisk()
        for end, is_harmful in enumerate(harmful, 1):
            score = threshold + 0.25 if is_harmful else threshold
            found = risk.add(Verdict(score, score, {}, "unsafe" if is_harmful else "safe"))
            assert found == sure_by_hand(harmful[:end]), (harmful, end)


def sure_by_hand(harmful: Sequence[bool]) -> bool:
    """The last is harmful, and so is the one before it; or all are more than 0.3, a fifth less a window."""
    if not harmful[-1]:
        return False
    ages = [age for age, is_harmful in enumerate(reversed(harmful)) if is_harmful]
    assert (sum(0.2 * 0.8**age for age in ages) > 0.3) >= any(age in (1, 2, 3) for age in ages)
    return 1 in ages or sum(0.2 * 0.8**age for age in ages) > 0.3


def test_a_put_back_takes_back_where_the_anchor_steered_what_is_gone() -> None:
    """Else a refusal behind it, the draft's own, would count as the anchor's."""
    beam = Beam(0, TextStream(), tokens=[1, 2])
    watch = LateWatch(Config(late="window"), MagicMock(), beam, "window")
    beam.steered_at = 7
    assert watch.put_back(5)
    assert beam.steered_at is None


# --- an answer that turns


def test_off_nothing_is_read_and_the_result_says_nothing() -> None:
    made = world()
    events = made.events(judge_at=13, beams=1, max_tokens=60, on_unsafe="lowest")
    assert done(events).late is None
    assert len(made.judge.seen) == 2, "at 13 tokens and at the end"
    assert HARM.strip() in done(events).text


def test_it_is_put_back_to_before_the_first_harmful_window_and_mixed_again() -> None:
    events = world().events(**READS, on_unsafe="refuse", alpha=1.0, depth=2)
    result = done(events)
    assert result.text == f"{KIND}I stop."
    assert windows(events)[:3] == [(13, 26, "safe"), (26, 39, "unsafe"), (39, 52, "unsafe")]
    (back,) = (event for event in events if isinstance(event, SteeredBack))
    assert (back.tokens, back.attempt) == (26, 1)
    assert result.late is not None
    assert (result.late.by, result.late.steered_back, result.late.gave_up) == ("window", (26,), False)
    assert any("steered again from there" in notice for notice in result.notices)


def test_what_was_shown_is_withdrawn_from_the_window_on_and_goes_on() -> None:
    events = world().events(**READS, on_unsafe="refuse", alpha=1.0, depth=2)
    (withdrawn,) = (event for event in events if isinstance(event, Withdrawn))
    assert (withdrawn.text, withdrawn.stands) == (KIND, len(KIND))
    before = events[: events.index(withdrawn)]
    assert HARM[:20] in "".join(event.text for event in before if isinstance(event, AnswerText))
    assert shown(events) == done(events).text == f"{KIND}I stop."


@pytest.mark.parametrize("every", [5, 13, 64])
def test_where_only_verdicts_pass_text_no_harmful_window_is_ever_shown(every: int) -> None:
    made = world(scores={f"{KIND}{HARM}": 1.0, KIND: 1.0, "Hit": 5.0})  # the whole is taken for harmless
    events = made.events(**READS, judge_every=every, on_unsafe="refuse", alpha=1.0, depth=2)
    assert not any(isinstance(event, Withdrawn) for event in events)
    assert "Hit" not in "".join(event.text for event in events if isinstance(event, AnswerText))
    assert shown(events) == done(events).text == f"{KIND}I stop."


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_a_model_that_can_not_be_cut_gives_the_same(kv: Literal["seq", "state"]) -> None:
    result = world(kv=kv).result(**READS, on_unsafe="refuse", alpha=1.0, depth=2)
    assert result.text == f"{KIND}I stop."
    assert result.late is not None
    assert result.late.steered_back == (26,)


def test_that_turns_harmful_again_and_again_is_refused_whatever_on_unsafe_says() -> None:
    """Here the anchor too goes on with it: nothing else is there to say."""
    made = world(TURNS, TURNS | {"well. ": [HARM]})
    events = made.events(**READS, on_unsafe="lowest", refusal_text="No.", depth=2)
    result = done(events)
    assert (result.text, result.finish_reason, result.chosen) == ("No.", "withdrawn", None)
    assert result.late is not None
    assert (result.late.steered_back, result.late.gave_up) == ((26, 26), True)
    assert shown(events) == "No."
    assert not any("shown all the same" in notice for notice in result.notices)
    assert result.beams[0].judge is not None
    assert result.beams[0].judge.verdict == "unsafe", "a server shows the texts of safe beams"
    mixed = [e.attempt for e in events if isinstance(e, SteeredBack)]
    assert mixed == [1, 2]


@pytest.mark.parametrize(
    ("rule", "first"),
    [
        ({}, 2),
        ({"prefix": "adaptive", "agree_for": 7}, 7),
        ({"alpha_rule": "disagreement", "max_depth": 9}, 9),
        ({"alpha_rule": "decay"}, 2),
    ],
)
def test_no_try_mixes_the_same_tokens_again(rule: dict[str, Any], first: int) -> None:
    events = world(TURNS, TURNS | {"well. ": [HARM]}).events(**READS, on_unsafe="refuse", depth=2, **rule)
    first_back, second = (at for at, event in enumerate(events) if isinstance(event, SteeredBack))
    tries = [
        [e for e in part if isinstance(e, Step)] for part in (events[first_back:second], events[second:])
    ]
    assert [len(steps) for steps in tries] == [first, first + 2]
    assert all(step.top for step in tries[1]), "the draft alone chose none of them"


def test_without_tries_or_an_anchor_it_is_refused_at_once() -> None:
    for knob in ("late_tries", "depth"):
        knobs: dict[str, Any] = {knob: 0}
        result = world().result(**READS, on_unsafe="refuse", **knobs)
        assert result.finish_reason == "withdrawn"
        assert result.late is not None
        assert (result.late.steered_back, result.late.gave_up) == ((), True)


def test_one_harmful_window_alone_changes_nothing() -> None:
    script = {"assistant\n": f"{KIND}Hit the nail. Then paint it."}
    result = world(script, script).result(**READS, on_unsafe="lowest")
    assert result.text == script["assistant\n"]
    assert result.late is not None
    assert [window.verdict for window in result.late.windows].count("unsafe") == 1


def test_a_window_alone_is_read_or_all_so_far() -> None:
    for by, seen in (("window", "ash it well."), ("judge", KIND.strip())):
        made = world()
        made.events(**{**READS, "late": by}, on_unsafe="refuse", alpha=1.0, depth=2)
        assert made.judge.seen[1][1][0].strip() == seen


def test_what_chose_between_beams_is_about_the_start_alone() -> None:
    plain = world(STOPS).result(**READS, alpha=1.0, depth=2)
    turned = world().result(**READS, on_unsafe="refuse", alpha=1.0, depth=2)
    assert turned.beams[0].logprob == plain.beams[0].logprob
    assert turned.beams[0].mixed == 4
    assert turned.bridge.steps > plain.bridge.steps


def test_a_beam_that_ends_while_it_is_mixed_again_is_judged_and_done() -> None:
    """The anchor ends the answer where it was put back to."""
    result = world(TURNS | {"well. ": [HARM, ""]}, {"assistant\n": KIND, "well. ": ""}).result(
        **READS, on_unsafe="refuse", alpha=1.0, depth=3
    )
    assert (result.text, result.finish_reason) == (KIND, "stop")
    assert result.beams[0].judge is not None


@pytest.mark.parametrize("at", ["rewind", "extend", "drop"])
@pytest.mark.parametrize("late", ["window", "judge"])
@pytest.mark.parametrize("on_unsafe", ["refuse", "lowest"])
def test_who_cancels_at_a_hit_is_left_with_nothing(
    monkeypatch: pytest.MonkeyPatch, at: str, late: str, on_unsafe: str
) -> None:
    whole = getattr(BeamSearch, at)

    def cancelled(search: BeamSearch, *given: Any, **steps: Any) -> Any:
        if (at == "extend" and not steps) or (at == "drop" and given[0] != search.beams):
            return whole(search, *given, **steps)
        raise Cancelled("stopped")

    monkeypatch.setattr(BeamSearch, at, cancelled)
    tries = 0 if at == "drop" else 2  # all beams are dropped where it is given up
    asked = {**READS, "late": late, "late_tries": tries, "on_unsafe": on_unsafe}
    events = world().events(**asked, alpha=1.0, depth=2)
    assert HARM[:20] in "".join(event.text for event in events if isinstance(event, AnswerText))
    assert (shown(events), done(events).text, done(events).finish_reason) == ("", "", "cancelled")


def test_an_anchor_that_can_not_read_so_much_means_refused() -> None:
    made = world()
    made.anchor.num_cells = made.draft.num_cells = 4096
    config = {**READS, "on_unsafe": "refuse", "depth": 2, "refusal_text": "No."}

    def fill(event: Event) -> None:
        if isinstance(event, WindowRead):
            made.anchor.num_cells = 1

    events = made.events(consume=fill, **config)
    assert (done(events).text, done(events).finish_reason) == ("No.", "withdrawn")
    assert any("the anchor can't read it" in e.message for e in events if isinstance(e, Notice))
    late = done(events).late
    assert late is not None
    assert (late.steered_back, late.gave_up) == ((), True), "nothing was mixed"
    assert summary(done(events)).startswith("withdrawn: it turned harmful while it grew")


def test_a_draft_that_can_not_be_put_back_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> Any:
        raise ContextFull("40 cells are full")

    made = world()
    monkeypatch.setattr(BeamSearch, "rewind", full)
    events = made.events(**READS, on_unsafe="lowest", alpha=1.0, depth=2, refusal_text="No.")
    assert (shown(events), done(events).text, done(events).finish_reason) == ("No.", "No.", "withdrawn")
    assert any("the draft can't be put back" in notice for notice in done(events).notices)


@pytest.mark.parametrize("error", [ContextFull("too small"), ModelError("broken"), MemoryError()])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("every", [None, 13])
def test_a_judge_that_fails_at_a_window_leaves_nothing_of_the_answer(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, at: int, every: int | None
) -> None:
    """The first verdict, a safe window, a suspected one, and the one that is sure."""
    made, events = world(), list[Event]()
    made.models.judge = cast(Judge, failing_judge(at, error))
    with pytest.raises(type(error)):
        made.events(**READS, judge_every=every, on_unsafe="lowest", depth=2, consume=events.append)
    assert shown(events) == ""


def failing_judge(at: int, error: BaseException) -> FakeJudge:
    """Fails the nth time."""
    judge = FakeJudge(UNSAFE)
    whole = judge.judge

    def failing(turns: Sequence[Message], answers: Sequence[str], *rest: Any) -> list[Verdict]:
        if len(judge.seen) + 1 == at:
            raise error
        return whole(turns, answers, *rest)

    judge.judge = failing  # type: ignore[method-assign, assignment]
    return judge


@pytest.mark.parametrize("trace", [False, True])
def test_the_json_of_an_answer_that_was_put_back_holds_what_stands(trace: bool) -> None:
    out = io.StringIO()
    view = JsonView(out, trace=trace)
    for event in world().events(**READS, on_unsafe="refuse", alpha=1.0, depth=2):
        view.show(event)
    assert json.loads(out.getvalue().splitlines()[-1])["text"] == f"{KIND}I stop."


def test_with_one_mixed_token_too_the_anchor_holds_its_prompt_once() -> None:
    """Decoded a second time for the beam, it would not fit beside itself."""
    made = world()
    asked = len(made.models.anchors[0].model.format.encode(COOK, ANCHOR))
    made.anchor.num_cells = asked + 2 * len(KIND)
    result = made.result(**READS, on_unsafe="refuse", alpha=1.0, depth=1)
    assert result.text.startswith(f"{KIND}I")


@pytest.mark.parametrize("spare", [0, -1])
def test_an_anchor_reads_no_more_than_it_was_made_for(spare: int) -> None:
    """Its cells would hold more: behind its context it would say anything."""
    fits = world()
    asked = len(fits.models.anchors[0].model.format.encode(COOK, ANCHOR))
    made = world(anchor_context=asked + len(KIND) + 4 + spare)
    result = made.result(**READS, on_unsafe="refuse", alpha=1.0, depth=4, refusal_text="No.")
    assert result.late is not None
    assert (result.text, result.late.gave_up) == (("No.", True) if spare else (f"{KIND}I stop.", False))


# --- knobs


def test_read_while_it_grows_it_is_judged_and_at_first_after_a_window() -> None:
    config = Config.of({"late": "judge", "beams": 1})
    assert config.judged
    assert config.first_verdict_at == 64
    assert Config.of({"late": "judge", "late_every": 32}).first_verdict_at == 32
    assert Config.of({"late": "judge", "judge_at": 20}).first_verdict_at == 20


def test_the_anchor_has_room_for_what_was_said() -> None:
    knobs = {"draft": "d", "anchor": "a", "judge": "j", "max_tokens": 200}
    plain, late = (context_sizes(Config.of({**knobs, "late": by})) for by in ("off", "window"))
    assert late["anchor"].shared_cells == plain["anchor"].shared_cells + 400
    assert late["draft"] == plain["draft"]


def test_the_head_is_needed_for_windows_though_it_does_not_vote() -> None:
    config = Config.of({"late": "head"})
    assert config.needs_answer_head
    assert not config.reads_answers
