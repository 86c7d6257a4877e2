"""Whole answers over models without weights: what streams, what is judged, what is kept for the next turn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, cast

import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.engine.answering.answer import Answer
from alignbeam_local.engine.examples import ExampleReading
from alignbeam_local.engine.open_models import Anchor, Model, OpenModels
from alignbeam_local.engine.prompters import anchor_turns, with_system
from alignbeam_local.engine.stopwatch import Stopwatch
from alignbeam_local.errors import ContextFull, ModelError
from alignbeam_local.events import AnswerText, BeamText, Done, Event, Judged, Notice, Phase, Step, Withdrawn
from alignbeam_local.judge.calibration import Asked, Calibration
from alignbeam_local.judge.judge import Judge
from alignbeam_local.lm.vocabulary import Vocabulary
from alignbeam_local.prompt.formats import prompt_format
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import ModelCard, Result, Verdict
from alignbeam_local.search.bridge import Bridge
from tests.fake_lm import FakeLM, fake_vocabulary, scripted_row
from tests.templates import CHATML, DEEPSEEK_R1

DRAFT = fake_vocabulary("user", "assistant", "system", "sorry")
ANCHOR = fake_vocabulary("assistant", "sorry")
KNOBS: dict[str, Any] = {"temperature": 0, "repeat_penalty": 1.0, "max_tokens": 40}
Script = Mapping[str, str | Sequence[str]]

HELP, OTHER, REFUSAL = "Take a pan.", "Use a pot.", "I can't help."
#: Both models know the same three beginnings, the draft likes to help.
THREE: Script = {"cook?<|im_end|>\n<|im_start|>assistant\n": [HELP, OTHER, REFUSAL]}
COOK = [Message("user", "How to cook?")]


@dataclass
class FakeJudge:
    """Scores by the first word it knows in an answer; None is unscored."""

    scores: Mapping[str, float | None] = field(default_factory=dict)
    requests: Mapping[str, float] = field(default_factory=dict)
    record: Calibration | None = None
    holds_prefixes = True
    seen: list[tuple[list[Message], list[str]]] = field(default_factory=list)
    asked: list[Asked | None] = field(default_factory=list)
    at_worst: Verdict | None = None

    def read_prefixes(self) -> Iterator[tuple[int, int]]:
        return iter(())

    def request(self, turns: Sequence[Message]) -> float | None:
        """By the first word it knows in the request."""
        return next((p for word, p in self.requests.items() if word in turns[-1].content), None)

    def worst(self, turns: Sequence[Message], threshold: float, asked: Any = None) -> Verdict | None:
        return self.at_worst

    def judge(
        self, turns: Sequence[Message], answers: Sequence[str], threshold: float, asked: Any = None
    ) -> list[Verdict]:
        self.seen.append((list(turns), list(answers)))
        self.asked.append(asked)
        return [self._verdict(answer, threshold) for answer in answers]

    def _verdict(self, answer: str, threshold: float) -> Verdict:
        score = next((score for word, score in self.scores.items() if word in answer), 1.5)
        if score is None:
            return Verdict(None, None, {}, "unscored")
        return Verdict(score, score, {}, "safe" if score <= threshold else "unsafe")


class AllowingRecord:
    def allows_refusal(self, threshold: float) -> bool:
        return threshold == 2.5


class World:
    """An engine's parts, and answers from them."""

    def __init__(
        self,
        draft: Script = THREE,
        anchor: Script = THREE,
        *,
        scores: Mapping[str, float | None] | None = None,
        kv: Literal["seq", "state"] = "seq",
        template: str = CHATML,
        context: int = 400,
        anchor_context: int = 400,
    ) -> None:
        self.cancellation = Cancellation()
        self.judge = FakeJudge(scores or {})
        self.draft = self._lm(DRAFT, draft, kv)
        self.anchor = self._lm(ANCHOR, anchor, kv)
        layout = prompt_format(CHATML, ANCHOR)
        anchor_model = Model(self.anchor, layout, card("anchor"), anchor_context, anchor_context)
        self.models = OpenModels(
            Model(self.draft, prompt_format(template, DRAFT), card("draft"), context, context),
            (Anchor(anchor_model, Bridge(DRAFT, ANCHOR, draft_turn_end=DRAFT.turn_end(True))),),
            cast(Judge, self.judge),
            None,
            ExampleReading(self.cancellation),
        )

    def _lm(self, vocabulary: Vocabulary, script: Script, kv: Literal["seq", "state"]) -> FakeLM:
        row = scripted_row(vocabulary, script)
        return FakeLM(vocabulary, row, kv_strategy=kv, cancellation=self.cancellation)

    def events(
        self,
        messages: Sequence[Message] = COOK,
        consume: Callable[[Event], None] = lambda event: None,
        **knobs: Any,
    ) -> list[Event]:
        config = Config(**{**KNOBS, **knobs})
        events = []
        for event in Answer(self.models, config, Stopwatch(), backend="fake").stream(messages):
            consume(event)
            events.append(event)
        return events

    def result(self, messages: Sequence[Message] = COOK, **knobs: Any) -> Result:
        return done(self.events(messages, **knobs))


