"""Conversations over an engine on models without weights: what is decoded again, and what is not."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from alignbeam_local import questions
from alignbeam_local.config import Config
from alignbeam_local.conversation import Conversation
from alignbeam_local.errors import AlignBeamError, ContextFull, ModelError, UsageError
from alignbeam_local.events import AnswerText, Done, Event, Notice, Phase, Result, Withdrawn
from alignbeam_local.kept_state import read_state
from alignbeam_local.prompt import Message
from tests.fake_lm import fake_vocabulary, hashed_row, scripted_row, spelt
from tests.fake_loader import FakeLoader, FakeModel, fake_engine
from tests.templates import CHATML, DEEPSEEK_R1, QWEN3
from tests.test_judge import judge_row

Kv = Literal["seq", "state"]
DRAFT = fake_vocabulary("user", "assistant", "system", "sorry")
ANCHOR = fake_vocabulary("assistant", "sorry")
BEGIN = "<|im_end|>\n<|im_start|>assistant\n"
SCRIPT = {
    f"How?{BEGIN}": ["Take a pan and some rice.", "Use a pot.", "I can't help."],
    f"And then?{BEGIN}": ["Wait.", "Rest.", "No."],
    f"Why?{BEGIN}": ["Rice is good.", "It is.", "Ask."],
}
KNOBS: dict[str, Any] = {"max_tokens": 40, "context": 1024, "beams": 1}


@pytest.fixture(autouse=True)
def one_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenising in Python is slow."""
    monkeypatch.setattr(questions, "REQUEST_EXAMPLES", questions.REQUEST_EXAMPLES[:2])
    monkeypatch.setattr(questions, "ANSWER_EXAMPLES", questions.ANSWER_EXAMPLES[:2])


class Talk:
    """A conversation over fake models; `engine` is real."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *turns: Message,
        kv: Kv = "seq",
        template: str = CHATML,
        script: dict[str, Any] | None = None,
        **knobs: Any,
    ) -> None:
        script = SCRIPT if script is None else script
        judging = fake_vocabulary()
        models = {
            "draft": FakeModel(DRAFT, scripted_row(DRAFT, script), template, kv),
            "anchor": FakeModel(ANCHOR, scripted_row(ANCHOR, script), CHATML, kv),
            "judge": FakeModel(judging, hashed_row(judging.size), CHATML, kv),
        }
        self.loader = FakeLoader(models)
        self.engine, self.config = fake_engine(monkeypatch, self.loader, **{**KNOBS, **knobs})
        self.conversation = Conversation(self.engine, turns)

    def ask(self, text: str, **knobs: Any) -> Result:
        return done(self.conversation.ask(text, self.knobs(knobs)))

    def retry(self, **knobs: Any) -> Result:
        return done(self.conversation.retry(self.knobs(knobs)))

    def knobs(self, values: dict[str, Any]) -> Config:
        return self.engine.config.with_values(values)

    def read_ahead(self) -> None:
        self.conversation.read_ahead(self.config)
        self.engine.background.wait()

    def prefilled(self) -> "Prefilled":
        return Prefilled(self.loader)

    def encoded(self, turns: Sequence[Message]) -> int:
        """Tokens of a conversation as the draft reads it."""
        assert self.engine._parts is not None
        return len(self.engine._parts.draft.format.encode(turns, DRAFT))


class Prefilled:
    """Counts from now on."""

    def __init__(self, loader: FakeLoader) -> None:
        self._loader = loader
        self._before = {name: loader.prefilled(name) for name in loader.opened}

    def of(self, name: str) -> int:
        return self._loader.prefilled(name) - self._before[name]


def done(events: Iterator[Event]) -> Result:
    *_, last = events
    assert isinstance(last, Done)
    return last.result


def turn(text: str) -> int:
    """Tokens of the end of the answer, a further question and the answer's beginning, in ChatML."""
    return len(DRAFT.encode_template(f"<|im_end|>\n<|im_start|>user\n{text}{BEGIN}"))


# --- further turns


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_the_draft_reads_only_what_is_new(monkeypatch: pytest.MonkeyPatch, kv: Kv) -> None:
    talk = Talk(monkeypatch, kv=kv)
    talk.ask("How?")
    counts = talk.prefilled()
    assert talk.ask("And then?").text == "Wait."
    assert counts.of("draft") == turn("And then?")
    assert counts.of("anchor") > turn("And then?"), "it followed the first tokens only"


