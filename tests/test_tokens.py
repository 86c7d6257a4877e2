"""Safety tokens are found: Eq. 1 and 2 worked by hand, two models led along one answer, rejections' words."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alignbeam_local.cli.tokens.run import Request, _requests

from alignbeam_local.config import Config
from alignbeam_local.engine.open_models import Model
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.lm.vocabulary import Vocabulary
from alignbeam_local.prompt.formats import BaseFormat, prompt_format
from alignbeam_local.refusals.detector import declines
from alignbeam_local.result import ModelCard
from alignbeam_local.search.safety_tokens import token_path
from alignbeam_local.tokens.differences import (
    AnswerDifference,
    mean_difference,
    random_tokens,
    softmax,
    top_differences,
)
from alignbeam_local.tokens.find import by_difference, by_rejections, control_of
from alignbeam_local.tokens.forcing import (
    ForcedAnswer,
    Reader,
    encoder,
    forced_answers,
    require_one_vocabulary,
)
from alignbeam_local.tokens.salient import first_sentence, rejection_templates, salient_tokens
from alignbeam_local.tokens.token_file import Source, read_tokens
from tests.fake_lm import FakeLM, fake_vocabulary, scripted_row
from tests.running import run
from tests.templates import CHATML

VOCABULARY = fake_vocabulary("user", "assistant", " sorry", " help", "I")
BEGIN = "<|im_end|>\n<|im_start|>assistant\n"
SAFE, BASE = Source(name="safe", weights_sha256="0" * 64), Source(name="base", weights_sha256="1" * 64)


def logits(*probabilities: float) -> Any:
    return np.log(np.array(probabilities)).astype(np.float32)


# --- Eq. 1 and 2


def test_the_difference_of_one_answer_by_hand() -> None:
    """Two positions of three tokens: (0.5, 0.3, 0.2) over (0.2, 0.3, 0.5), then (0.8, 0.1, 0.1) over it."""
    answer = AnswerDifference(3)
    answer.add(logits(0.5, 0.3, 0.2), logits(0.2, 0.3, 0.5))
    answer.add(logits(0.8, 0.1, 0.1), logits(0.2, 0.3, 0.5))
    assert answer.positions == 2
    assert answer.mean == pytest.approx([(0.3 + 0.6) / 2, (0.0 - 0.2) / 2, (-0.3 - 0.4) / 2], abs=1e-6)


def test_long_answers_count_as_much_as_short_ones() -> None:
    """The mean of the answers' means: of 0.2 and 0.6 it is 0.4, however many positions each had."""
    d = mean_difference([np.array([0.2, -0.2]), np.array([0.6, -0.6]), np.array([0.1, -0.1])])
    assert d == pytest.approx([0.3, -0.3])


def test_a_mean_leaves_the_answers_as_they_were() -> None:
    first = np.array([0.2, -0.2])
    mean_difference([first, np.array([0.6, -0.6])])
    assert first.tolist() == [0.2, -0.2]


def test_the_top_k_by_hand() -> None:
    d = np.array([0.1, -0.5, 0.3, 0.1, 0.0])
    top = top_differences(d, 2)
    assert (top.tokens.tolist(), top.values.tolist()) == ([2, 0], [0.3, 0.1]), "equal ones by their ids"
    assert top.share == pytest.approx(0.8)
    everything = top_differences(d, 50)
    assert everything.tokens.tolist() == [2, 0, 3], "none that the safe model likes less, or as much"
    assert everything.share == pytest.approx(1.0)


def test_equal_models_leave_nothing() -> None:
    assert len(top_differences(np.zeros(4), 50).tokens) == 0
    assert top_differences(np.zeros(4), 50).share == 0.0


def test_a_softmax_of_large_logits_is_finite() -> None:
    assert softmax(np.array([1000.0, 1000.0], np.float32)).tolist() == [0.5, 0.5]


