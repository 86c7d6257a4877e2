"""Knobs that give an answer its form: stop strings, a grammar, which tokens are drawn from."""

import json
from typing import Any

import numpy as np
import pytest

from alignbeam_local.config import Config
from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.methods.row_sampler import RowSampler
from alignbeam_local.events import AnswerText, BeamText, Step
from alignbeam_local.lm.language_model import SamplerSettings
from tests.fake_lm import FakeLM, fake_vocabulary
from tests.running import run
from tests.test_answer import HELP, REFUSAL, THREE, World, done, shown

VOCABULARY = fake_vocabulary()
ONE_OF = f'root ::= "{HELP}" | "{REFUSAL}"'


def test_the_text_before_a_stop_string_is_the_answer() -> None:
    result = World(scores={"pot": 3.0}).result(depth=2, beams=2, stop=["a pan"])
    assert (result.text, result.finish_reason) == ("Take ", "stop")
    assert result.config["stop"] == ("a pan",)


@pytest.mark.parametrize("knobs", [{"beams": 1}, {"beams": 2, "judge_at": 3}])
def test_a_stop_string_that_begins_in_a_mixed_token_is_never_shown(knobs: dict[str, Any]) -> None:
    events = World(scores={"pot": 3.0}).events(depth=4, stop=("e a p",), **knobs)
    assert (shown(events), done(events).finish_reason) == ("Tak", "stop")
    assert "".join(e.text for e in events if isinstance(e, AnswerText)) == "Tak"
    assert "".join(e.text for e in events if isinstance(e, BeamText) and e.beam == 0) == "Tak"


def test_the_first_of_several_counts_and_an_answer_without_any_is_whole() -> None:
    assert World().result(beams=1, depth=2, stop=["pan", "ke", "zebra"]).text == "Ta"
    assert World().result(beams=1, depth=2, stop=["zebra"]).text == HELP


def test_a_stop_string_is_one_text_or_a_json_list_of_them() -> None:
    assert Config.of({"stop": "Q:"}).stop == ("Q:",)
    assert Config.of({"stop": '["\\n\\n", "Q:"]'}).stop == ("\n\n", "Q:")
    assert Config.of({"stop": "[x"}).stop == ("[x",)
    assert Config.of({"stop": "none"}).stop == Config.of({"stop": None}).stop == ()


@pytest.mark.parametrize("value", ["", [""], ["a", ""], 3, [3], '["\ud800"]', {"a": 1}])
def test_what_is_no_stop_string(value: Any) -> None:
    with pytest.raises(UsageError, match="stop"):
        Config.of({"stop": value})


# --- grammars


def test_mixed_tokens_keep_to_the_grammar_too_and_the_judge_decides() -> None:
    """Without it the likeliest of three answers is none that the grammar accepts."""
    world = World(THREE, THREE, scores={"pan": 3.0})
    events = world.events(depth=5, beams=3, grammar=f'root ::= "Use a pot." | "{REFUSAL}"')
    result = done(events)
    assert {beam.text for beam in result.beams} == {"Use a pot.", REFUSAL}
    assert {step.piece for step in events if isinstance(step, Step)} <= {*"Use a pot.", *REFUSAL}
    assert result.finish_reason == "stop"


@pytest.mark.parametrize("depth", [0, 1, 3, 99])
@pytest.mark.parametrize("beams", [1, 3])
def test_every_beam_is_a_whole_text_of_the_grammar_whatever_is_mixed(depth: int, beams: int) -> None:
    result = World().result(depth=min(depth, 40), beams=beams, grammar='root ::= "zebra" | "quagga"')
    assert {beam.text for beam in result.beams} <= {"zebra", "quagga"}
    assert result.text in ("zebra", "quagga")


def test_no_safe_beam_is_blocked_whatever_the_grammar() -> None:
    result = World(scores={"pan": 3.0, "help": 3.0}).result(depth=3, grammar=ONE_OF, on_unsafe="refuse")
    assert (result.text, result.finish_reason) == (Config().refusal_text, "blocked")