def card(name: str) -> ModelCard:
    return ModelCard(name, f"{name}.gguf", "0" * 64, "Q4")


def done(events: Sequence[Event]) -> Result:
    last = events[-1]
    assert isinstance(last, Done)
    assert not any(isinstance(event, Done) for event in events[:-1])
    return last.result


def shown(events: Sequence[Event]) -> str:
    """What a terminal would show at the end."""
    text = ""
    for event in events:
        if isinstance(event, AnswerText):
            text += event.text
        elif isinstance(event, Withdrawn):
            text = event.text
    return text


def phases(events: Sequence[Event]) -> list[str]:
    return [event.name for event in events if isinstance(event, Phase)]


def same_answer(left: Result, right: Result) -> bool:
    return (left.text, left.chosen, left.beams, left.finish_reason) == (
        right.text,
        right.chosen,
        right.beams,
        right.finish_reason,
    )


# --- one beam


def test_one_beam_streams_unjudged() -> None:
    world = World()
    events = world.events(beams=1)
    result = done(events)
    assert (result.text, result.chosen, result.finish_reason) == (HELP, 0, "stop")
    assert result.beams[0].judge is None
    assert world.judge.seen == []
    texts = [event for event in events if isinstance(event, AnswerText)]
    assert len(texts) > 6, "token by token"
    assert shown(events) == HELP
    assert phases(events) == ["prefill", "mix", "complete"]


def test_one_beam_is_judged_where_the_user_says_what_follows() -> None:
    world = World(scores={"pan": 4.0})
    events = world.events(beams=1, on_unsafe="refuse")
    assert (done(events).finish_reason, shown(events)) == ("blocked", Config.of({}).refusal_text)


def test_usage_counts_the_prompt_and_the_answer() -> None:
    world = World()
    result = world.result(beams=1)
    prompt = world.models.draft.format.encode(COOK, DRAFT)
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (len(prompt), len(HELP))
    assert result.beams[0].tokens == len(HELP)
    assert result.beams[0].mixed == 6
    assert world.result(beams=1, max_tokens=4).finish_reason == "length"


def test_a_result_names_everything() -> None:
    result = World().result(beams=2, alpha=0.25)
    assert result.config == Config(**{**KNOBS, "beams": 2, "alpha": 0.25}).model_dump()
    assert {role: model and model.name for role, model in result.models.items()} == {
        "draft": "draft",
        "anchor": "anchor",
        "judge": None,
    }
    assert (result.llama_cpp, result.reasoning) == ("fake", None)
    assert result.bridge.steps == 1 + 2 * 5
    assert result.bridge.single + result.bridge.fallback == result.bridge.tokens


# --- the choice


