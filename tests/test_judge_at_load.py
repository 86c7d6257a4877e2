"""A judge reads its worked examples when it is opened, not while an answer waits for its verdict."""

import threading
from collections.abc import Callable

import pytest

from alignbeam_local.engine import engine as engine_module
from alignbeam_local.engine.engine import Engine, last_result
from alignbeam_local.errors import Cancelled
from alignbeam_local.events import Event, ExamplesRead, Phase
from alignbeam_local.judge import prompt_cache
from alignbeam_local.result import Verdict
from tests.fake_lm import FakeLM
from tests.talk import Talk

pytestmark = pytest.mark.usefixtures("few_examples")


def held(engine: Engine) -> list[list[int]]:
    """What the judge holds of its prefixes."""
    assert engine._models is not None
    judge = engine._models.judge
    assert judge is not None
    assert [list(ids) for ids in judge.prefixes] == [list(state.tokens) for state in judge.save_prefixes()]
    return [list(ids) for ids in judge.prefixes]


def test_an_answer_finds_the_examples_read(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, beams=3)
    list(talk.engine.load())
    examples = sum(map(len, held(talk.engine)))
    assert talk.loader.decoded("judge") == examples > 100
    assert talk.ask("How?").beams
    [judge] = talk.loader.opened["judge"]
    assert [sorted(batch) for batch in judge.batches].count([0, 1]) == 1
    assert sum(judge.batches[-2].values()) + sum(judge.batches[-1].values()) < examples


def test_a_chat_has_them_read_while_the_user_types(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, beams=3)
    list(talk.engine.load(judge_later=True))
    assert talk.loader.decoded("judge") == 0
    talk.read_ahead()
    held(talk.engine)
    assert (talk.loader.decoded("draft"), talk.loader.decoded("anchor")) == (0, 0)


def test_an_unjudged_answer_opens_no_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, beams=1)
    talk.ask("How?")
    assert talk.loader.opened["judge"] == []


def test_a_larger_context_takes_them_over(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, beams=2)
    list(talk.engine.load())
    list(talk.engine.load(talk.knobs({"beams": 4})))
    held(talk.engine)
    assert [judge.decoded_tokens > 0 for judge in talk.loader.opened["judge"]] == [True, False]


def test_stopped_while_it_reads_the_next_load_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, beams=3)
    loading = talk.engine.load()
    next(loading)
    talk.engine.cancellation.set()
    with pytest.raises(Cancelled):
        list(loading)
    talk.engine.cancellation.clear()
    list(talk.engine.load())
    held(talk.engine)


def test_what_was_read_before_a_question_came_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "usable_processors", lambda: 0)
    monkeypatch.setattr(prompt_cache, "_PIECE", 16)
    whole, stopped = (Talk(monkeypatch, beams=3, prompt_cache="none") for _ in range(2))
    list(stopped.engine.load(judge_later=True))
    judge = stopped.engine.models.judge
    assert judge is not None
    reading = judge.read_prefixes()
    assert [next(reading)[0] for _ in range(4)] == [0, 16, 32, 48]
    del reading
    events = answer(stopped, "How?")
    first = next(event for event in events if isinstance(event, ExamplesRead))
    assert (first.done, first.seconds_left) == (48, None)
    assert first.total == sum(map(len, judge.prefixes))
    assert verdicts(events) == verdicts(answer(whole, "How?"))
    assert stopped.loader.decoded("judge") == whole.loader.decoded("judge")
    assert not any(isinstance(event, ExamplesRead) for event in answer(stopped, "How?")), "only once"


def test_other_use_of_the_judge_in_between_reads_all_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_cache, "_PIECE", 16)
    talk = Talk(monkeypatch, beams=3, prompt_cache="none")
    list(talk.engine.load(judge_later=True))
    judge = talk.engine.models.judge
    assert judge is not None
    reading = judge.read_prefixes()
    assert [next(reading)[0] for _ in range(3)] == [0, 16, 32]
    del reading
    judge.lm.truncate(0, 20)
    assert next(iter(judge.read_prefixes()))[0] == 0


@pytest.mark.parametrize("processors", [0, 1024])
def test_with_processors_to_spare_they_are_read_beside_the_answer(
    monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    monkeypatch.setattr(engine_module, "usable_processors", lambda: processors)
    talk = Talk(monkeypatch, beams=3)
    readers: dict[str, list[object]] = {}
    extend = FakeLM.extend

    def noted(lm: FakeLM, tails: dict[int, list[int]]) -> None:
        role = next(name for name, opened in talk.loader.opened.items() if lm in opened)
        readers.setdefault(role, []).append(threading.current_thread().name)
        extend(lm, tails)

    monkeypatch.setattr(FakeLM, "extend", noted)
    verdict = verdicts(answer(talk, "How?"))
    assert [v is not None for v in verdict] == [True] * 3
    assert readers["judge"][0] == ("examples" if processors else "MainThread")
    assert {*readers["draft"], *readers["anchor"], readers["judge"][-1]} == {"MainThread"}
    held(talk.engine)


def test_they_go_on_being_read_while_the_first_question_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "usable_processors", lambda: 1024)
    talk = Talk(monkeypatch, beams=3)
    list(talk.engine.load(judge_later=True))
    may_read = threading.Event()
    judge = talk.engine.models.judge
    assert judge is not None
    monkeypatch.setattr(judge.lm, "extend", waiting_for(may_read, judge.lm.extend))
    talk.conversation.read_ahead(talk.config)
    events = talk.conversation.ask("How?", talk.config)
    seen = [next(events) for _ in range(6)]
    assert Phase("prefill") in seen, "the answer is begun while the judge still reads"
    may_read.set()
    rest = list(events)
    assert verdicts(rest)
    assert talk.loader.decoded("judge") >= sum(map(len, judge.prefixes))


def test_ctrl_c_while_the_judge_reads_loses_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "usable_processors", lambda: 0)
    monkeypatch.setattr(prompt_cache, "_PIECE", 16)
    talk = Talk(monkeypatch, beams=3)
    list(talk.engine.load(judge_later=True))
    stream = talk.engine.stream("How?")
    for event in stream:
        if isinstance(event, ExamplesRead) and event.done == 32:
            talk.engine.cancellation.set()
    talk.engine.cancellation.clear()
    done = [event.done for event in talk.engine.stream("How?") if isinstance(event, ExamplesRead)]
    assert done[0] == 32
    held(talk.engine)


def answer(talk: Talk, question: str) -> list[Event]:
    return list(talk.engine.stream(question))


def verdicts(events: list[Event]) -> list[Verdict | None]:
    return [beam.judge for beam in last_result(events).beams]


def waiting_for(event: threading.Event, work: Callable[..., None]) -> Callable[..., None]:
    def waits(tails: object) -> None:
        assert event.wait(30)
        work(tails)

    return waits