def test_a_whole_beam_goes_before_one_that_was_cut() -> None:
    longer = 'root ::= "Take a pan, and then some more of it." | "Use a pot."'
    result = World(scores={"pan": 1.0, "pot": 2.0}).result(depth=2, grammar=longer, max_tokens=12)
    assert (result.text, result.finish_reason) == ("Use a pot.", "stop")
    cut = World().result(beams=1, depth=2, grammar=longer, max_tokens=12)
    assert cut.finish_reason == "length"
    assert any("grammar ended" in notice for notice in cut.notices)


def test_a_repeating_answer_is_no_loop_where_the_grammar_wants_it() -> None:
    text = "0 " * 30
    result = World().result(depth=2, grammar=f'root ::= "{text}"', max_tokens=80, on_unsafe="refuse")
    assert result.text == text


def test_a_flag_may_name_a_file_and_a_bad_one_is_a_usage_error(tmp_path: Any) -> None:
    schema = tmp_path / "answer.json"
    schema.write_text('{"type": "boolean"}')
    shown = run("ask", "--show-config", "--json", "--json-schema", str(schema), "--stop", "none")
    assert json.loads(shown.out)["json_schema"]["value"] == '{"type": "boolean"}'
    missing = run("ask", "--grammar", "nowhere.gbnf", "hi")
    assert missing.code == 2
    assert "--grammar: cannot read" in missing.err
    both = run("ask", "--show-config", "--json-schema", "{}", "--stop", "a", "--stop", "b")
    assert (both.code, "does not go together with stop" in both.err) == (2, True)


def test_a_flag_that_is_repeated_and_one_that_is_not_given() -> None:
    shown = run("ask", "--show-config", "--json", "--stop", "\n\n", "--stop", '["x"]')
    assert json.loads(shown.out)["stop"] == {"value": ["\n\n", '["x"]'], "source": "--stop"}
    assert json.loads(run("ask", "--show-config", "--json").out)["stop"]["source"] == "default"


# --- what is drawn from


def drawn(**settings: Any) -> set[int]:
    """Which tokens come in many draws, among four of probability 0.4, 0.3, 0.2, 0.1."""
    row = np.full(VOCABULARY.size, -50.0, np.float32)
    row[:4] = np.log([0.4, 0.3, 0.2, 0.1])
    model = FakeLM(VOCABULARY, lambda _: row.copy())
    model.extend({0: [1]})
    sampler = model.sampler(SamplerSettings(1.0, settings.pop("top_p", 1.0), 1.0, 0, 3, **settings))
    ours = {sampler.sample(0) for _ in range(200)}
    rows = RowSampler(Config(temperature=1, repeat_penalty=1, seed=3, **asked(settings)))
    assert {rows.sample(row) for _ in range(200)} == ours, "methods of eval draw from the same"
    return ours


def asked(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in ("top_k", "min_p") if name in settings}


def test_top_k_and_min_p_narrow_what_is_drawn() -> None:
    assert drawn() == {0, 1, 2, 3}
    assert drawn(top_k=2) == {0, 1}
    assert drawn(min_p=0.6) == {0, 1}
    assert drawn(top_k=3, min_p=0.3) == {0, 1, 2}
    assert drawn(top_k=1, min_p=1.0) == {0}


def test_top_p_is_of_what_top_k_left() -> None:
    """Of 0.4 and 0.3 the first alone holds over half; of all four it does not."""
    row = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    narrow = RowSampler(Config(temperature=1, repeat_penalty=1, top_k=2, top_p=0.5))
    assert {narrow.sample(row) for _ in range(100)} == {0}
    wide = RowSampler(Config(temperature=1, repeat_penalty=1, top_p=0.5))
    assert {wide.sample(row) for _ in range(100)} == {0, 1}


def test_the_knobs_reach_the_sampler() -> None:
    settings = SamplerSettings.of(Config(top_k=5, min_p=0.1), 9)
    assert (settings.top_k, settings.min_p, settings.grammar) == (5, 0.1, "")


def test_a_method_that_draws_by_itself_cannot_keep_to_a_grammar() -> None:
    with pytest.raises(UsageError, match="grammar"):
        RowSampler(Config(grammar=ONE_OF))
