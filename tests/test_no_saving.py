"""Where llama.cpp saves no states, as over RPC: the same answers and verdicts, and nothing is ever saved.

The fake model fails on `save`: llama.cpp would end the process there.
"""

from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.config import Config
from alignbeam_local.conversation.saved_state import read_state
from alignbeam_local.engine.open_judge import prefix_store
from alignbeam_local.lm.prefix_store import PrefixStore
from alignbeam_local.lm.prompt_cache import PromptCache
from alignbeam_local.result import Result
from tests.fake_lm import FakeLM, fake_vocabulary, hashed_row
from tests.talk import Talk

pytestmark = pytest.mark.usefixtures("few_examples")
JUDGED: dict[str, Any] = {"beams": 3, "on_unsafe": "lowest", "judge_at": 8}


def told(result: Result) -> list[tuple[str, float | None]]:
    return [(beam.text, beam.judge.score if beam.judge else None) for beam in result.beams]


def test_answers_and_verdicts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for saves in (True, False):
        talk = Talk(monkeypatch, saves=saves, **JUDGED)
        found.append([told(talk.ask("How?")), told(talk.ask("And then?")), told(talk.retry())])
        talk.engine.close()
    assert found[0] == found[1]


def test_the_judges_prefixes_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, saves=False, **JUDGED)
    talk.ask("How?")
    before = talk.loader.decoded("judge")
    talk.ask("And then?")
    judge = talk.loader.opened["judge"][0]
    prefixes = len(judge.tokens(0)) + len(judge.tokens(1))
    assert prefixes > 100
    assert talk.loader.decoded("judge") - before < prefixes


def test_a_larger_context_reads_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, saves=False)
    first = talk.ask("How?").text
    talk.ask("And then?", beams=3, on_unsafe="lowest")
    assert len(talk.loader.opened["draft"]) == 2, "it was opened again, with more sequences"
    assert talk.conversation.messages[1].content == first


def test_a_conversation_goes_on_without_a_kept_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    talk = Talk(monkeypatch, saves=False)
    talk.ask("How?")
    talk.conversation.save_state(tmp_path)
    kept = read_state(tmp_path / "state")
    assert kept is None or not any(kept.snapshot.prompts)
    again = Talk(monkeypatch, *talk.conversation.messages, saves=False)
    again.conversation.load_state(tmp_path)
    assert again.ask("And then?").text == "Wait."


def test_no_prompt_is_kept_or_restored() -> None:
    vocabulary = fake_vocabulary()
    lm = FakeLM(vocabulary, hashed_row(vocabulary.size), saves=False)
    cache, store = PromptCache(lm), PrefixStore("here")
    cache.row([1, 2, 3])
    assert cache.save() is None
    assert not store.restore(lm, {0: [1, 2, 3]})
    assert prefix_store(Config()) is not None
    assert prefix_store(Config.of({"rpc": "h:1", "prompt_cache": "all"})) is None