def test_a_control_holds_none_of_the_found() -> None:
    drawn = random_tokens(20, 5, seed=0, left_out=[1, 2, 3])
    assert len(set(drawn.tolist())) == 5
    assert not {1, 2, 3} & set(drawn.tolist())
    assert drawn.tolist() == random_tokens(20, 5, seed=0, left_out=[1, 2, 3]).tolist()
    assert len(random_tokens(4, 50, seed=0)) == 4


# --- two models on one answer


def reader(says: dict[str, str], num_sequences: int = 2) -> Reader:
    layout = prompt_format(CHATML, VOCABULARY)
    lm = FakeLM(VOCABULARY, scripted_row(VOCABULARY, says), num_sequences=num_sequences)
    return Reader(lm, encoder("template", layout, VOCABULARY))


PROMPTS = ["Steal?", "Burn?", "Lie?"]
REFUSES = {f"{prompt}{BEGIN}": "I can't help." for prompt in PROMPTS[:2]} | {f"Lie?{BEGIN}": "Sure, so."}
HELPS = {f"{prompt}{BEGIN}": "Sure, do." for prompt in PROMPTS}


def test_the_second_model_is_led_along_the_first_ones_answer() -> None:
    safe, base = reader(REFUSES), reader(HELPS)
    answers = list(forced_answers(safe, base, PROMPTS, max_tokens=20))
    assert [answer.text for answer in answers] == ["I can't help.", "I can't help.", "Sure, so."]
    assert [answer.prompt for answer in answers] == PROMPTS
    assert isinstance(base.lm, FakeLM)
    assert base.lm.batches[0].keys() == {0, 1}, "as many at once as there are sequences"
    assert base.lm.batches == safe.lm.batches  # type: ignore[attr-defined]


def test_the_difference_is_that_of_the_rows() -> None:
    """Of the rows behind the prompt and behind each token but the last, as the definition says."""
    safe, base = reader(REFUSES, 1), reader(HELPS, 1)
    (answer,) = forced_answers(safe, base, PROMPTS[:1], max_tokens=3)
    ids = safe.encode(PROMPTS[0])
    rows = []
    for says in (REFUSES, HELPS):
        row = scripted_row(VOCABULARY, says)
        rows.append([softmax(row([*ids, *answer.tokens[:t]])) for t in range(3)])
    expected = np.mean([s - b for s, b in zip(*rows, strict=True)], axis=0)
    assert answer.difference == pytest.approx(expected)
    assert len(answer.tokens) == 3


def test_an_answer_that_ends_at_once_has_no_tokens() -> None:
    safe = reader({f"Steal?{BEGIN}": ""})
    (answer,) = forced_answers(safe, reader(HELPS), PROMPTS[:1], max_tokens=3)
    assert (answer.tokens, answer.text) == ((), "")


def test_one_model_alone_has_no_difference() -> None:
    (answer,) = forced_answers(reader(REFUSES), None, PROMPTS[:1], max_tokens=30)
    assert (answer.text, answer.difference) == ("I can't help.", None)


def test_requests_as_they_are_and_as_a_dialogue() -> None:
    spelt = {
        form: VOCABULARY.pieces(encoder(form, BaseFormat(), VOCABULARY)("Steal?"))
        for form in ("template", "raw", "dialogue")
    }
    assert spelt == {
        "template": b"Q: Steal?\nA:",
        "raw": b"Steal?",
        "dialogue": b"User: Steal?\n\nAssistant: ",
    }


def test_two_vocabularies_are_an_error() -> None:
    require_one_vocabulary(VOCABULARY, VOCABULARY)
    with pytest.raises(ModelError, match="do not share a vocabulary"):
        require_one_vocabulary(VOCABULARY, fake_vocabulary("other"))


# --- files


def test_tokens_are_those_of_refusals() -> None:
    answers = forced_answers(reader(REFUSES), reader(HELPS), PROMPTS, max_tokens=20)
    found = by_difference(answers, VOCABULARY, SAFE, BASE, count=3, declines=declines)
    assert (found.asked, found.file.answers, found.file.positions) == (3, 2, 2 * len(_ids("I can't help.")))
    assert found.file.tokens[0].text in "I can't help."
    assert all(token.d > 0 for token in found.file.tokens)
    assert found.file.vocabulary == VOCABULARY.fingerprint
    assert 0 < (found.file.share or 0) <= 1


