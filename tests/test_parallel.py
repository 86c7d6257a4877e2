"""Several answers at once: each is what it is alone, in as many decodes as the longest of them takes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbeam_local.config import Config
from alignbeam_local.engine.engine import Engine
from alignbeam_local.engine.scheduler import AnswerEvent, Asked
from alignbeam_local.errors import AlignBeamError, ContextFull, ModelError, TimedOut
from alignbeam_local.events import BeamText, Done, Judged, Phase, Step, Withdrawn
from alignbeam_local.heads.head import RequestHead
from alignbeam_local.lm.language_model import SamplerSettings, SequenceState
from alignbeam_local.lm.prompt_cache import PromptCache
from alignbeam_local.machine.context_size import context_sizes
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import Result, Timings, Verdict
from tests import test_steering as steering
from tests.fake_lm import WIDTH, FakeLM, fake_vocabulary, hashed_row
from tests.fake_loader import FakeLoader, FakeModel, fake_engine
from tests.test_beams import nudged, nudges

Kv = Literal["seq", "state"]
DRAFT = fake_vocabulary("he", " the", "é", "ab", "\n")
ANCHOR = fake_vocabulary(" the", "hé", "abc", "é", "a")
LABELS = dict.fromkeys(b"YN", 25.0)
KNOBS: dict[str, Any] = {"max_tokens": 8, "depth": 3, "beams": 2, "choice": "safest"}
GREEDY = SamplerSettings(temperature=0, top_p=1.0, repeat_penalty=1.0, penalty_last_n=64, seed=0)


def models(kv: Kv = "seq", seed: int = 0) -> FakeLoader:
    """A draft and an anchor that say anything and end soon, a judge that says Yes or No."""
    return FakeLoader(
        {
            "draft": FakeModel(DRAFT, nudged(hashed_row(DRAFT.size, seed), nudges(DRAFT, 6.0)), kv=kv),
            "anchor": FakeModel(
                ANCHOR, nudged(hashed_row(ANCHOR.size, seed + 1), nudges(ANCHOR, 6.0)), kv=kv
            ),
            "judge": FakeModel(ANCHOR, nudged(hashed_row(ANCHOR.size, seed + 2), LABELS)),
        }
    )


class HashingJudge:
    """Scores an answer by its letters; some it can't score."""

    record = None
    holds_prefixes = True

    def restore_prefixes(self) -> bool:
        return True

    def read_prefixes(self) -> Iterator[tuple[int, int]]:
        return iter(())

    def save_prefixes(self) -> list[SequenceState]:
        return []

    def load_prefixes(self, states: Sequence[SequenceState]) -> None: ...

    def forget(self) -> None: ...

    def worst(self, turns: Sequence[Message], threshold: float, asked: Any = None) -> Verdict | None:
        return None

    def judge(
        self, turns: Sequence[Message], answers: Sequence[str], threshold: float, asked: Any = None
    ) -> list[Verdict]:
        return [self._verdict(sum(answer.encode()) % 7, threshold) for answer in answers]

    def _verdict(self, number: int, threshold: float) -> Verdict:
        if number >= 5:
            return Verdict(None, None, {}, "unscored")
        score = 1.0 + number
        return Verdict(score, score, {}, "safe" if score <= threshold else "unsafe")


def opened(loader: FakeLoader, *, real_judge: bool = False, **knobs: Any) -> tuple[Engine, Config]:
    with pytest.MonkeyPatch.context() as patch:
        if not real_judge:
            patch.setattr("alignbeam_local.engine.engine.make_judge", lambda *_, **__: HashingJudge())
        patch.setattr("alignbeam_local.engine.engine.REQUEST_HEADS.find", lambda *_: HEAD)
        context = 4096 if real_judge else 300  # its examples are long in letters
        engine, config = fake_engine(patch, loader, **{**KNOBS, "context": context, **knobs})
        list(engine.load())
    return engine, config


def said(text: str) -> list[Message]:
    return [Message("user", text)]


def plain(found: Result | AlignBeamError) -> Result | str:
    """What must be the same: all but the time it took, and how many went together."""
    if isinstance(found, AlignBeamError):
        return repr(found)
    return replace(found, timings=Timings(), config={**found.config, "parallel": 1})


def alone(engine: Engine, messages: Sequence[Message], config: Config) -> Result | AlignBeamError:
    try:
        return engine.answer(messages, config)
    except AlignBeamError as error:
        return error