@pytest.mark.parametrize("template", [CHATML, QWEN3])
@pytest.mark.parametrize("kv", ["seq", "state"])
@pytest.mark.parametrize("beams", [1, 3])
def test_what_was_read_ahead_is_not_read_again(
    monkeypatch: pytest.MonkeyPatch, kv: Kv, template: str, beams: int
) -> None:
    talk, cold = (Talk(monkeypatch, kv=kv, template=template, beams=beams) for _ in range(2))
    talk.ask("How?")
    for question in ("And then?", "Why?"):
        talk.read_ahead()
        counts = talk.prefilled()
        result = talk.ask(question)
        asked = len(DRAFT.encode_template(f"{question}{BEGIN}"))
        opening = len("<think>\n\n</think>\n\n") if template == QWEN3 else 0
        assert counts.of("draft") == asked + opening
        assert counts.of("anchor") == len(ANCHOR.encode_template(f"{question}{BEGIN}"))
    cold.conversation = Conversation(cold.engine, talk.conversation.messages[:-2])
    assert cold.ask("Why?").beams == result.beams


def test_reasoning_that_history_drops_is_dropped_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    thought = "<think>\nRice?</think>"
    script = {"<think>\n": ["Rice?</think>"], **SCRIPT}
    script |= {f"{asked}{thought}": SCRIPT[asked] for asked in (f"How?{BEGIN}", f"Why?{BEGIN}")}
    talk = Talk(monkeypatch, template=DEEPSEEK_R1, script=script, max_tokens=60)
    assert talk.ask("How?").reasoning == "Rice?"
    talk.read_ahead()
    counts = talk.prefilled()
    assert talk.ask("Why?").text == "Rice is good."
    last_of_thought = 1
    assert counts.of("draft") == len(DRAFT.encode_template(f"Why?{BEGIN}<think>\n")) + last_of_thought
    assert DRAFT.pieces(talk.loader.opened["draft"][0].tokens(0)).count(b"Rice") == 1


def test_a_retry_after_reading_ahead_still_finds_its_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    talk.ask("And then?")
    talk.read_ahead()
    counts = talk.prefilled()
    assert talk.retry(alpha=0.3).text == "Wait."
    assert (counts.of("draft"), counts.of("anchor")) == (0, 0)


def test_what_does_not_fit_is_not_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, context=128)
    talk.ask("How?" + " " * 66 + "How?")
    before = talk.loader.decoded("draft")
    talk.read_ahead()
    assert talk.loader.decoded("draft") == before


def test_a_conversation_that_is_taken_up_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, Message("user", "How?"), Message("assistant", "So."))
    talk.read_ahead()
    assert talk.loader.decoded("draft") == 0  # nothing is loaded for it
    list(talk.engine.load())
    talk.read_ahead()
    assert talk.loader.decoded("draft") > 0


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_what_is_read_ahead_is_stopped_by_the_next_question(
    monkeypatch: pytest.MonkeyPatch, system: str | None
) -> None:
    talk, cold = Talk(monkeypatch, system=system), Talk(monkeypatch, system=system)
    talk.ask("How?")
    reading, go_on = threading.Event(), threading.Event()
    anchor = talk.loader.opened["anchor"][0]
    extend = anchor.extend

    def slow(tails: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            reading.set()
            assert go_on.wait(5), "the main thread does not wait for the decode"
        extend(tails)

    monkeypatch.setattr(anchor, "extend", slow)
    talk.conversation.read_ahead(talk.config)
    assert reading.wait(5)
    threading.Timer(0.05, go_on.set).start()
    assert talk.ask("Why?").beams
    assert not talk.engine.cancellation.is_set
    cold.conversation = Conversation(cold.engine, talk.conversation.messages[:2])
    assert cold.ask("Why?").beams == result_beams(talk)


def result_beams(talk: Talk) -> object:
    assert talk.conversation.last is not None
    return talk.conversation.last.result.beams


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_a_retry_of_what_an_undone_question_followed_is_right(
    monkeypatch: pytest.MonkeyPatch, kv: Kv
) -> None:
    talk = Talk(monkeypatch, kv=kv)
    first = talk.ask("How?")
    talk.ask("And then?")
    talk.conversation.undo()
    talk.read_ahead()
    assert talk.retry().beams == first.beams


# --- again


@pytest.mark.parametrize("kv", ["seq", "state"])
@pytest.mark.parametrize(
    "knobs",
    [
        {"alpha": 0.9},
        {"depth": 12},
        {"depth": 1},
        {"beams": 1, "on_unsafe": "auto"},
        {"beams": 2},
        {"bridge_width": 5},
        {"variant": "exact"},
        {"variant": "first", "temperature": 1, "seed": 5},
        {"max_tokens": 4},
        {"beams": 5},
        {"max_tokens": 400},
        {"beams": 6, "depth": 20, "max_tokens": 300},
    ],
)
def test_a_retry_reads_nothing_again(monkeypatch: pytest.MonkeyPatch, kv: Kv, knobs: dict[str, Any]) -> None:
    talk, cold = (Talk(monkeypatch, kv=kv, beams=3) for _ in range(2))
    talk.ask("How?")
    talk.ask("Why?")
    counts, judged = talk.prefilled(), talk.loader.decoded("judge")
    result = talk.retry(**knobs)
    assert (counts.of("draft"), counts.of("anchor")) == (0, 0)
    assert talk.loader.decoded("judge") - judged < 400, "its prefixes are kept too"
    cold.conversation = Conversation(cold.engine, talk.conversation.messages[:-2])
    assert cold.ask("Why?", **knobs).beams == result.beams


def test_a_rebuilt_context_knows_the_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, beams=2)
    talk.ask("How?")
    talk.read_ahead()
    counts = talk.prefilled()
    talk.ask("Why?", beams=5)
    assert len(talk.loader.opened["draft"]) == 2
    assert counts.of("draft") == len(DRAFT.encode_template(f"Why?{BEGIN}"))


