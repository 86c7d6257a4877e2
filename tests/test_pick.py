"""`/pick`: another safe beam as the answer, and nothing else; `/why N` shows a beam whole."""

from dataclasses import replace
from typing import Any

import pytest

from alignbeam_local.config import Config
from alignbeam_local.conversation.conversation import Conversation
from alignbeam_local.conversation.log import ConversationLog
from alignbeam_local.conversation.pick import picked
from alignbeam_local.errors import UsageError
from alignbeam_local.events import Done
from alignbeam_local.result import BeamResult, Refusal, Result, Steering, Usage, Verdict, VerdictName
from tests import fake_engine
from tests.fake_engine import BEAMS, STEP, fake_result
from tests.fake_lm import scripted_row
from tests.fake_loader import FakeLoader, FakeModel
from tests.running import run
from tests.test_answer import DRAFT, HELP, OTHER

REFUSAL = "I'm sorry, but I can't help with that."


def beam(index: int, text: str = "text", verdict: VerdictName | None = "safe", **changed: Any) -> BeamResult:
    judge = Verdict(2.0, 2.0, {"1": 0.5, "5": 0.5}, verdict) if verdict else None
    return replace(BeamResult(index, text, 4, 2, "stop", -1.0, False, judge), **changed)


def result(*beams: BeamResult, chosen: int | None = 0) -> Result:
    whole = fake_result("text", Config())
    return replace(whole, beams=beams, chosen=chosen, usage=Usage(10, 4 if chosen is not None else 0))


def test_a_safe_beam_becomes_the_answer() -> None:
    got = picked(result(beam(0), beam(1, "other", tokens=7, finish_reason="length")), 1, [])
    assert (got.text, got.chosen, got.finish_reason) == ("other", 1, "length")
    assert got.usage == Usage(10, 7)
    assert got.refusal == Refusal(False, None)
    assert got.notices == ("beam 2 was picked by hand",)


def test_what_was_read_as_harmful_gets_no_other_answer_than_a_refusal() -> None:
    """The judge passed it all the same; where nothing is refused for its request it may be picked."""
    read = Steering(0.9, 0.9, "harmful", "head", 0.2, 0.8, 0.5)
    blocked = replace(result(beam(0), beam(1, REFUSAL), chosen=None), steering=read)
    with pytest.raises(UsageError, match="read as harmful"):
        picked(blocked, 0, [])
    assert picked(blocked, 1, []).text == REFUSAL
    for knobs in ({"choice": "safest"}, {"on_unsafe": "lowest"}):
        assert picked(replace(blocked, config=blocked.config | knobs), 0, []).text == "text"


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (beam(1, verdict="unsafe"), "judged harmful"),
        (beam(1, verdict="unscored"), "could not score"),
        (beam(1, verdict=None), "not judged"),
        (beam(1, finish_reason="cancelled"), "dropped at token 4"),
        (beam(1, "", degenerate=True), "empty"),
    ],
)
@pytest.mark.parametrize("chosen", [0, None])
def test_no_other_beam_does(other: BeamResult, why: str, chosen: int | None) -> None:
    with pytest.raises(UsageError, match=why):
        picked(result(beam(0), other, chosen=chosen), 1, [])


@pytest.mark.parametrize("index", [-1, 0, 2])
def test_neither_the_answer_itself_nor_one_that_is_not_there(index: int) -> None:
    with pytest.raises(UsageError, match=f"beam {index + 1}"):
        picked(result(beam(0), beam(1)), index, [])


@pytest.mark.parametrize(("won_by", "by"), [("anchor", "mix"), ("both", "draft")])
def test_whose_refusal_it_is_is_told_by_its_own_steps(won_by: Any, by: Any) -> None:
    first = replace(
        STEP, beam=1, won_by=won_by, token=7, draft_token=5 if won_by == "anchor" else 7, p_draft=0.01
    )
    got = picked(result(beam(0), beam(1, REFUSAL)), 1, [replace(STEP, beam=0), first])
    assert got.refusal == Refusal(True, by)


@pytest.fixture
def two_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake engine's third beam is safe, too."""
    judged = fake_engine.judged_beams

    def with_a_second(config: Config) -> Any:
        for event in judged(config):
            if isinstance(event, Done):
                safe = Verdict(1.5, 1.5, {"1": 0.75, "3": 0.25}, "safe")
                beams = event.result.beams
                yield replace(
                    event, result=replace(event.result, beams=(*beams[:2], replace(beams[2], judge=safe)))
                )
            else:
                yield event

    monkeypatch.setattr(fake_engine, "judged_beams", with_a_second)


@pytest.mark.usefixtures("engines", "two_safe")
def test_conversation_and_log_follow(engines: list[Any]) -> None:
    ran = run("chat", given="beams\n/pick 2\n/pick 1\n/pick x\n/pick 3\necho: on\n")
    assert ran.code == 1
    for why in ("beam 2 was judged harmful", "beam 1 is the answer already", "/pick needs the number"):
        assert f"error: {why}" in ran.err
    assert ran.out.count("日本") == 1
    assert [turn.content for turn in engines[0].asked[-1][0]] == ["beams", BEAMS[2], "echo: on"]
    with ConversationLog() as log:
        (one,) = log.conversations()
        first, _ = log.exchanges(one.id)
    assert (first.answer, first.result["chosen"]) == (BEAMS[2], 2)
    assert [old.answer for old in first.earlier] == [BEAMS[0]]


@pytest.mark.usefixtures("engines", "two_safe")
def test_why_shows_a_beam_whole() -> None:
    ran = run("chat", given="beams\n/why 3\n/why 2\n/why\n")
    assert "Beam 3, safe: " in ran.out
    assert "Yes, [31mlike this:\n\n日本" in ran.out
    assert "the judge's probabilities: 1: 0.750, 3: 0.250" in ran.out
    assert "Beam 2, unsafe: " in ran.out
    assert ran.out.count("Beam 3, ") == 1


@pytest.mark.usefixtures("engines")
def test_there_must_be_an_answer_to_pick_from() -> None:
    ran = run("chat", given="/pick 1\n")
    assert "no answer of this run to pick from" in ran.err


def test_the_models_go_on_with_what_was_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fake_loader import fake_engine as real_engine

    row = scripted_row(
        DRAFT, {"cook?<|im_end|>\n<|im_start|>assistant\n": [HELP, OTHER], f"{OTHER}<|im_end|>": "so?"}
    )
    loader = FakeLoader({name: FakeModel(DRAFT, row) for name in ("draft", "anchor", "judge")})
    engine, config = real_engine(
        monkeypatch, loader, depth=2, beams=2, on_unsafe="lowest", prompt_cache="none"
    )
    with engine:
        talk = Conversation(engine)
        first = talk.answer("cook?", config)
        others = [one.index for one in first.beams if one.index != first.chosen]
        safe = tuple(replace(one, judge=Verdict(1.0, 1.0, {}, "safe")) for one in first.beams)
        talk._exchanges[-1] = replace(
            talk._exchanges[-1], result=replace(first, beams=safe, chosen=first.chosen)
        )
        talk.pick(others[0], [])
        assert talk.messages[-1].content == first.beams[others[0]].text
        assert talk.answer("more", config, beams=1).text