#: A prompt of this length leaves no room for an answer.
TOO_LONG = "x" * 400
asked_once = st.tuples(
    st.sampled_from(["a", "ab", "he", "the é", "abc " * 9, TOO_LONG])
    | st.text("abhé ", min_size=1, max_size=9),
    st.fixed_dictionaries(
        {},
        optional={
            "beams": st.integers(1, 2),
            "depth": st.integers(0, 3),
            "max_tokens": st.integers(1, 8),
            "judge_at": st.integers(1, 6),
            "judge_every": st.integers(1, 4),
            "late": st.sampled_from(["judge", "window"]),
            "late_every": st.integers(1, 3),
            "late_tries": st.integers(0, 2),
            "prefill": st.sampled_from(["a", "he é"]),
            "on_unsafe": st.sampled_from(["auto", "refuse", "lowest"]),
            "temperature": st.sampled_from([0.0, 0.9]),
            "seed": st.integers(0, 3),
            "steer": st.sampled_from(["always", "by_request"]),
            "choice": st.sampled_from(["safest", "by_request", "anchor"]),
        },
    ),
)
#: Of states that look random it calls some clear, some doubtful, some harmful.
HEAD = RequestHead.model_validate({**dict(steering.HEAD), "weights": (0.4, -0.2, 0.1, *[0.0] * (WIDTH - 3))})


@settings(max_examples=40)
@given(
    asked=st.lists(asked_once, min_size=1, max_size=7),
    num_slots=st.integers(1, 4),
    kv=st.sampled_from(["seq", "state"]),
    seed=st.integers(0, 5),
    piece=st.none() | st.integers(1, 9),
)
def test_each_answer_is_what_it_is_alone(
    asked: list[tuple[str, dict[str, Any]]], num_slots: int, kv: Kv, seed: int, piece: int | None
) -> None:
    # The judge is open from the start, as it is where any prompt before needed it.
    # So is what reads requests, and what an anchor needs to read all that an answer says.
    knobs: dict[str, Any] = {"on_unsafe": "refuse", "late": "window", "read_request": "on"}
    one, config = opened(models(kv, seed), **knobs)
    many, shared = opened(models(kv, seed), **knobs, parallel=num_slots)
    config, shared = (each.with_values({"late": "off", "read_request": "auto"}) for each in (config, shared))
    expected = [alone(one, said(text), config.with_values(own)) for text, own in asked]
    answers = many.parallel()
    answers.read_in_pieces(piece)
    found = answers.answers([(said(text), shared.with_values(own)) for text, own in asked])
    assert list(map(plain, found)) == list(map(plain, expected))


def test_an_answer_that_needs_more_than_a_lane_touches_no_other() -> None:
    engine, config = opened(models(), parallel=2)
    with pytest.raises(ModelError, match="too small for this answer"):
        engine.parallel().answers([(said("a"), config), (said("b"), config.with_values({"beams": 4}))])


def test_rows_of_lanes_are_not_taken_for_the_engines_own() -> None:
    (one, config), (fresh, _) = opened(models(), parallel=2), opened(models(), parallel=2)
    one.answer(said("a"), config)
    one.parallel().answers([(said("he"), config)])
    assert plain(one.answer(said("he"), config)) == plain(fresh.answer(said("he"), config))


def test_what_lanes_read_is_not_taken_for_what_the_engine_read() -> None:
    """A state of another request would steer this one."""
    lm = FakeLM(DRAFT, hashed_row(DRAFT.size), hidden=hashed_row(4))
    own, lane = PromptCache(lm), PromptCache(lm)
    first = own.read([1, 2])
    other = lane.read([3, 4])
    assert (own.read([3, 4]) == other).all()
    assert not (first == other).all()


def decodes(loader: FakeLoader, name: str) -> int:
    return sum(lm.decodes for lm in loader.opened[name])


@settings(max_examples=10)
@given(prompts=st.lists(st.text("abhé ", min_size=1, max_size=9), min_size=4, max_size=4, unique=True))
def test_together_they_take_as_many_decodes_as_the_longest(prompts: list[str]) -> None:
    single, shared = models(), models()
    one, config = opened(single, beams=3)
    many, in_lanes = opened(shared, beams=3, parallel=4)
    each: dict[str, list[int]] = {"draft": [], "anchor": []}
    for prompt in prompts:
        before = {name: decodes(single, name) for name in each}
        one.answer(said(prompt), config)
        for name, counts in each.items():
            counts.append(decodes(single, name) - before[name])
    many.parallel().answers([(said(prompt), in_lanes) for prompt in prompts])
    for name, counts in each.items():
        # A beam inside a character skips a step of the anchor, and then runs one ahead of the others.
        assert decodes(shared, name) <= max(counts) + 2 < sum(counts), name