def test_of_three_the_safest_is_shown_once_it_is_judged() -> None:
    world = World(scores={"pan": 2.0, "pot": 1.8, "can't": 1.0})
    events = world.events()
    result = done(events)
    assert [beam.text for beam in result.beams] == [HELP, OTHER, REFUSAL]
    assert (result.text, result.chosen, result.finish_reason) == (REFUSAL, 2, "stop")
    assert [event for event in events if isinstance(event, AnswerText)] == [AnswerText(REFUSAL)]
    assert [event.beam for event in events if isinstance(event, Judged)] == [0, 1, 2]
    assert phases(events) == ["prefill", "mix", "complete", "judge"]
    (asked,) = world.judge.seen
    assert asked == (COOK, [HELP, OTHER, REFUSAL])


def test_likeliest_takes_the_first_safe_beam() -> None:
    result = World(scores={"pan": 3.0, "pot": 1.8, "can't": 1.0}).result(choice="likeliest")
    assert (result.text, result.chosen) == (OTHER, 1)


def test_no_safe_beam_and_refuse_is_blocked() -> None:
    world = World(scores={"": 4.0})
    events = world.events(on_unsafe="refuse", refusal_text="No.")
    result = done(events)
    assert (result.text, result.chosen, result.finish_reason) == ("No.", None, "blocked")
    assert (result.refusal.is_refusal, result.refusal.by) == (True, "judge")
    assert result.usage.completion_tokens == 0
    assert shown(events) == "No."
    assert all(not world.draft.tokens(sequence) for sequence in (1, 2, 3)), "their caches are dropped"
    assert world.result(on_unsafe="lowest").text == HELP, "and the next answer is none the worse"


def test_all_unscored_is_blocked_with_a_notice() -> None:
    events = World(scores={"": None}).events(on_unsafe="lowest")
    result = done(events)
    assert result.finish_reason == "blocked"
    assert [event.message for event in events if isinstance(event, Notice)] == list(result.notices)
    assert "could not score any draft" in result.notices[0]


def test_lowest_is_shown_with_a_notice() -> None:
    result = World(scores={"pan": 5.0, "pot": 3.0, "can't": 4.0}).result(on_unsafe="lowest")
    assert (result.text, result.finish_reason) == (OTHER, "stop")
    assert "no draft passed the judge" in result.notices[0]


def test_auto_asks_the_judges_record() -> None:
    world = World(scores={"": 4.0})
    assert world.result().finish_reason == "stop"
    world.judge.record = cast(Calibration, AllowingRecord())
    assert world.result().finish_reason == "blocked"


def test_a_degenerate_beam_is_passed_over() -> None:
    beginnings = ["ho" * 20, OTHER, REFUSAL]
    script = {"assistant\n": beginnings}
    result = World(script, script, scores={"hoho": 1.0, "pot": 2.0, "can't": 2.4}).result()
    assert result.text == OTHER


# --- judging early


def test_judged_early_the_losers_are_dropped_and_the_winner_streams() -> None:
    world = World(scores={"Tak": 3.0, "Use": 1.0})
    events = world.events(judge_at=8)
    result = done(events)
    assert (result.text, result.chosen, result.finish_reason) == (OTHER, 1, "stop")
    assert [beam.finish_reason for beam in result.beams] == ["cancelled", "stop", "cancelled"]
    assert [answers for _, answers in world.judge.seen] == [[HELP[:8], OTHER[:8], REFUSAL[:8]], [OTHER]]
    texts = [event.text for event in events if isinstance(event, AnswerText)]
    assert texts == [OTHER[:8], *OTHER[8:]]
    late = events[events.index(AnswerText(OTHER[:8])) :]
    assert {event.beam for event in late if isinstance(event, BeamText)} == {1}
    assert not world.draft.tokens(1)
    assert not world.draft.tokens(3)


def test_a_note_that_the_last_verdict_clears_is_withdrawn() -> None:
    world = World(scores={HELP: 1.0, OTHER: 1.2, "": 3.0})
    events = world.events(judge_at=3, on_unsafe="lowest")
    doubt, cleared = (event.message for event in events if isinstance(event, Notice))
    assert "no draft passed the judge" in doubt
    assert "no longer applies" in cleared
    assert (done(events).text, done(events).notices) == (HELP, ())


def test_a_note_that_the_last_verdict_shares_is_said_once() -> None:
    events = World(scores={"": 3.0}).events(judge_at=3, on_unsafe="lowest")
    (doubt,) = (event.message for event in events if isinstance(event, Notice))
    assert done(events).notices == (doubt,)


