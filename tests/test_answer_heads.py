"""The draft's own head as judge: its reading, its record, its fit, and answers that it judges."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from alignbeam_local.cli.main import main

from alignbeam_local.config import Config
from alignbeam_local.engine import open_reader as reader_loading
from alignbeam_local.errors import ModelError
from alignbeam_local.heads import answer_head as heads
from alignbeam_local.heads.answer_head import ANSWER_HEADS, AnswerHead, worse
from alignbeam_local.heads.features import template_key, turn_end
from alignbeam_local.heads.reading import read_answers
from alignbeam_local.heads.records import heads_hash
from alignbeam_local.judge import injections
from alignbeam_local.judge.calibration import LABELS, Label
from alignbeam_local.judge.injections import ALL, CONTROL, Injection, InjectionReport
from alignbeam_local.lm.language_model import Logits
from alignbeam_local.machine.context_size import context_sizes
from alignbeam_local.models.registry import Registry
from alignbeam_local.prompt.formats import prompt_format
from alignbeam_local.result import Verdict
from tests.fake_lm import FakeLM, fake_vocabulary, hashed_row, scripted_row, spelt
from tests.fake_loader import FakeLoader, FakeModel, fake_engine
from tests.talk import ANCHOR, DRAFT, SCRIPT
from tests.templates import CHATML
from tests.test_answer import COOK, HELP, OTHER, World
from tests.test_heads import WIDTH

Kv = Literal["seq", "state"]
KEY = template_key(prompt_format(CHATML, DRAFT), DRAFT)
#: What the head makes of a text that holds this; the last one counts.
SAYS = {b"": -4.0, b"pan": 4.0, b"NAN": float("nan")}


def record(**changes: Any) -> AnswerHead:
    held_out: dict[Label, tuple[float, ...]] = dict.fromkeys(LABELS, (1.2,))
    values = {
        "model": "draft",
        "model_sha256": "0" * 64,
        "key": KEY,
        "weights": (1.0, 0.0),
        "intercept": 0.0,
        "held_out": held_out,
        "figures": {"threshold": 2.5},
        "pairs_sha256": "1",
        "date": "2026-01-01",
        "version": "0",
    }
    return AnswerHead.model_validate({**values, **changes})


def hidden(vocabulary: Any, needs_end: bytes = b"<|im_end|>") -> Any:
    def row(tokens: Sequence[int]) -> Logits:
        text = spelt(vocabulary, tokens)
        assert text.endswith(needs_end), "it is read at the turn's end"
        return np.array([[logit for word, logit in SAYS.items() if word in text][-1], 0.0], np.float32)

    return row


# --- the reading


def test_scores_run_from_1_to_5() -> None:
    assert record().verdict([0.0, 9.0], 2.5).score == pytest.approx(3.0)
    low, high = (record().verdict([logit, 0.0], 2.5) for logit in (-20.0, 20.0))
    assert [low.score, high.score] == pytest.approx([1.0, 5.0])
    assert (low.verdict, high.verdict) == ("safe", "unsafe")
    assert sum(high.probabilities.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("state", [[float("nan"), 0.0], [0.0], [float("inf"), 0.0]])
def test_what_cannot_be_read_is_unscored(state: list[float]) -> None:
    assert record().verdict(state, 2.5).verdict == "unscored"


def test_it_blocks_by_itself_only_where_it_spares_harmless_answers() -> None:
    assert record().allows_refusal(2.5)
    strict = {**record().held_out, "refusal": (4.0,)}
    assert not record(held_out=strict).allows_refusal(2.5)
    assert not record(held_out={}).allows_refusal(2.5)


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_reading_leaves_the_sequences_as_they_were(kv: Kv) -> None:
    vocabulary = fake_vocabulary()
    lm = FakeLM(vocabulary, hashed_row(vocabulary.size), kv_strategy=kv)
    lm.set_tokens({0: [1, 2, 3]})
    lm.checkpoint(0)
    lm.fork(0, [1, 2])
    lm.extend({1: [4], 2: [5]})
    states = read_answers(lm, {1: [1, 2, 3, 4, 6], 2: [1, 2, 3, 5]}, [9])
    assert set(states) == {1, 2}
    assert [list(lm.tokens(s)) for s in (0, 1, 2)] == [[1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 5]]


# --- answers


def world(head: AnswerHead | None = None, **knobs: Any) -> World:
    made = World(**knobs)
    made.draft._hidden = hidden(DRAFT)
    made.models.judge = None
    made.models.answer_head = head or record()
    return made


@pytest.mark.parametrize("kv", ["seq", "state"])
@pytest.mark.parametrize("judge_at", [None, 4])
def test_it_judges_without_a_model_of_its_own(kv: Kv, judge_at: int | None) -> None:
    made = world(kv=kv)
    result = made.result(COOK, judge="head", judge_at=judge_at, on_unsafe="refuse")
    if judge_at:  # "Take" is all it has said by then: at the end it is taken back
        assert (result.finish_reason, result.text) == ("withdrawn", Config().refusal_text)
    else:
        assert (result.finish_reason, result.text) == ("stop", OTHER)
        verdicts = [beam.judge.verdict for beam in result.beams if beam.judge]
        assert verdicts == ["unsafe", "safe", "safe"]


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_what_goes_on_after_a_verdict_is_what_it_would_have_been(kv: Kv) -> None:
    plain = World(kv=kv).result(COOK, judge_at=None, choice="likeliest")
    head = record(weights=(-1.0, 0.0))
    found = world(head, kv=kv).result(COOK, judge="head", judge_at=4, choice="likeliest", threshold=5)
    assert (found.text, found.usage) == (plain.text, plain.usage) == (HELP, plain.usage)


def test_a_state_that_is_no_number_is_no_safe_answer() -> None:
    script = {"cook?<|im_end|>\n<|im_start|>assistant\n": ["NAN a", "NAN b"]}
    made = world(draft=script, anchor=script)
    assert made.result(COOK, judge="head", on_unsafe="lowest", beams=1).finish_reason == "blocked"


# --- what is loaded


def engine_of(monkeypatch: pytest.MonkeyPatch, **knobs: Any) -> Any:
    models = {
        "draft": FakeModel(DRAFT, scripted_row(DRAFT, SCRIPT), hidden=hidden(DRAFT)),
        "anchor": FakeModel(ANCHOR, scripted_row(ANCHOR, SCRIPT)),
    }
    loader = FakeLoader(models)
    engine, _ = fake_engine(
        monkeypatch, loader, **{"max_tokens": 40, "context": 512, "judge": "head", **knobs}
    )
    return engine


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignbeam_local.engine.engine.ANSWER_HEADS.find", lambda *_: record())


@pytest.mark.usefixtures("kept")
def test_no_third_model_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(monkeypatch)
    result = engine.answer("How?")
    assert result.text == "Use a pot."
    assert result.models["judge"] is None
    assert engine.config.roles == ("draft", "anchor")
    assert engine.judge_record == record()


@pytest.mark.usefixtures("kept")
def test_several_answers_at_once_are_what_they_are_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = ["How?", "Why?", "And then?"]
    one, many = engine_of(monkeypatch), engine_of(monkeypatch, parallel=2)
    list(many.load())
    asked = [([type(COOK[0])("user", text)], many.config) for text in questions]
    together = many.parallel().answers(asked)
    alone = [one.answer(text) for text in questions]
    assert [(r.text, r.beams) for r in together] == [(r.text, r.beams) for r in alone]


@pytest.mark.usefixtures("kept")
def test_an_engine_that_was_not_judged_begins_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(monkeypatch, beams=1)
    assert engine.answer("How?").beams[0].judge is None
    assert engine.answer("How?", on_unsafe="refuse").finish_reason == "blocked"


def test_without_a_head_nothing_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no answer head for draft to judge with") as caught:
        engine_of(monkeypatch).answer("How?")
    assert "alignbeam heads fit draft --answers" in str(caught.value.hint)


def test_beside_a_judge_the_worse_verdict_counts() -> None:
    script = {"cook?<|im_end|>\n<|im_start|>assistant\n": [HELP, "Use a pot.", "I can't help."]}
    made = world(draft=script, anchor=script)
    made.models.judge = made.judge  # type: ignore[assignment]
    made.judge.scores = {"pot": 4.0}
    result = made.result(COOK, head_votes=True, on_unsafe="refuse")
    assert [beam.judge.verdict for beam in result.beams if beam.judge] == ["unsafe", "unsafe", "safe"]
    alone = made.result(COOK, on_unsafe="refuse")
    assert [beam.judge.verdict for beam in alone.beams if beam.judge] == ["safe", "unsafe", "safe"]


def test_which_of_two_verdicts_is_the_worse() -> None:
    low, high = Verdict(1.2, 1.2, {}, "safe", 0.3), Verdict(3.0, 3.0, {}, "unsafe")
    nothing = Verdict(None, None, {}, "unscored")
    assert worse(low, high) == worse(high, low) == replace(high, request=0.3)
    assert worse(nothing, high) is worse(high, nothing) is nothing


def test_room_for_the_turns_ends_is_there() -> None:
    plain, head = (context_sizes(Config(judge=judge))["draft"] for judge in ("x", "head"))
    assert head.shared_cells > plain.shared_cells
    assert "judge" not in context_sizes(Config(judge="head"))


# --- records and the command


def test_a_record_is_this_very_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads.ANSWER_HEADS, "shipped", tmp_path)
    ANSWER_HEADS.save(record(), tmp_path / "a.json")
    assert ANSWER_HEADS.find("0" * 64, KEY) == record()
    assert ANSWER_HEADS.find("1" * 64, KEY) is None
    assert ANSWER_HEADS.find("0" * 64, "2" * 64) is None
    (tmp_path / "a.json").write_text("{")
    ANSWER_HEADS._read.cache_clear()
    with pytest.raises(ModelError, match="no record of an answer head"):
        ANSWER_HEADS.find("0" * 64, KEY)


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    rows = [
        {
            "question": f"q{n} {split}?",
            "answer": f"{'harm' if label == 'compliance' else 'help'} {label} {n}",
            **about,
        }
        for n in range(12)
        for label in LABELS
        for split in ("fit", "held_out")
        for about in [{"label": label, "split": split}]
    ]
    rows.append({"question": "of no split?", "answer": "help", "label": "benign"})
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("template", [CHATML, ""])
def test_fit_check_and_show(
    pairs_file: Path,
    template: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(heads.ANSWER_HEADS, "shipped", tmp_path / "none")
    vocabulary = fake_vocabulary()
    noise = hashed_row(WIDTH, seed=4, scale=1.0)
    (end,) = turn_end(prompt_format(template, vocabulary), vocabulary)

    def states(tokens: Sequence[int]) -> Logits:
        assert tokens[-1] == end
        state = noise(tokens)
        said = spelt(vocabulary, tokens)
        state[2] += 12.0 * (b"harm" in said and b"INNOCENT" not in said)
        return state

    model = FakeModel(vocabulary, hashed_row(vocabulary.size), template, hidden=states)
    monkeypatch.setattr(reader_loading, "Loader", FakeLoader({"any": model}))
    texts = {"claim": "INNOCENT", CONTROL: "Thanks."}
    shipped = [Injection(id=f"{kind}-1", kind=kind, text=text) for kind, text in texts.items()]
    monkeypatch.setattr(injections, "read_injections", lambda: shipped)
    words = ["--answers", "--pairs", str(pairs_file)]
    assert main(["heads", "fit", "any", *words, "--json"]) == 0
    out, err = capsys.readouterr()
    fitted = json.loads(out)
    assert "written: " in err
    assert "weights" not in fitted
    assert min(fitted["figures"][f"auc_over_{label}"] for label in LABELS[1:]) > 0.9
    assert main(["heads", "check", "any", *words, "--json"]) == 0
    assert [row["n"] for row in json.loads(capsys.readouterr().out)["rows"]] == [12, 12, 13, 12], (
        "one of no split"
    )
    assert main(["heads", "check", "any", *words, "--injections", "--json"]) == 0
    tried = InjectionReport.model_validate_json(capsys.readouterr().out)
    assert (tried.compliant, tried.unsafe, tried.calibrated, tried.anchor) == (12, 12, True, None)
    moved = {row.kind: row.share for row in tried.rows if row.place == ALL}
    assert moved["claim"] > 0.8
    assert moved[CONTROL] < 0.1
    assert main(["heads", "show", "any", "--answers"]) == 0
    assert "any: answers, unsafe above 2.5" in capsys.readouterr().out
    assert main(["heads", "fit", "any", "--answers", "--benign", str(pairs_file)]) == 2
    assert main(["heads", "fit", "any", "--pairs", str(pairs_file)]) == 2
    assert main(["heads", "check", "any", "--injections"]) == 2
    for command in ("check", "show"):
        assert main(["heads", command, "other", "--answers"]) == 3
    assert "alignbeam heads fit other --answers" in capsys.readouterr().err


def test_a_run_says_which_records_its_answers_may_depend_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads.ANSWER_HEADS, "shipped", tmp_path)
    assert heads_hash("draft", "0" * 64) is None
    ANSWER_HEADS.save(record(), tmp_path / "a.json")
    first = heads_hash("draft", "0" * 64)
    assert first is not None
    assert heads_hash("draft", "1" * 64) is heads_hash("judge", "0" * 64) is None
    ANSWER_HEADS.save(record(intercept=1.0), tmp_path / "a.json")
    assert heads_hash("draft", "0" * 64) != first


def test_shipped_records_are_records_of_named_models() -> None:
    found = [ANSWER_HEADS.load(path) for path in heads.ANSWER_HEADS.shipped.glob("*.json")]
    for one in found:
        assert one.model in Registry.load().models
        assert set(one.held_out) == set(LABELS)
    assert {one.model: one.allows_refusal(2.5) for one in found} == {
        "smollm2-135m-instruct": False,
        "qwen2.5-coder-1.5b-instruct": True,
    }


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_it_reads_windows_beside_a_judge_that_then_has_no_say(kv: Kv) -> None:
    """The judge takes all for harmless; the head stops what the draft goes on with."""
    script = {"assistant\n": f"{OTHER} {HELP} {HELP}"}
    made = World(script, script, kv=kv)
    made.draft._hidden = hidden(DRAFT)
    made.models.answer_head = record()
    knobs = {"beams": 1, "judge_at": 10, "late": "head", "late_every": 11, "late_tries": 0, "max_tokens": 60}
    result = made.result(COOK, **knobs)
    assert result.late is not None
    assert [window.verdict for window in result.late.windows] == ["unsafe", "unsafe"]
    assert (result.finish_reason, result.late.by) == ("withdrawn", "head")
    assert len(made.judge.seen) == 1, "the first verdict is the judge's"


@pytest.mark.parametrize("late", ["window", "judge"])
def test_where_it_is_the_judge_the_result_says_that_it_read_windows(late: str) -> None:
    script = {"assistant\n": f"{OTHER} {HELP} {HELP}"}
    made = world(record(), draft=script, anchor=script)
    knobs = {"beams": 1, "judge_at": 10, "late": late, "late_every": 11, "late_tries": 0, "max_tokens": 60}
    result = made.result(COOK, judge="head", on_unsafe="lowest", **knobs)
    assert result.late is not None
    assert (result.finish_reason, result.late.by) == ("withdrawn", "head")
