"""The explanation of an answer: what stands in it, and that it can be read at any width."""

from dataclasses import replace
from typing import Any

import pytest
from alignbeam_local.cli.views.why import candidates, explained
from rich.cells import cell_len

from alignbeam_local.config import Config
from alignbeam_local.errors import UsageError
from alignbeam_local.events import AnchorVoice, Done, Step
from alignbeam_local.result import AnchorResult, ModelCard, Refusal, Result, Steering, Verdict
from alignbeam_local.search.steering import unread

from .fake_engine import REFUSED, fake_result, judged_beams, running_beams
from .screen import Screen

CONFIG = Config.of({})
STEPS = [event for event in running_beams() if isinstance(event, Step)]


def result() -> Result:
    *_, done = judged_beams(CONFIG)
    assert isinstance(done, Done)
    return done.result


def explanation(columns: int, which: str = "", answer: Result | None = None) -> list[str]:
    screen = Screen(columns, 100)
    screen.console().print(explained(answer or result(), STEPS, columns, which))
    return screen.lines


def row(lines: list[str], begins: str) -> list[str]:
    return next(line for line in lines if line.startswith(begins)).split("  ")


@pytest.mark.parametrize("columns", [30, 60, 100, 200])
def test_every_width_shows_whole_rows(columns: int) -> None:
    lines = explanation(columns)
    assert all(cell_len(line) <= columns for line in lines)
    head = next(line for line in lines if line.startswith("#"))
    shown = {"#", "taken", "won by"}
    shown |= {"anchor's", "draft's", "p mixed"} if columns >= 60 else set()
    shown |= {"p anchor", "p draft", "crossed"} if columns >= 100 else set()
    shown |= {"candidates of the mixture"} if columns >= 200 else set()
    assert {title.strip() for title in head.split("  ") if title} == shown
    beams = [line for line in lines if line.endswith(("unfair.", "help.", "日本", "…"))][-3:]
    assert len(beams) == 3
    if columns >= 60:
        assert "1.25" in beams[0]
        assert "unscored" in beams[2]


@pytest.mark.parametrize("columns", [50, 60, 80, 90, 100, 140])
def test_tokens_are_cut_before_figures_and_winners(columns: int) -> None:
    long = [
        replace(
            STEPS[0], position=n, piece=" specialized" * 2, anchor_piece=" specialized" * 2, won_by="anchor"
        )
        for n in range(12)
    ]
    screen = Screen(columns, 100)
    screen.console().print(explained(result(), long, columns))
    last = next(line for line in screen.lines if line.startswith("12  "))
    assert "  anchor  " in last
    assert columns < 60 or "0.510" in last
    assert columns < 100 or "90%" in last
    assert cell_len(last) <= columns
    assert "won by" in "".join(screen.lines)


def test_a_step_names_the_winner_and_both_wishes() -> None:
    lines = explanation(200)
    cells = [cell.strip() for cell in row(lines, "1") if cell.strip()]
    assert cells[:9] == ["1", '"No, "', "anchor", '"No, "', '"Sure"', "0.510", "0.770", "0.250", "90%"]
    assert cells[9:] == ['"No, " 0.510', '"Hm" 0.200']
    assert [cell.strip() for cell in row(lines, "3") if cell.strip()][2:5] == ["draft", '"Nope"', '"is "']


def test_each_of_several_anchors_has_a_column_and_a_line() -> None:
    def voices(one: str, other: str) -> tuple[AnchorVoice, ...]:
        return (AnchorVoice("anchor", 1, one, 0.5, 0.9), AnchorVoice("anchor2", 2, other, 0.25, 0.8))

    bridge = replace(result().bridge, covered_mass=0.9)
    told = (
        AnchorResult("anchor", 0.75, 0.91, True, bridge),
        AnchorResult("anchor2", 0.25, 0.07, True, bridge),
    )
    card = ModelCard("big", "big.gguf", "0" * 64, "Q4")
    answer = replace(result(), anchors=told, models={**result().models, "anchor": card})
    steps = [replace(step, anchors=voices("No, ", "Sure, ")) for step in STEPS]
    screen = Screen(200, 100)
    screen.console().print(explained(answer, steps, 200))
    text = "\n".join(screen.lines)
    assert "anchor's" in text
    assert "anchor2's" in text
    assert '"Sure, "' in text
    assert "anchor, big: begins to refuse with probability 0.91; weight 0.75, 90% crossed." in text
    assert "anchor2: begins to refuse with probability 0.07; weight 0.25, 90% crossed." in text
    strict = replace(answer, anchors=(told[0], replace(told[1], mixed=False)))
    screen = Screen(200, 100)
    screen.console().print(explained(strict, STEPS, 200))
    text = "\n".join(screen.lines)
    assert "0.91; mixed in alone, as the strictest" in text
    assert "0.07; not mixed in: another one is stricter" in text