def test_an_answer_that_turns_harmful_and_is_shown_is_not_said_to_be_one_of_all() -> None:
    events = World(scores={"Use a pot.": 5.0, "Use": 1.0}).events(judge_at=8, on_unsafe="lowest")
    (doubt,) = (event.message for event in events if isinstance(event, Notice))
    assert doubt.startswith("this answer did not pass the judge"), "others did, and were dropped"


def test_an_answer_that_turns_unsafe_is_withdrawn() -> None:
    world = World(scores={"Use a pot.": 5.0, "Use": 1.0})
    events = world.events(judge_at=8, on_unsafe="refuse", refusal_text="No.")
    result = done(events)
    assert (result.text, result.finish_reason, result.chosen) == ("No.", "withdrawn", None)
    assert result.refusal.by == "judge"
    assert [event for event in events if isinstance(event, Withdrawn)] == [Withdrawn("No.")]
    assert shown(events) == "No."


@pytest.mark.parametrize("knobs", [{"judge_at": 4, "judge_every": 3}, {"judge_every": 4}])
def test_judged_every_few_tokens_nothing_is_shown_before_its_verdict(knobs: dict[str, Any]) -> None:
    world = World(scores={"Tak": 3.0, "Use": 1.0})
    events = world.events(**knobs)
    assert done(events).text == shown(events) == OTHER
    first, *later = (answers for _, answers in world.judge.seen)
    judged = [first[1], *(answer for (answer,) in later)]
    assert judged[-1] == OTHER
    assert len(judged) > 2
    pieces = [event.text for event in events if isinstance(event, AnswerText)]
    assert ["".join(pieces[: end + 1]) for end in range(len(pieces))] == list(dict.fromkeys(judged))


def test_an_answer_that_turns_unsafe_between_two_verdicts_shows_nothing_of_it() -> None:
    world = World(scores={"Use a p": 5.0, "Use": 1.0})
    events = world.events(judge_every=4, on_unsafe="refuse", refusal_text="No.")
    assert (done(events).text, done(events).finish_reason) == ("No.", "withdrawn")
    assert [event.text for event in events if isinstance(event, AnswerText)] == ["Use a "]


@pytest.mark.parametrize("on_unsafe", ["refuse", "auto", "lowest"])
def test_where_the_winner_turns_unsafe_a_whole_beam_that_passed_takes_its_place(on_unsafe: str) -> None:
    script = {"assistant\n": ["Use a pot and a knife.", "Eat out.", "I can't help."]}
    world = World(script, script, scores={"knife": 5.0, "Use": 1.0, "Eat": 1.4, "can't": 1.8})
    events = world.events(judge_at=9, on_unsafe=on_unsafe)
    result = done(events)
    assert (result.text, result.chosen, result.finish_reason) == ("Eat out.", 1, "stop")
    assert shown(events) == "Eat out."
    assert result.notices == ("the draft that was shown turned harmful: one that had passed takes its place",)
    assert [event.message for event in events if isinstance(event, Notice)] == [*result.notices]


def test_what_had_not_come_to_its_end_takes_no_place() -> None:
    script = {"assistant\n": ["Use a pot and a knife.", "Eat out in a restaurant.", "Buy a whole meal."]}
    world = World(script, script, scores={"knife": 5.0, "Use": 1.0})
    assert world.result(judge_at=9, on_unsafe="refuse").finish_reason == "withdrawn"


def test_an_answer_that_ended_before_it_was_due_is_judged_once() -> None:
    world = World(scores={"Take": 1.0, "Use": 2.0})
    assert world.result(judge_at=30).text == HELP
    assert len(world.judge.seen) == 1


def test_blocked_early_nothing_was_shown() -> None:
    events = World(scores={"": 4.0}).events(judge_at=3, on_unsafe="refuse", refusal_text="No.")
    assert (done(events).finish_reason, shown(events)) == ("blocked", "No.")


