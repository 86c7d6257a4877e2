"""What is seen of an answer that turned harmful: on a terminal, in /why, in a trace, by a server's client."""

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from alignbeam_local.cli.views.story import summary
from alignbeam_local.cli.views.view import JsonView, PlainView, RecordingView, SilentView, told_withdrawn
from alignbeam_local.cli.views.why import explained

from alignbeam_local.config import Config
from alignbeam_local.events import AnswerText, Done, Event, SteeredBack, Step, WindowRead, Withdrawn
from alignbeam_local.result import FinishReason, Late, Result, Verdict, Window
from alignbeam_local.result_json import parsed, traced_object
from alignbeam_local.server.protocol.chat_request import OwnFields
from alignbeam_local.server.protocol.completion import Head
from alignbeam_local.server.protocol.open_events import told_events
from alignbeam_local.server.protocol.record import Record
from alignbeam_local.server.served import guarded
from alignbeam_local.server.work.jobs import JobEvent
from alignbeam_local.warm.wire import heard, told
from tests.fake_engine import STEP, fake_result
from tests.screen import Screen

CONFIG = Config.of({"late": "window"})
WINDOWS = (Window(64, 128, 1.0, "safe", 0.0), Window(128, 192, 5.0, "unsafe", 0.2))
LATE = Late("window", (*WINDOWS, Window(192, 256, None, "unscored", 0.36)), (128,))


def answered(late: Late, finish: FinishReason = "stop") -> Result:
    return replace(fake_result("x", CONFIG, finish), late=late)


def test_the_line_about_an_answer_says_that_it_was_steered_back() -> None:
    assert "turned harmful and steered back · " in summary(answered(LATE))
    twice = replace(LATE, steered_back=(128, 128))
    assert "turned harmful and steered back 2 times · " in summary(answered(twice))
    given_up = replace(twice, gave_up=True)
    line = summary(answered(given_up, "withdrawn"))
    assert line.startswith("withdrawn: it turned harmful while it grew")
    assert "steered back" not in line
    assert "steered" not in summary(answered(Late("head", WINDOWS)))


def test_why_has_every_window_and_where_it_was_put_back() -> None:
    screen = Screen(200, 60)
    screen.console().print(explained(answered(replace(LATE, gave_up=True), "withdrawn"), [], 200))
    text = " ".join(screen.lines)
    assert "read by the judge, each window by itself" in text
    assert "65-128: 1.00, 129-192: 5.00, 193-256: no score" in text
    assert "put back to its first 128 tokens and mixed again" in text
    assert "once more, and was refused" in text


def test_why_says_of_no_first_time_that_it_was_once_more() -> None:
    screen = Screen(200, 60)
    late = replace(LATE, steered_back=(), gave_up=True)
    screen.console().print(explained(answered(late, "withdrawn"), [], 200))
    assert "It turned harmful, and was refused." in " ".join(screen.lines)


def test_a_terminal_says_that_only_the_end_was_taken_back() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    view = PlainView(out)
    for event in (AnswerText("Good. Bad."), Withdrawn("Good.", stands=5), AnswerText(" Better.")):
        view.show(event)
    view.close()
    first, said, last = out.getvalue().splitlines()
    assert (first, last) == ("Good. Bad.", "Good. Better.")
    assert said.startswith("[withdrawn: the end of the answer above")
    assert told_withdrawn(Withdrawn("No."), "it") == "withdrawn: it did not stand"


def test_steps_of_what_was_taken_back_are_kept_nowhere() -> None:
    happened: list[JobEvent] = [
        *(step(1, position) for position in (0, 1, 130, 131)),
        step(0, 131),
        SteeredBack(1, 130, 1),
        step(1, 130),
    ]
    view, record = RecordingView(SilentView()), Record(cast(Any, None))
    for event in happened:
        view.show(cast(Event, event))
    record.take(happened)
    assert view.steps == record.steps
    assert [(each.beam, each.position) for each in view.steps] == [(1, 0), (1, 1), (0, 131), (1, 130)]


def step(beam: int, position: int) -> Step:
    return replace(STEP, beam=beam, position=position)


def test_a_trace_tells_windows_and_steps_back() -> None:
    out = io.StringIO()
    view = JsonView(out, trace=True)
    view.show(WindowRead(1, WINDOWS[1]))
    view.show(SteeredBack(1, 128, 1))
    first, second = map(parsed, out.getvalue().splitlines())
    assert first == {
        **{"event": "window", "beam": 1, "start": 128, "end": 192},
        **{"score": 5.0, "verdict": "unsafe", "risk": 0.2},
    }
    assert second == {"event": "steered_back", "beam": 1, "tokens": 128, "attempt": 1}
    assert traced_object(WindowRead(0, LATE.windows[2]))["score"] is None


@pytest.mark.parametrize(
    "event",
    [WindowRead(1, WINDOWS[0]), SteeredBack(0, 64, 2), Withdrawn("a", stands=1), Done(answered(LATE))],
    ids=lambda event: type(event).__name__,
)
def test_a_running_server_tells_all_of_it(event: Event) -> None:
    found = heard(told(event))
    if isinstance(event, Done):
        assert isinstance(found, Done)
        assert found.result.late == event.result.late
    else:
        assert found == event


def test_a_client_that_sees_all_events_sees_these() -> None:
    names = [one["event"] for one in told_events([WindowRead(0, WINDOWS[0]), SteeredBack(0, 64, 1)])]
    assert names == ["window_read", "steered_back"]


def test_text_that_was_sent_before_its_verdict_is_repeated_as_far_as_it_stands() -> None:
    record = Record(None)  # type: ignore[arg-type]
    added = [record.take([event]) for event in (AnswerText("Good. Bad."), Withdrawn("Good.", stands=5))]
    added.append(record.take([AnswerText(" Better.")]))
    assert added == ["Good. Bad.", "\n\nGood.", " Better."]


@pytest.mark.parametrize("stream", ["window", "hold"])
def test_a_server_shows_nothing_that_no_verdict_passed(stream: Any) -> None:
    knobs = guarded(CONFIG, OwnFields(stream=stream))
    assert (knobs.late, knobs.on_unsafe) == ("window", "refuse")
    assert knobs.judge_every is not None
    assert guarded(CONFIG, OwnFields(judge=False)).late == "off"


@pytest.mark.parametrize(
    ("scores", "finish", "found"),
    [
        ((1.25, 3.5, 1.0), "withdrawn", ("medium", 3.5)),
        ((1.25, None, 1.0), "withdrawn", ("high", None)),
        ((1.25, 1.5, 1.0), "withdrawn", ("low", 1.5)),  # it looped
        ((4.5, 3.5, 4.0), "blocked", ("medium", 3.5)),
        ((1.25, None, 4.5), "stop", ("safe", 1.25)),
    ],
)
def test_the_harm_of_a_withdrawn_answer_is_not_that_of_beams_that_passed(
    scores: tuple[float | None, ...], finish: FinishReason, found: tuple[str, float | None]
) -> None:
    result = answered(LATE, finish)
    verdicts = [
        Verdict(s, s, {}, "unscored" if s is None else "safe" if s <= 2.5 else "unsafe") for s in scores
    ]
    beams = [replace(result.beams[0], index=at, judge=verdict) for at, verdict in enumerate(verdicts)]
    job = SimpleNamespace(judge_record=None, batched_with=0)
    record = Record(cast(Any, job), result=replace(result, beams=tuple(beams)))
    (choice,) = Head.new("pair", "").whole(record, (), shows_all=False)["choices"]
    harm = choice["content_filter_results"]["harm"]
    assert (harm["severity"], harm["score"]) == found