def test_what_is_open_never_shrinks_and_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, beams=3)
    assert Notice("this machine is slow") in list(talk.conversation.ask("How?", talk.config))
    again = list(talk.conversation.retry(talk.knobs({"beams": 5})))
    assert Phase("load") in again
    assert Notice("this machine is slow") not in again
    talk.retry(beams=1, max_tokens=200)
    talk.retry(beams=5, max_tokens=200)
    assert len(talk.loader.opened["draft"]) == 3


def test_a_context_that_can_not_be_had_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, beams=2)
    first = talk.ask("How?")
    talk.loader.has_memory = False
    with pytest.raises(ModelError, match="not enough memory"):
        talk.retry(beams=9)
    talk.loader.has_memory = True
    counts = talk.prefilled()
    assert talk.retry().beams == first.beams
    assert (counts.of("draft"), counts.of("anchor")) == (0, 0)


def test_a_loading_knob_is_refused_before_anything_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    with pytest.raises(UsageError, match="context can't change"):
        talk.ask("Why?", context=4096)
    assert not talk.loader.opened["draft"][0].is_closed


def test_a_cancelled_retry_leaves_the_old_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch)
    first = talk.ask("How?")
    for event in talk.conversation.retry(talk.knobs({"beams": 2})):
        if isinstance(event, Phase) and event.name == "complete":
            talk.engine.cancellation.set()
    assert isinstance(event, Done)
    assert (event.result.finish_reason, event.result.text) == ("cancelled", "")
    assert talk.conversation.messages[-1].content == first.text
    talk.engine.cancellation.clear()
    assert talk.retry().beams == first.beams


# --- other models


def test_the_models_that_stay_keep_what_they_read(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch)
    talk.loader.models["other"] = FakeModel(DRAFT, scripted_row(DRAFT, SCRIPT))
    talk.loader.opened["other"] = []
    talk.ask("How?")
    talk.read_ahead()
    counts = talk.prefilled()
    loaded = list(talk.conversation.change_models(talk.knobs({"draft": "other"})))
    assert loaded == [Phase("load"), Notice("this machine is slow")]
    result = talk.ask("Why?")
    assert result.models["draft"] is not None
    assert result.models["draft"].name == "other"
    assert counts.of("anchor") == len(ANCHOR.encode_template(f"Why?{BEGIN}"))
    assert counts.of("other") == result.usage.prompt_tokens


def test_models_that_can_not_be_had_leave_the_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    talk.read_ahead()
    before = talk.engine.config
    with pytest.raises(ModelError, match="missing is not here"):
        list(talk.conversation.change_models(talk.knobs({"draft": "missing"})))
    assert talk.engine.config == before
    counts = talk.prefilled()
    assert talk.ask("And then?").text == "Wait."
    assert counts.of("draft") == len(DRAFT.encode_template(f"And then?{BEGIN}"))


# --- judged while it streams

HARM = {f"How?{BEGIN}": ["Take a pan. HARM", "Use a pot. HARM", "Do it so. HARM"]}