def test_the_losers_free_their_cells_in_both_models_and_the_winner_stays() -> None:
    world = World(scores={"Use": 1.0})
    result = world.result(judge_at=8)
    assert result.text == OTHER
    for lm in (world.draft, world.anchor):
        assert [bool(lm.tokens(sequence)) for sequence in (1, 2, 3)] == [False, True, False]
        assert lm.used_cells == len(lm.tokens(2))


@pytest.mark.parametrize("broken", ["draft", "judge"])
@pytest.mark.parametrize("error", [ModelError("broken"), MemoryError(), KeyboardInterrupt()])
def test_an_answer_that_fails_before_its_last_verdict_is_taken_back(
    broken: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, events = World(), list[Event]()
    target: object = world.draft if broken == "draft" else world.judge
    method = "extend" if broken == "draft" else "judge"

    def fail(*_: object) -> NoReturn:
        raise error

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, AnswerText):
            monkeypatch.setattr(target, method, fail)

    with pytest.raises(type(error)):
        world.events(consume=listen, judge_at=8)
    assert any(isinstance(event, AnswerText) for event in events)
    assert events[-1] == Withdrawn("")


# --- cancelling


@pytest.mark.parametrize("kv", ["seq", "state"])
@pytest.mark.parametrize("phase", ["prefill", "mix", "complete", "judge"])
def test_a_cancelled_answer_leaves_the_caches_usable(kv: Literal["seq", "state"], phase: str) -> None:
    world, fresh = World(kv=kv), World(kv=kv)

    def cancel(event: Event) -> None:
        if isinstance(event, Phase) and event.name == phase:
            world.cancellation.set()

    result = done(world.events(consume=cancel, judge_at=8))
    assert (result.text, result.finish_reason, result.chosen) == ("", "cancelled", None)
    world.cancellation.clear()
    assert same_answer(world.result(), fresh.result())


def test_a_cancelled_stream_keeps_what_was_shown() -> None:
    world = World()

    def cancel(event: Event) -> None:
        if isinstance(event, AnswerText) and event.text == "p":
            world.cancellation.set()

    events = world.events(consume=cancel, beams=1)
    result = done(events)
    assert (result.text, result.finish_reason, result.chosen) == ("Take a p", "cancelled", 0)
    assert shown(events) == result.text
    assert result.beams[0].finish_reason == "cancelled"
    world.cancellation.clear()
    assert same_answer(world.result(beams=1), World().result(beams=1))


def test_a_judged_answer_that_is_cut_off_is_taken_back() -> None:
    world = World()

    def cancel(event: Event) -> None:
        if isinstance(event, AnswerText):
            world.cancellation.set()

    events = world.events(consume=cancel, judge_at=8)
    assert any(isinstance(event, AnswerText) for event in events)
    assert [event.text for event in events if isinstance(event, Withdrawn)] == [""]
    assert done(events).text == ""


def test_samplers_are_closed_when_nobody_listens_any_more() -> None:
    world = World()
    answer = Answer(world.models, Config.of({**KNOBS, "beams": 1}), Stopwatch(), backend="fake")
    stream = answer.stream(COOK)
    next(event for event in stream if isinstance(event, AnswerText) and event.text == "p")
    assert answer._search is not None
    assert answer._search.beams[0].sampler is not None
    stream.close()  # type: ignore[attr-defined]
    assert answer._search.beams[0].sampler is None


# --- who refuses


@pytest.mark.parametrize(
    ("draft", "anchor", "by"),
    [
        ("I'm sorry, no.", "I'm sorry, no.", "draft"),
        ("Sure: a pan.", "I'm sorry, no.", "mix"),
        ("Sure: a pan.", "Sure: a pan.", None),
    ],
)
def test_a_refusal_has_its_author(draft: str, anchor: str, by: str | None) -> None:
    rest = "I'm sorry, no."
    scripts: tuple[Script, Script] = (
        {"assistant\n": draft, **({"assistant\nI'm sor": rest[7:]} if by == "mix" else {})},
        {"assistant\n": anchor},
    )
    result = World(*scripts).result(beams=1, depth=7, alpha=0.9)
    assert (result.refusal.is_refusal, result.refusal.by) == (by is not None, by)