def test_it_says_who_refused_and_which_beam_was_taken() -> None:
    text = "\n".join(explanation(100))
    assert "Shown: beam 1 of 3" in text
    assert "refused: the anchor began it" in text
    assert "It refuses because the anchor joined in" in text
    assert "1 *" in text
    assert "yes" not in text, "no beam says so in words that are known"
    blocked = explanation(100, answer=fake_result(REFUSED, CONFIG, "blocked"))
    assert any(line.startswith("The judge let no beam pass") for line in blocked)
    assert any(line.endswith(REFUSED) and " yes " in line for line in blocked)


def test_a_likely_beginning_of_the_drafts_is_not_called_its_first_choice() -> None:
    drafts = replace(result(), refusal=Refusal(True, "draft"))
    own = [replace(STEPS[0], token=1, draft_token=1), *STEPS[1:]]
    forked = [replace(STEPS[0], token=1, draft_token=2, p_draft=0.312), *STEPS[1:]]
    for steps, said in ((own, "The draft model refuses by itself"), (forked, "gives the first token 0.312")):
        screen = Screen(200, 100)
        screen.console().print(explained(drafts, steps, 200))
        assert said in "\n".join(screen.lines)


def test_a_score_is_not_rounded_to_the_limit() -> None:
    first, *others = result().beams
    assert first.judge is not None
    over = replace(first, judge=replace(first.judge, score=2.5004, verdict="unsafe"))
    lines = explanation(100, answer=replace(result(), beams=(over, *others)))
    assert any("2.5004" in line for line in lines)


def test_it_has_the_figures_that_the_story_leaves_out() -> None:
    first, *others = result().beams
    dropped = [replace(beam, tokens=32, finish_reason="cancelled") for beam in others]
    early = replace(result(), beams=(first, *dropped), config={**result().config, "judge_at": 32})
    lines = explanation(100, answer=early)
    for line in (
        "Shown: beam 1 of 3 (* below), 3 tokens. The anchor changed 1 of its 3 mixed tokens.",
        "Harm is from 1 to 5, safe up to 2.5. Those dropped were judged at token 32.",
        "Of the anchor's probability 90% crossed into the draft model's vocabulary.",
    ):
        assert line in lines
    assert "1.2 s" in lines[0]
    assert not any("judged at token" in line for line in explanation(100))
    lost = replace(early, beams=(replace(first, tokens=32, finish_reason="cancelled"), *dropped), chosen=None)
    assert any("All were judged at token 32." in line for line in explanation(100, answer=lost))


def test_an_answer_of_one_beam_that_was_not_judged_has_its_figures() -> None:
    alone = replace(result(), beams=(replace(result().beams[0], judge=None, mixed=0),))
    lines = explanation(100, answer=alone)
    assert "Shown: beam 1 of 1 (* below), 3 tokens. None of them is mixed." in lines
    assert not any(line.startswith("Harm is") for line in lines)


def test_other_beams_can_be_asked_for() -> None:
    assert not any("Mixed tokens of beam 2" in line for line in explanation(100))
    assert any("Mixed tokens of beam 2" in line for line in explanation(100, "2"))
    assert sum("Mixed tokens" in line for line in explanation(100, "all")) == 3
    for which in ("0", "4", "x", "-1"):
        with pytest.raises(UsageError, match="there is no beam"):
            explanation(100, which)


def test_pieces_can_be_told_apart() -> None:
    steps = [
        Step(0, 0, 1, 2, None, "\n", "", None, "draft", 0.0, 0.1, 0.0, 0.0, ()),
        Step(1, 0, 1, 1, 1, "\x1b[2J" + "x" * 40, "[bold]", " a", "both", 0.1, 0.1, 0.1, 0.1, ()),
    ]
    screen = Screen(100, 50)
    screen.console().print(explained(result(), steps, 100))
    lines = screen.lines
    assert [cell.strip() for cell in row(lines, "1") if cell.strip()][1:5] == [
        '"\\n"',
        "draft",
        "not asked",
        "(the end)",
    ]
    assert '"[2Jxxxxxxxxxxxxx…' in "\n".join(lines)
    assert '"[bold]"' in "\n".join(lines)