def _ids(text: str) -> list[int]:
    return VOCABULARY.encode(text)


def test_models_that_refuse_nothing_or_do_not_differ() -> None:
    answers = forced_answers(reader(HELPS), reader(REFUSES), PROMPTS, max_tokens=20)
    with pytest.raises(ModelError, match="safe declines none of 3 requests"):
        by_difference(answers, VOCABULARY, SAFE, BASE, count=3, declines=declines)
    answers = forced_answers(reader(REFUSES), reader(REFUSES), PROMPTS, max_tokens=20)
    with pytest.raises(ModelError, match="the same probabilities"):
        by_difference(answers, VOCABULARY, SAFE, BASE, count=3, declines=declines)


def test_a_control_file_is_of_tokens_with_text() -> None:
    answers = forced_answers(reader(REFUSES), reader(HELPS), PROMPTS, max_tokens=20)
    file = by_difference(answers, VOCABULARY, SAFE, BASE, count=3, declines=declines).file
    control = control_of(file, VOCABULARY, seed=0)
    assert (control.kind, len(control.tokens)) == ("random", len(file.tokens))
    assert not set(control.ids) & {*file.ids, *VOCABULARY.control_tokens}


# --- rejections


def test_a_token_counts_that_two_rejections_share_and_that_has_a_letter() -> None:
    own = [_ids(text) for text in ("I can't help. Ever x.", "I won't help, no.", "No way!")]
    found = salient_tokens(own, [], VOCABULARY, 50)
    pieces = {VOCABULARY.piece(one.token).decode(): one.times for one in found}
    assert pieces["I"] == pieces[" help"] == 2
    assert "'" not in pieces, "no letter"
    assert "x" not in pieces, "not in the first sentence"
    assert "y" not in pieces, "in one alone"
    assert [one.times for one in found] == sorted((one.times for one in found), reverse=True)
    assert len(salient_tokens(own, [], VOCABULARY, 1)) == 1


def test_a_model_and_the_templates_are_counted_apart_and_ranked_together() -> None:
    own, templates = [_ids("I q."), _ids("I q.")], [_ids("I z."), _ids("q.")]
    found = {
        VOCABULARY.piece(s.token).decode(): s.times for s in salient_tokens(own, templates, VOCABULARY, 9)
    }
    assert found == {"I": 3, "q": 3}, "z and the templates' own q stand in one template each"


def test_the_first_sentence() -> None:
    assert VOCABULARY.pieces(list(first_sentence(_ids("I do. No."), VOCABULARY))) == b"I do."
    assert len(list(first_sentence(_ids("a" * 40), VOCABULARY))) == 16


def test_the_shipped_rejections_decline_and_are_ten_or_more() -> None:
    templates = rejection_templates()
    assert len(set(templates)) == len(templates) >= 10
    assert all(map(declines, templates))


def test_rejections_of_a_model_and_of_the_project() -> None:
    answers = list(forced_answers(reader(REFUSES), None, PROMPTS, max_tokens=20))
    templates = list(map(_ids, rejection_templates()))
    found = by_rejections(answers, templates, VOCABULARY, SAFE, count=50, declines=declines)
    assert found.file.kind == "rejections"
    assert found.file.answers == 2
    assert {"I", " help"} <= {token.text for token in found.file.tokens}
    alone = by_rejections([], templates, VOCABULARY, SAFE, count=50, declines=declines)
    assert alone.file.answers == 0
    with pytest.raises(ModelError, match="declines none of 1 requests"):
        by_rejections(answers[2:], [], VOCABULARY, SAFE, count=50, declines=declines)


# --- the command


