"""A judge reads its worked examples when it is opened, not while an answer waits for its verdict."""

import pytest

from alignbeam_local.engine.engine import Engine
from alignbeam_local.errors import Cancelled
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