def test_what_was_steered_behind_a_refusal_did_not_make_it() -> None:
    draft, anchor = {"assistant\n": "I can't help. No."}, {"assistant\n": "I can't help. Oh"}
    result = World(draft, anchor).result(beams=1, depth=15, alpha=0.9)
    assert result.text.startswith("I can't help. O")
    assert result.refusal.by == "draft"


def test_a_beam_that_began_otherwise_but_went_the_drafts_way_is_the_drafts() -> None:
    likely: Script = {"assistant\n": [HELP, REFUSAL]}
    result = World(likely, likely, scores={"can't": 1.0}).result()
    assert (result.chosen, result.refusal.by) == (1, "draft")


def test_a_beginning_that_the_draft_finds_unlikely_is_the_mixtures() -> None:
    world = World(scores={"can't": 1.0})
    events = world.events()
    (first,) = (e for e in events if isinstance(e, Step) and (e.beam, e.position) == (2, 0))
    assert first.p_draft < 0.1
    assert (done(events).chosen, done(events).refusal.by) == (2, "mix")


@pytest.mark.parametrize(
    ("answer", "is_refusal"),
    [
        ("I'm sorry to hear that your cat died.", False),
        ("As an AI engineer, I build bridges.", False),
        ("Stealing is a crime. I won't help.", True),
        ("Dabei kann ich dir nicht helfen.", True),
    ],
)
def test_a_refusal_is_what_declines(answer: str, is_refusal: bool) -> None:
    script: Script = {"assistant\n": answer}
    result = World(script, script).result(beams=1, max_tokens=80)
    assert (result.text, result.refusal.is_refusal) == (answer, is_refusal)


# --- turns


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_the_next_turn_decodes_only_what_is_new(kv: Literal["seq", "state"]) -> None:
    script = {**THREE, "And then?<|im_end|>\n<|im_start|>assistant\n": ["Eat.", "Rest.", "No."]}
    world = World(script, script, kv=kv, scores={"pot": 1.0, "Rest": 1.0})
    first = world.result()
    assert first.chosen == 1
    turns = [*COOK, Message("assistant", first.text), Message("user", "And then?")]
    before = len(world.draft.batches), len(world.anchor.batches)
    second = world.result(turns)
    assert same_answer(second, World(script, script, scores={"Rest": 1.0}).result(turns))
    for lm, index, model in (
        (world.draft, before[0], world.models.draft),
        (world.anchor, before[1], world.models.anchors[0].model),
    ):
        assert model is not None
        old = model.format.encode(COOK, lm.vocabulary)
        new = model.format.encode(turns, lm.vocabulary)[len(old) :]
        (prefilled,) = lm.batches[index].values()
        # the draft holds the whole answer but its last token; the anchor what it read of it
        assert prefilled <= len(new) - (len(OTHER) - 1 if lm is world.draft else 0)


def test_a_retry_decodes_no_prompt() -> None:
    world = World()
    first = world.result(seed=1)
    before = len(world.draft.batches), world.draft.decoded_tokens, len(world.anchor.batches)
    second = world.result(seed=2)
    assert same_answer(first, second)
    assert set(world.draft.batches[before[0]]) == {1, 2, 3}, "the first decode is that of the beams"
    assert set(world.anchor.batches[before[2]]) == {1, 2, 3}
    assert world.draft.decoded_tokens - before[1] == sum(beam.tokens for beam in second.beams)


@pytest.mark.parametrize("question", ["How to cook?", "Or else?"])
def test_a_new_prompt_frees_the_last_answers_beams(question: str) -> None:
    world = World()
    world.result()
    ids = world.models.draft.format.encode([Message("user", question)], DRAFT)
    world.models.draft.prompt.row(ids)
    assert list(world.draft.tokens(0)) == ids
    assert world.draft.used_cells == len(ids)