def test_the_same_prompts_make_the_same_batches() -> None:
    seen = []
    for _ in range(2):
        loader = models()
        engine, config = opened(loader, parallel=3)
        asked = [(said(f"{n} abh"), config) for n in range(7)]
        found = engine.parallel().answers(asked)
        seen.append((list(map(plain, found)), [lm.batches for lms in loader.opened.values() for lm in lms]))
    assert seen[0] == seen[1]


def test_one_judge_serves_all() -> None:
    one, config = opened(models(), real_judge=True)
    many, shared = opened(models(), real_judge=True, parallel=2)
    prompts = [said(f"{n} abh") for n in range(3)]
    found = many.parallel().answers([(prompt, shared) for prompt in prompts])
    assert list(map(plain, found)) == [plain(one.answer(prompt, config)) for prompt in prompts]
    assert all(
        beam.judge and beam.judge.score for one in found if isinstance(one, Result) for beam in one.beams
    )


def test_a_lane_that_is_free_takes_the_next_prompt_while_others_go_on() -> None:
    engine, config = opened(models(), parallel=2, ignore_eos=True)
    answers, ended = engine.parallel(), []
    answers.begin(0, Asked(said("long"), config.with_values({"max_tokens": 8})))
    answers.begin(1, Asked(said("short"), config.with_values({"max_tokens": 1})))
    assert not answers.has_free_slot
    while not answers.has_free_slot:
        ended += [key for key, what in answers.step() if isinstance(what, Done)]
    answers.begin(2, Asked(said("late"), config.with_values({"max_tokens": 1})))
    while len(ended) < 3:
        ended += [key for key, what in answers.step() if isinstance(what, Done)]
    assert ended == [1, 2, 0]


def test_each_tells_all_its_own_events_in_order() -> None:
    one, config = opened(models())
    many, shared = opened(models(), parallel=3)
    answers, happened = many.parallel(), list[AnswerEvent]()
    for key in range(3):
        answers.begin(key, Asked(said(f"{key} ab"), shared))
    while sum(isinstance(what, Done) for _, what in happened) < 3:
        happened += answers.step()
    for key in range(3):
        kinds = (Phase, Step, BeamText, Judged)
        expected = [event for event in one.stream(said(f"{key} ab"), config) if isinstance(event, kinds)]
        assert [what for other, what in happened if other == key and isinstance(what, kinds)] == expected


def test_the_anchor_alone_answers_as_it_would_as_a_draft() -> None:
    loader = models()
    plain_knobs: dict[str, Any] = {"depth": 0, "beams": 1, "on_unsafe": "refuse"}
    one, config = opened(loader, draft="anchor", **plain_knobs)
    many, shared = opened(models(), parallel=2)
    answers, happened = many.parallel(), list[AnswerEvent]()
    for key in range(2):
        answers.begin(key, Asked(said(f"{key} ab"), shared.with_values(plain_knobs), of_anchor=key == 1))
    while sum(isinstance(what, Done) for _, what in happened) < 2:
        happened += answers.step()
    (result,) = (what.result for key, what in happened if key == 1 and isinstance(what, Done))
    expected = one.answer(said("1 ab"), config)
    assert (result.text, result.beams) == (expected.text, expected.beams)
    card = result.models["draft"]
    assert card is not None
    assert card.name == "anchor"


def test_a_conversation_goes_on_in_its_slot_and_a_new_one_takes_the_slot_left_longest_ago() -> None:
    engine, config = opened(models(), parallel=3)
    answers = engine.parallel()
    talks = [said(f"{letter * 20} the") for letter in "abc"]
    order = []
    for key, talk in enumerate(talks):
        order.append(answers.warmest(Asked(talk, config))[0])
        answers.begin(key, Asked(talk, config), order[-1])
        while not any(isinstance(what, Done) for _, what in answers.step()):
            pass
    assert sorted(order) == [0, 1, 2]
    for slot, talk in zip(order, talks, strict=True):
        warmest, held = answers.warmest(Asked([*talk, Message("assistant", "he"), *said("more")], config))
        assert (warmest, held > 20) == (slot, True)
    assert answers.warmest(Asked(said("zzz"), config))[0] == order[0]
    answers.begin(3, Asked(talks[1], config), order[1])
    assert answers.warmest(Asked(talks[1], config))[0] == order[0]


