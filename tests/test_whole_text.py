"""An answer that max_tokens cuts inside a character ends before it, wherever it is told or kept."""

import json
from contextlib import closing

import pytest

from alignbeam_local.evaluation.methods.specs import parse_method
from alignbeam_local.events import AnswerText, BeamText, Done
from alignbeam_local.result import Result
from tests.fake_lm import scripted_row
from tests.fake_loader import FakeModel
from tests.fake_pool import ANCHOR, ASSISTANT, DRAFT, config, fake_loader, fake_pool
from tests.talk import BEGIN, Talk
from tests.test_judge import judge_row

TEA = "ok🍵🍵"  # a token a byte
CUT = "\ufffd"
JUDGE = FakeModel(ANCHOR, judge_row(ANCHOR))

pytestmark = pytest.mark.usefixtures("few_examples")


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("max_tokens", range(3, 7))
def test_an_answer(beams: int, max_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    script = {f"Tea?{BEGIN}": [TEA, "no🍵🍵", "so🍵🍵"]}
    talk = Talk(monkeypatch, script=script, beams=beams, depth=2, max_tokens=max_tokens)
    talk.loader.models["judge"] = JUDGE
    events = list(talk.conversation.ask("Tea?", talk.engine.config))
    result = next(event.result for event in events if isinstance(event, Done))
    assert result.finish_reason == "length"
    assert [beam.text[2:] for beam in result.beams] == ["🍵" if max_tokens == 6 else ""] * beams
    told = "".join(e.text for e in events if isinstance(e, AnswerText | BeamText))
    assert CUT not in told
    assert CUT not in json.dumps(result.as_dict(), ensure_ascii=False)
    assert CUT not in talk.conversation.messages[-1].content
    assert talk.ask("Tea?").text  # a further turn goes on from what is kept


@pytest.mark.parametrize(
    "spec", ["draft", "alignbeam", "safedecoding", "contrastive", "hard-prefix:text=ok", "nudging", "guard"]
)
@pytest.mark.parametrize("max_tokens", range(3, 6))
def test_an_answer_of_a_method(spec: str, max_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    script = {f"Tea?{ASSISTANT}": TEA, f"Tea?{ASSISTANT}ok": TEA[2:]}
    fake_loader(monkeypatch, script, anchor=FakeModel(DRAFT, scripted_row(DRAFT, script)), judge=JUDGE)
    arm = parse_method(spec, config(max_tokens=max_tokens))
    with closing(fake_pool()) as pool:
        (result,) = arm.method.open(arm.config, pool)([("Tea?", arm.config)])
    assert isinstance(result, Result)
    assert (result.text, CUT in json.dumps(result.as_dict(), ensure_ascii=False)) == ("ok", False)