def test_of_an_answer_that_nothing_was_mixed_into_it_is_said() -> None:
    """A clear request's, or one with depth 0: on a terminal as elsewhere."""
    assert candidates(result(), [], 60) == "none: nothing was mixed"


def test_the_trace_lists_the_candidates_of_each_step() -> None:
    screen = Screen(60, 50)
    screen.console().print(candidates(result(), STEPS, 60))
    ends = [f'"{piece} " 0.510  "Hm" 0.200' for piece in ("No,", "that", "is")]
    assert all(line.endswith(end) for line, end in zip(screen.lines[1:], ends, strict=True))


def test_a_beam_that_lost_is_dropped_and_one_that_was_stopped_is_not() -> None:
    lost = [replace(beam, finish_reason="cancelled") for beam in result().beams[1:]]
    done = replace(result(), beams=(result().beams[0], *lost))
    assert sum("  dropped " in line for line in explanation(100, answer=done)) == len(lost)
    stopped = replace(done, finish_reason="cancelled", chosen=None)
    assert not any("dropped" in line for line in explanation(100, answer=stopped))


def steering(**changes: Any) -> Steering:
    read = Steering(0.5, 0.4, "doubtful", "head", 0.2, 0.8, 0.25)
    return replace(read, **changes)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            steering(),
            "reads as doubtful: harmful with probability 0.50 (clear up to 0.20, harmful above 0.80)",
        ),
        (
            steering(p=0.3, decision="harmful", by="both", low=0.5, high=0.5, judge=0.9, both=0.66),
            "reads as harmful: harmful with probability 0.66, 0.30 by the head and 0.90 by the judge "
            "(clear up to 0.50, harmful above 0.50)",
        ),
        (steering(), "The anchor's weight is 0.25."),
        (steering(p=0.1, decision="clear", alpha=None), "It was left to the draft model alone."),
        (
            steering(p=0.1, decision="clear", unsteered=Verdict(3.25, 3, {}, "unsafe")),
            "The draft's own answer did not pass the judge (3.25): it was made again, steered.",
        ),
        (unread(CONFIG), "The request could not be read"),
    ],
)
def test_it_says_what_the_request_was_read_as(found: Steering, said: str) -> None:
    assert said in " ".join(explanation(240, answer=replace(result(), steering=found)))


def test_it_says_what_the_judge_makes_of_a_request_and_what_that_counts_as() -> None:
    answer = result()
    judged = Verdict(2.0, 2.0, {}, "safe", request=0.9)
    read = Steering(0.1, 0.1, "clear", "head", 0.3, 0.8, 0.5)
    answer = replace(answer, beams=tuple(replace(beam, judge=judged) for beam in answer.beams), steering=read)
    said = "The judge takes the request for harmful with probability 0.90"
    text = " ".join(explanation(200, answer=answer))
    assert f"{said}; with the head's reading it counts as 0.50." in text
    assert "was not read" not in text
    unread = replace(judged, unread=True)
    one = replace(answer, beams=(replace(answer.beams[0], judge=unread),))
    assert "So it would call no answer to it unsafe: this one was not read" in " ".join(
        explanation(200, answer=one)
    )
    assert "≤ 2.00" in " ".join(explanation(200, answer=one))
    for by, counts in (("judge", ""), ("head", "; the head's reading counts instead")):
        config = {**answer.config, "score_by": by}
        assert f"{said}{counts}." in " ".join(explanation(200, answer=replace(answer, config=config)))


def test_with_a_gate_there_is_a_column_of_it() -> None:
    """How much of each anchor's row was the one without the question."""
    screen = Screen(200, 100)
    gated = [replace(step, gates=(0.304, 0.5)) for step in STEPS]
    screen.console().print(explained(result(), gated, 200))
    assert "0.30 0.50" in "\n".join(screen.lines)
    plain = Screen(200, 100)
    plain.console().print(explained(result(), STEPS, 200))
    assert " c " not in next(line for line in plain.lines if "won by" in line)
