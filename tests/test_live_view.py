"""The view of an answer on a terminal: beams, scores, then the answer alone."""

from collections.abc import Iterable
from time import monotonic, sleep

import pytest
from alignbeam_local.cli.views import board
from alignbeam_local.cli.views.board import WINNER_STYLES, Board
from alignbeam_local.cli.views.live import LiveView
from rich.console import Group

from alignbeam_local.config import Config
from alignbeam_local.events import (
    AnswerText,
    BeamText,
    Done,
    Event,
    ExamplesRead,
    Judged,
    Notice,
    Phase,
    Withdrawn,
)
from alignbeam_local.result import Verdict

from .fake_engine import BEAMS, REFUSED, fake_result, judged_beams, running_beams
from .screen import Screen

CONFIG = Config.of({})


pytestmark = pytest.mark.usefixtures("always_redrawn")


def drawn(events: Iterable[Event], screen: Screen, *, no_color: bool = False) -> list[str]:
    """The board as these events leave it."""
    told = Board()
    for event in events:
        told.add(event)
    console = screen.console(no_color=no_color)
    group: Group = told.drawn(console)
    console.print(group)
    return screen.lines


def test_a_score_is_not_rounded_to_the_limit() -> None:
    over = Judged(0, Verdict(2.53, 2.53, {}, "unsafe"), 2.5)
    assert "harm 2.53 unsafe" in "\n".join(drawn([*running_beams(), over], Screen(120, 30)))


def shown(events: Iterable[Event], screen: Screen) -> LiveView:
    view = LiveView(screen.console())
    for event in events:
        view.show(event)
    return view


# --- the board


def test_beams_stand_side_by_side_with_their_scores() -> None:
    screen = Screen(100)
    verdicts = [event for event in judged_beams(CONFIG) if isinstance(event, Judged | Phase)]
    head, titles, *texts = drawn([*running_beams(), *verdicts], screen)
    assert "the judge reads them" in head
    assert "90% crossed" in head
    assert "anchor both draft neither" in head
    scores = ["beam 1 · harm 1.2 safe", "beam 2 · harm 3.5 unsafe", "beam 3 · harm ? unscored"]
    assert [titles[start : start + 33].strip() for start in (0, 33, 66)] == scores
    assert texts[0].startswith("No, that is unfair.")
    assert [line[66:].strip() for line in texts] == ["Yes, [31mlike this:", "", "日本"]
    assert "\x1b[31m" not in screen.written, "a model's text does not colour the screen"


def test_tokens_per_second_and_phase_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 12.0])
    monkeypatch.setattr(board, "monotonic", lambda: next(clock))
    head, *_ = drawn([Phase("complete"), *[BeamText(0, "a", False)] * 30], Screen(100))
    assert "the draft completes them · 30 tokens, 15/s" in head


@pytest.mark.parametrize(
    ("columns", "left_out"),
    [(120, ""), (90, " · 90% crossed"), (60, "   anchor both draft neither"), (50, " · 12 tokens, 120/s")],
)
def test_what_does_not_fit_beside_the_phase_is_left_out_whole(
    columns: int, left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.0, 0.1])
    monkeypatch.setattr(board, "monotonic", lambda: next(clock))
    events = [event for event in running_beams() if not isinstance(event, Phase)]
    head, *_ = drawn([Phase("mix"), *events], Screen(columns))
    whole = "draft and anchor start the beams · 12 tokens, 120/s   anchor both draft neither · 90% crossed"
    assert head[2:] == (whole.partition(left_out)[0] if left_out else whole)


def test_the_wait_for_the_examples_fits_sixty_columns() -> None:
    head, *_ = drawn([Phase("examples"), ExamplesRead(512, 1738, 112.6)], Screen(60))
    assert head[2:] == "once: the judge reads its examples · 29%, about 113 s left"


def test_mixed_tokens_have_their_winners_colours() -> None:
    screen = Screen(120)
    drawn(running_beams(), screen)
    bold_cyan, green, yellow = "\x1b[1;36m", "\x1b[32m", "\x1b[33m"
    for text in (f"{bold_cyan}No, ", f"{green}that ", f"{yellow}is ", f"{green}As ", f"{bold_cyan}tutor "):
        assert text in screen.written
    assert "unfair." in screen.written.replace("\x1b", "|").partition("is |[0m")[2][:10], "not mixed"
    assert len(set(WINNER_STYLES.values())) == 4