def judged(talk: Talk) -> None:
    """Let the judge see harm where an answer says so."""
    vocabulary = talk.loader.models["judge"].vocabulary
    talk.loader.models["judge"] = FakeModel(vocabulary, judge_row(vocabulary))


def test_an_answer_that_turns_unsafe_enters_history_as_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, script={**SCRIPT, **HARM}, beams=3, on_unsafe="refuse", judge_at=8)
    judged(talk)
    events = list(talk.conversation.ask("How?", talk.config))
    refusal = talk.config.refusal_text
    assert [event.text for event in events if isinstance(event, Withdrawn)] == [refusal]
    assert [turn.content for turn in talk.conversation.messages] == ["How?", refusal]
    talk.read_ahead()
    for name in ("draft", "anchor"):
        lm = talk.loader.opened[name][0]
        held = [spelt(lm.vocabulary, lm.tokens(sequence)) for sequence in range(lm.num_sequences)]
        assert not any(b"HARM" in text for text in held)
    assert talk.ask("Why?", judge_at=8).text == "Rice is good."


def test_an_answer_cut_off_before_its_last_verdict_enters_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, script={**SCRIPT, **HARM}, beams=3, on_unsafe="refuse", judge_at=8)
    judged(talk)
    events = []
    for event in talk.conversation.ask("How?", talk.config):
        events.append(event)
        if isinstance(event, AnswerText):
            talk.engine.cancellation.set()
    assert Withdrawn("") in events
    assert done(iter(events)).finish_reason == "cancelled"
    assert talk.conversation.messages == []


# --- a full context

LONG = {f"{n}?{BEGIN}": f"Answer {n}." for n in range(60)}


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_forty_turns_fit_a_small_context(monkeypatch: pytest.MonkeyPatch, kv: Kv) -> None:
    talk = Talk(monkeypatch, kv=kv, script=LONG, system="Be brief.", max_tokens=30)
    notices = []
    for n in range(40):
        counts = talk.prefilled()
        events = list(talk.conversation.ask(f"{'long ' * 12}{n}?", talk.knobs({})))
        assert done(iter(events)).text == f"Answer {n}."
        told = [e.message for e in events if isinstance(e, Notice) and "oldest" in e.message]
        notices += told
        assert told or not n or counts.of("draft") < 200, "warm"
        assert b"Be brief." in DRAFT.pieces(talk.loader.opened["draft"][0].tokens(0))
        talk.read_ahead()
    assert 3 <= len(notices) <= 12
    assert len(talk.conversation.messages) == 80, "the conversation itself is whole"


def test_both_models_leave_out_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, script=LONG)
    for n in range(20):
        talk.ask(f"{'long ' * 12}{n}?")
    draft, anchor = (talk.loader.opened[name][0].tokens(0) for name in ("draft", "anchor"))
    assert 1 < DRAFT.pieces(draft).count(b"?") == ANCHOR.pieces(anchor).count(b"?") < 20


def test_a_retry_of_a_trimmed_conversation_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, script=LONG)
    for n in range(20):
        talk.ask(f"{'long ' * 12}{n}?")
    counts = talk.prefilled()
    assert talk.retry(alpha=0.1).text == "Answer 19."
    assert (counts.of("draft"), counts.of("anchor")) == (0, 0)
    while talk.conversation.undo():
        pass
    assert talk.ask("3?").text == "Answer 3."


def test_a_question_that_does_not_fit_alone_is_refused_and_nothing_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talk = Talk(monkeypatch, script=LONG)
    talk.ask("1?")
    with pytest.raises(ContextFull, match="its context holds 1024"):
        talk.ask("long " * 300)
    counts = talk.prefilled()
    talk.ask("2?")
    assert counts.of("draft") < 60


def test_a_stopped_turn_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, context=256)
    first = talk.ask("How?")
    told = []
    for event in talk.conversation.ask("é" * 90, talk.config):
        told += [event.message] if isinstance(event, Notice) else []
        if isinstance(event, Phase) and event.name == "prefill":
            talk.engine.cancellation.set()
    assert "the oldest 2 are left out" in told[-1]
    talk.engine.cancellation.clear()
    assert talk.retry().text == first.text


def test_a_question_as_long_as_the_context_goes_without_history(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, script=LONG)
    talk.ask("1?")
    assert talk.ask("long " * 180 + "2?").text == "Answer 2."


# --- kept states