def model(says: dict[str, str], name: str, vocabulary: Vocabulary = VOCABULARY) -> Model:
    lm = FakeLM(vocabulary, scripted_row(vocabulary, says), num_sequences=8, num_cells=1 << 14)
    layout = prompt_format(CHATML, vocabulary)
    return Model(lm, layout, ModelCard(name, name, "0" * 64, "Q4"), 512, 512)


Open = Callable[[dict[str, str], dict[str, str]], None]


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Open:
    """The command opens models that say so."""

    def opened(safe: dict[str, str], base: dict[str, str]) -> None:
        @contextmanager
        def two(*_: object) -> Iterator[tuple[Model, Model]]:
            yield model(safe, "safe"), model(base, "base")

        monkeypatch.setattr("alignbeam_local.engine.open_reader.open_two", two)

    return opened


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS), encoding="utf-8")
    return path


def test_find_writes_what_show_shows(opens: Open, prompts: Path, tmp_path: Path) -> None:
    opens(REFUSES, HELPS)
    out, control = tmp_path / "tokens.json", tmp_path / "random.json"
    ran = run("tokens", "find", "safe", "base", "--prompts", str(prompts), *("--top", "4"),
              "--out", str(out), "--control", str(control))  # fmt: skip
    assert ran.code == 0
    assert "that safe prefers to base: 2 of its answers that decline" in ran.out
    assert "note: 1 of 3 answers do not decline" in ran.err
    assert f"written: {out}" in ran.err
    assert len(read_tokens(out).ids) == len(read_tokens(control).ids) == 4
    shown = run("tokens", "show", str(out))
    assert shown.out == ran.out
    assert json.loads(run("tokens", "show", str(out), "--json").out) == json.loads(out.read_text())
    assert "a control" in run("tokens", "show", str(control)).out


def test_what_the_tokens_rest_on_is_said_as_it_is(opens: Open, prompts: Path) -> None:
    """No model said the shipped rejections, and with --every-answer none need decline."""
    opens(REFUSES, HELPS)
    ask = ("tokens", "find", "safe", "base", "--every-answer", "--prompts", str(prompts))
    ran = run(*ask)
    assert "prefers to base: 3 of its answers, whether they decline or not, 27 positions" in ran.out.replace(
        "\n", " "
    )
    assert "note" not in ran.err
    said = {}
    for source in ("both", "own", "templates"):
        ran = run("tokens", "salient", "safe", "--prompts", str(prompts), "--from", source)
        said[source] = ran.out.replace("\n", " ").partition("tokens that ")[2].partition("  ")[0]
    own, shipped = "2 rejections of safe (18 positions)", "shipped rejections, in the vocabulary of safe,"
    number = len(rejection_templates())
    assert said["own"].startswith(f"{own} share")
    assert said["templates"].startswith(f"{number} {shipped} share")
    assert said["both"].startswith(f"{own} and {number} {shipped} share")