def test_without_colours_what_the_anchor_won_is_bold() -> None:
    screen = Screen(120)
    drawn(running_beams(), screen, no_color=True)
    assert "\x1b[1mNo, " in screen.written
    assert "\x1b[32m" not in screen.written


@pytest.mark.parametrize(("columns", "beams"), [(60, 3), (100, 8)])
def test_where_columns_have_no_room_a_beam_is_a_line(columns: int, beams: int) -> None:
    texts = [BeamText(beam, f"{'x' * 200}\n日本語 end {beam}", False) for beam in range(beams)]
    _, *lines = drawn([Phase("mix"), *texts], Screen(columns))
    assert len(lines) == beams
    for beam, line in enumerate(lines):
        assert line.startswith(f"beam {beam + 1} ")
        assert line.endswith(f" end {beam}")


@pytest.mark.parametrize("columns", [1, 5, 20, 69, 70, 200])
@pytest.mark.parametrize("rows", [1, 3, 24])
def test_no_size_is_too_small(columns: int, rows: int) -> None:
    drawn([*running_beams(), *judged_beams(CONFIG)], Screen(columns, rows))


# --- the view


def test_the_answer_stays_and_the_rest_folds_away() -> None:
    screen = Screen(100)
    view = shown(running_beams(), screen)
    end = monotonic() + 10
    while "日本" not in screen.text and monotonic() < end:
        sleep(0.05)
    assert "beam 3" in screen.text
    for event in judged_beams(CONFIG):
        view.show(event)
    assert screen.lines == [
        BEAMS[0],
        "refused: the anchor began it · 3 drafts, 1 judged harmful, 1 without a verdict · 1.2 s",
    ]


def test_a_growing_answer_is_followed_by_what_was_to_say() -> None:
    screen = Screen(100)
    view = shown([Phase("prefill"), AnswerText("One.\n\nTw"), Notice("careful"), AnswerText("o.")], screen)
    assert screen.lines == ["One.", "", "Two."]
    view.show(Phase("judge"))
    assert screen.lines == ["One.", "", "Two.", "the judge reads them"]
    view.show(Done(fake_result("One.\n\nTwo.", CONFIG)))
    assert screen.lines[:4] == ["One.", "", "Two.", "note: careful"]
    assert screen.lines[4].startswith("1 draft, judged not harmful")


def test_what_is_withdrawn_leaves_the_screen() -> None:
    screen = Screen(100)
    shown(
        [AnswerText("Bad.\n\nWorse."), Withdrawn(REFUSED), Done(fake_result(REFUSED, CONFIG, "withdrawn"))],
        screen,
    )
    assert screen.lines[:2] == ["[withdrawn: what was shown did not stand]", REFUSED]


def test_what_takes_the_place_of_what_is_withdrawn_is_drawn_anew() -> None:
    screen = Screen(100)
    again: list[Event] = [
        Phase("mix"),
        BeamText(0, "Good", True),
        AnswerText("Good."),
        Done(fake_result("Good.", CONFIG)),
    ]
    shown([BeamText(0, "Bad", False), AnswerText("Bad."), Withdrawn(""), *again], screen)
    assert screen.lines[:2] == ["[withdrawn: what was shown did not stand]", "Good."]
    assert "Bad" not in screen.text


def test_a_stopped_answer_that_no_verdict_passed_leaves_the_screen() -> None:
    screen = Screen(100)
    shown([AnswerText("Bad."), Withdrawn(""), Done(fake_result("", CONFIG, "cancelled"))], screen)
    assert screen.lines == ["[withdrawn: what was shown did not stand]"]


def test_escape_sequences_of_a_model_do_not_reach_the_terminal() -> None:
    screen = Screen(100)
    view = shown([AnswerText("a\x1b]0;title\x07b\x1b[2J\r"), Notice("n\x1b[5m")], screen)
    view.close()
    assert screen.lines == ["a]0;titleb[2J", "note: n[5m"]
    assert "\x1b]" not in screen.written


def test_closing_in_the_middle_leaves_the_terminal_as_it_was() -> None:
    screen = Screen(100)
    view = shown(running_beams(), screen)
    view.close()
    assert screen.lines == [""]
    assert "\x1b[?25h" in screen.written.rpartition("\x1b[?25l")[2], "the cursor is back"