@pytest.mark.parametrize("template", [CHATML, QWEN3])
@pytest.mark.parametrize("kv", ["seq", "state"])
def test_a_resumed_conversation_reads_only_the_question(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kv: Kv, template: str
) -> None:
    talk = Talk(monkeypatch, kv=kv, template=template)
    talk.ask("How?")
    talk.ask("And then?")
    talk.conversation.save_state(tmp_path / "kept")
    talk.engine.close()

    again = Talk(monkeypatch, *talk.conversation.messages, kv=kv, template=template)
    assert again.conversation.load_state(tmp_path / "kept")
    counts = again.prefilled()
    assert again.retry().text == "Wait."
    assert (counts.of("draft"), counts.of("anchor")) == (0, 0)
    again.conversation.load_state(tmp_path / "kept")
    again.ask("Why?")
    opening = len("<think>\n\n</think>\n\n") if template == QWEN3 else 0
    assert counts.of("draft") == len(DRAFT.encode_template(f"Why?{BEGIN}")) + opening
    assert counts.of("anchor") == len(ANCHOR.encode_template(f"Why?{BEGIN}"))


def test_a_resumed_conversation_leaves_out_what_was_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    talk = Talk(monkeypatch, script=LONG)
    for n in range(14):
        talk.ask(f"{'long ' * 12}{n}?")
    talk.conversation.save_state(tmp_path)
    again = Talk(monkeypatch, *talk.conversation.messages, script=LONG)
    assert again.conversation.load_state(tmp_path)
    assert not any(isinstance(event, Notice) for event in again.conversation.ask("1?", again.config))
    assert again.loader.prefilled("draft") == len(DRAFT.encode_template(f"1?{BEGIN}"))


def test_what_was_undone_is_in_no_kept_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    talk.ask("And then?")
    talk.conversation.undo()
    talk.conversation.save_state(tmp_path)
    (file,) = tmp_path.iterdir()
    kept = read_state(file)
    assert kept is not None
    for saved in kept.snapshot[:2]:
        assert saved is not None
        tokens = [*saved.prompt, *(token for state in saved.states for token in state.tokens)]
        assert b"And then" not in spelt(DRAFT, tokens)
    again = Talk(monkeypatch, *talk.conversation.messages)
    again.conversation.save_state(tmp_path)
    assert again.conversation.load_state(tmp_path)
    again.conversation.undo()
    again.conversation.save_state(tmp_path)
    assert not file.exists()


def test_what_the_anchor_holds_of_another_conversation_is_in_no_kept_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    talk.conversation.clear()
    talk.ask("Why?", depth=0)
    talk.conversation.save_state(tmp_path)
    (file,) = tmp_path.iterdir()
    kept = read_state(file)
    assert kept is not None
    assert kept.snapshot.draft is not None
    assert kept.snapshot.anchor is None


def test_a_state_of_other_models_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    talk.conversation.save_state(tmp_path)
    again = Talk(monkeypatch, *talk.conversation.messages, draft="other")
    again.loader.models["other"] = again.loader.models["draft"]
    again.loader.opened["other"] = []
    assert not again.conversation.load_state(tmp_path)
    assert again.ask("Why?").text == "Rice is good."


@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "flipped", "version"])
def test_a_damaged_state_is_read_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, harm: str) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    with monkeypatch.context() as patch:
        if harm == "version":
            patch.setattr("alignbeam_local.kept_state._FORMAT", "another")
        talk.conversation.save_state(tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    content = bytearray(file.read_bytes())
    if harm == "missing":
        file.unlink()
    elif harm in ("empty", "cut"):
        file.write_bytes(content[: len(content) // 2 if harm == "cut" else 0])
    elif harm == "flipped":
        content[-3] ^= 1
        file.write_bytes(content)
    again = Talk(monkeypatch, *talk.conversation.messages)
    assert not again.conversation.load_state(tmp_path)
    assert again.ask("Why?").text == "Rice is good."
    (tmp_path / ".kv-state.killed").write_bytes(content)
    again.conversation.save_state(tmp_path)
    assert list(tmp_path.iterdir()) == [file], "nothing is left of a process that was killed"
    assert Conversation(again.engine, again.conversation.messages).load_state(tmp_path)


def test_a_state_that_can_not_be_written_is_an_error_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AlignBeamError, match="can't be kept"):
        talk.conversation.save_state(tmp_path / "file" / "folder")


def test_without_an_answer_there_is_no_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Talk(monkeypatch).conversation.save_state(tmp_path)
    assert not list(tmp_path.iterdir())