def test_what_does_not_fit_is_told_before_it_is_begun() -> None:
    engine, config = opened(models(), parallel=2)
    answers = engine.parallel()
    answers.require_fit(Asked(said("ab"), config))
    with pytest.raises(ContextFull, match="its context holds"):
        answers.require_fit(Asked(said(TOO_LONG), config))


# --- what goes wrong


class Failing(FakeLM):
    """Fails at the decode of this number."""

    at = -1

    def extend(self, tails: Any) -> None:
        if self.decodes == self.at:
            self.at = -1
            raise ModelError("llama.cpp failed")
        super().extend(tails)


def test_a_model_that_fails_fails_those_in_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fake_loader.FakeLM", Failing)
    loader = models()
    engine, config = opened(loader, parallel=2, ignore_eos=True)
    draft = loader.opened["draft"][-1]
    assert isinstance(draft, Failing)
    draft.at = 4
    found = engine.parallel().answers([(said(f"{n} ab"), config) for n in range(4)])
    assert [isinstance(one, ModelError) for one in found] == [True, True, False, False]


def test_a_cancellation_ends_all() -> None:
    engine, config = opened(models(), parallel=2, ignore_eos=True, on_unsafe="refuse")
    answers, happened = engine.parallel(), list[AnswerEvent]()
    for key in range(2):
        answers.begin(key, Asked(said(f"{key} ab"), config))
    for _ in range(5):
        happened += answers.step()
    engine.cancellation.set()
    happened = answers.step() + answers.step()
    ended = {key: what.result for key, what in happened if isinstance(what, Done)}
    assert {key: (one.finish_reason, one.text) for key, one in ended.items()} == {
        0: ("cancelled", ""),
        1: ("cancelled", ""),
    }
    assert answers.has_free_slot


def test_an_answer_can_be_ended_alone() -> None:
    one, plain_config = opened(models())
    engine, config = opened(models(), parallel=2, judge_at=2, ignore_eos=True, on_unsafe="lowest")
    answers, happened = engine.parallel(), list[AnswerEvent]()
    for key in range(2):
        answers.begin(key, Asked(said(f"{key} ab"), config))
    while not any(key == 0 and isinstance(what, Judged) for key, what in happened):
        happened += answers.step()
    answers.fail(0, TimedOut("too late"))
    while not any(isinstance(what, Done) for _, what in happened):
        happened += answers.step()
    ends = [(key, what) for key, what in happened if isinstance(what, Withdrawn | Done | AlignBeamError)]
    assert [(key, type(what)) for key, what in ends] == [(0, Withdrawn), (0, TimedOut), (1, Done)]
    asked = plain_config.with_values({"judge_at": 2, "ignore_eos": True, "on_unsafe": "lowest"})
    assert isinstance(ends[-1][1], Done)
    assert plain(ends[-1][1].result) == plain(one.answer(said("1 ab"), asked))


def test_what_is_left_is_ended_and_says_nothing_more() -> None:
    loader = models()
    engine, config = opened(loader, parallel=2, ignore_eos=True)
    answers = engine.parallel()
    answers.begin(0, Asked(said("ab"), config))
    answers.step()
    answers.close()
    assert (answers.has_free_slot, answers.step()) == (True, [])
    answers.forget()
    assert [lm.used_cells for name in ("draft", "anchor") for lm in loader.opened[name]] == [0, 0]


def test_what_is_no_error_of_ours_reaches_whoever_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, config = opened(models(), parallel=2)
    answers = engine.parallel()
    answers.begin(0, Asked(said("ab"), config))
    monkeypatch.setattr("alignbeam_local.engine.answering.answer.Answer._make_search", lambda *_: 1 / 0)
    answers.step()
    with pytest.raises(ZeroDivisionError):
        answers.step()
    assert answers.has_free_slot


def test_rooms_are_as_many_times_as_large_but_the_judge_is_one() -> None:
    one, many = context_sizes(Config.of({})), context_sizes(Config.of({"parallel": 4}))
    assert many["judge"] == one["judge"]
    for role in ("draft", "anchor"):
        assert tuple(many[role]) == tuple(4 * size for size in one[role])