def test_a_system_prompt_goes_to_the_draft_and_to_the_anchor_as_told() -> None:
    world = World()
    for anchor_system, read in (("none", "You are helpful."), ("same", "Obey."), ("Refuse.", "Refuse.")):
        world.result(system="Obey.", anchor_system=anchor_system, beams=1)
        assert b"Obey." in DRAFT.pieces(world.draft.tokens(0))
        assert read.encode() in ANCHOR.pieces(world.anchor.tokens(0))
        assert (b"Obey." in ANCHOR.pieces(world.anchor.tokens(0))) == (read == "Obey.")


def test_a_system_turn_overrides_the_knob() -> None:
    own = [Message("system", "Mine."), *COOK]
    assert with_system(own, "Other.") == own
    assert with_system(COOK, "Other.") == [Message("system", "Other."), *COOK]


def test_what_a_conversation_says_as_system_the_anchor_reads_as_part_of_the_question() -> None:
    """The knob is the operator's, and can jailbreak the anchor too; this is asked by who asks."""
    own = [Message("system", "Mine."), *COOK]
    asked = [Message("user", f"Mine.\n\n{COOK[0].content}")]
    assert anchor_turns(own, Config(system="Other.")) == asked
    assert anchor_turns(own, Config(anchor_system="X")) == [Message("system", "X"), *asked]
    assert anchor_turns(own, Config(system="Other.", anchor_system="same")) == own
    assert anchor_turns(COOK, Config(system="Other.")) == COOK


@pytest.mark.parametrize("role", ["draft", "anchor"])
def test_a_conversation_that_leaves_no_room_is_refused_and_the_next_answered(role: str) -> None:
    small = {"context" if role == "draft" else "anchor_context": 100}
    world = World(**small)  # type: ignore[arg-type]
    with pytest.raises(ContextFull, match=f"of the {role}, its context holds 100"):
        world.events([Message("user", "long " * 30)])
    assert world.result().text == World().result().text


def test_an_answer_ends_where_the_context_does() -> None:
    world = World()
    prompt = len(world.models.draft.format.encode(COOK, DRAFT))
    result = World(context=prompt + 8).result(beams=1)
    assert (result.text, result.finish_reason) == (HELP[:8], "length")


def test_without_mixing_no_anchor_is_asked() -> None:
    world = World()
    world.models.anchors = ()
    result = world.result(depth=0, beams=1)
    assert (result.text, result.beams[0].mixed, result.bridge.steps) == (HELP, 0, 0)
    assert world.anchor.batches == []


# --- a draft that thinks

THINKS: Script = {
    "assistant\n<think>\n": "Rice?</think>",
    "</think>": [HELP, OTHER, REFUSAL],
}


def thinker(draft: Script = THINKS, **options: Any) -> World:
    return World(draft, THREE, template=DEEPSEEK_R1, **options)


def test_reasoning_comes_first_and_is_judged_with_the_answer() -> None:
    world = thinker(scores={"pot": 1.0})
    events = world.events()
    result = done(events)
    assert (result.text, result.reasoning) == (OTHER, "Rice?")
    assert phases(events) == ["prefill", "think", "mix", "complete", "judge"]
    assert world.judge.seen[0][1][0] == f"Rice?\n{HELP}"
    assert result.usage.completion_tokens == len("Rice?</think>") + len(OTHER)
    assert "Rice" not in shown(events)


def test_reasoning_is_not_decoded_again_for_the_mixture() -> None:
    world = thinker()
    result = world.result(beams=1)
    prompt = result.usage.prompt_tokens
    assert world.draft.decoded_tokens == prompt + len("Rice?</think>") + len(HELP)


def test_reasoning_that_takes_all_the_room_is_no_answer() -> None:
    world = thinker()
    result = world.result(beams=1, max_tokens=5)
    assert (result.text, result.reasoning, result.finish_reason, result.chosen) == (
        "",
        "Rice?",
        "length",
        None,
    )
    assert world.result(beams=1).text == HELP


@pytest.mark.parametrize("script", [THINKS, {"assistant\n<think>\n": [HELP, OTHER, REFUSAL]}])
def test_a_draft_that_thinks_can_be_asked_again(script: Script) -> None:
    world = thinker(script)
    first = world.result()
    assert first.reasoning == ("Rice?" if script is THINKS else None)
    assert same_answer(world.result(), first)