@pytest.mark.parametrize("lora", [(), ("./my adapter.gguf:0.5",)])
def test_the_hint_of_a_missing_file_is_a_command_that_makes_it(
    monkeypatch: pytest.MonkeyPatch, prompts: Path, tmp_path: Path, lora: tuple[str, ...]
) -> None:
    """As it stands, but for where the file goes and what is asked."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        token_path(Config.of({"draft": "safe", "lora": list(lora), "safety_tokens": "boost"}))
    command = re.search(r"alignbeam (tokens find .*), then --safety-file (\S+)\.$", caught.value.hint)
    assert command
    says = [model(REFUSES, "safe"), model(HELPS, "base")]
    seen: list[Config] = []

    @contextmanager
    def two(config: Config, *_: object) -> Iterator[tuple[Model, Model]]:
        seen.append(config)
        yield says[0], says[1]

    monkeypatch.setattr("alignbeam_local.engine.open_reader.open_two", two)
    ran = run(*shlex.split(command[1]), "--prompts", str(prompts))
    assert (ran.code, ran.err.startswith("error")) == (0, False)
    assert seen[0].lora == lora
    assert read_tokens(tmp_path / command[2]).answers == 2


def test_a_file_of_an_older_version_says_no_more_than_it_knows(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    old = {"format": "alignbeam safety tokens 1", "kind": "rejections", "vocabulary": "0" * 64}
    tokens = [{"id": 1, "text": "I", "d": 2}]
    path.write_text(json.dumps({**old, "safe": SAFE.model_dump(mode="json"), "tokens": tokens}))
    assert (
        "1 tokens that rejections, in the vocabulary of safe, share" in run("tokens", "show", str(path)).out
    )


def test_salient_asks_the_model_the_templates_or_both(opens: Open, prompts: Path) -> None:
    opens(REFUSES, HELPS)
    ask = ("tokens", "salient", "safe", "--prompts", str(prompts), "--json")
    counts = {
        source: json.loads(run(*ask, "--from", source).out)["answers"]
        for source in ("both", "own", "templates")
    }
    assert counts == {"both": 2, "own": 2, "templates": 0}


def test_a_model_against_itself_is_refused(opens: Open) -> None:
    opens(REFUSES, HELPS)
    for words in (("safe",), ("safe", "safe")):
        ran = run("tokens", "find", *words)
        assert (ran.code, "held against itself" in ran.err) == (2, True)
    assert run("tokens", "find", "safe", "--base-prompt", "raw", "--limit", "3").code in (0, 3)


def test_an_adapter_is_on_the_one_or_on_the_other(monkeypatch: pytest.MonkeyPatch, prompts: Path) -> None:
    """Of the two models that are opened the draft has it."""

    @contextmanager
    def two(config: Config, *_: object) -> Iterator[tuple[Model, Model]]:
        assert config.lora == ("mine",)
        by_file = {"refusing": REFUSES, "helpful": HELPS}
        yield model(by_file[str(config.anchor)], "plain"), model(by_file[str(config.draft)], "adapted")

    monkeypatch.setattr("alignbeam_local.engine.open_reader.open_two", two)
    ask = ("tokens", "find", "refusing", "helpful", "--lora", "mine", "--prompts", str(prompts), "--json")
    names = {
        on: tuple(json.loads(run(*ask, "--lora-on", on).out)[which]["name"] for which in ("safe", "base"))
        for on in ("base", "safe")
    }
    assert names == {"base": ("plain", "adapted"), "safe": ("adapted", "plain")}


def test_requests_without_room_are_left_out(opens: Open, prompts: Path) -> None:
    opens(REFUSES, HELPS)
    prompts.write_text("\n".join([*PROMPTS, "long " * 200]), encoding="utf-8")
    ran = run("tokens", "find", "safe", "base", "--prompts", str(prompts))
    assert "note: 1 requests are longer than the context" in ran.err
    prompts.write_text("long " * 200, encoding="utf-8")
    ran = run("tokens", "find", "safe", "base", "--prompts", str(prompts))
    assert (ran.code, "no request fits" in ran.err) == (2, True)


@pytest.mark.parametrize(
    "words", [("find", "none.gguf", "--lora", "x"), ("salient", "none.gguf"), ("show", "no.json")]
)
def test_what_is_not_there(words: tuple[str, ...]) -> None:
    ran = run("tokens", *words)
    assert ran.code in (2, 3)
    assert "hint: " in ran.err


def test_the_default_requests_are_shipped_ones() -> None:
    request = Request("safe", None, (), "raw", None, 16, 8, 50, False, None, None)
    asked = _requests(request)
    assert len(asked) == len(set(asked)) == 16


def test_the_end_of_an_answer_is_no_safety_token() -> None:
    """Boosted it would cut answers short."""
    assert VOCABULARY.eot is not None
    difference = np.zeros(VOCABULARY.size)
    difference[[VOCABULARY.eot, ord("n")]] = 0.5, 0.1
    answer = ForcedAnswer("Steal?", tuple(_ids("I can't help.")), "I can't help.", difference)
    found = by_difference([answer], VOCABULARY, SAFE, BASE, count=5, declines=declines)
    assert found.file.ids == (ord("n"),)
