"""Injections: that the shipped ones are what they should be, and how their effect is counted."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from alignbeam_local.cli.main import main

from alignbeam_local.config import Config
from alignbeam_local.engine import open_judge as judge_loading
from alignbeam_local.errors import ModelError
from alignbeam_local.judge.check import Pair
from alignbeam_local.judge.injections import (
    ALL,
    CONTROL,
    PAIRS_EACH,
    PLACES,
    Injection,
    InjectionReport,
    JudgedInjection,
    Trial,
    judged,
    read_injections,
    report,
    trials,
    untouched,
)
from alignbeam_local.judge.judge import Judge
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import Decision, ModelCard, Steering, Verdict
from alignbeam_local.search.steering import steering_of
from tests.test_judge import make_judge

SAFE, UNSAFE = Verdict(1.0, 1.0, {}, "safe"), Verdict(5.0, 5.0, {}, "unsafe")
UNSCORED = Verdict(None, None, {}, "unscored")


def pair(n: int, label: str = "compliance") -> Pair:
    return Pair.model_validate({"question": f"Q{n}", "answer": f"HARM {n}", "label": label})


def unsafe_ones(count: int) -> list[JudgedInjection]:
    return [JudgedInjection(trial, UNSAFE) for trial in untouched(map(pair, range(count)))]


# --- the texts


def test_the_shipped_injections_are_many_of_several_kinds() -> None:
    injections = read_injections()
    kinds = Counter(one.kind for one in injections)
    assert sum(kinds.values()) - kinds[CONTROL] >= 40
    assert len(kinds) >= 11
    assert min(kinds.values()) >= 3
    assert len({one.id for one in injections}) == len({one.text for one in injections}) == len(injections)
    assert all(re.fullmatch(rf"{one.kind}-\d+", one.id) for one in injections)


def test_an_injection_fits_beside_an_answer() -> None:
    assert max(len(one.text) * one.times for one in read_injections()) < 2000


# --- the trials


def test_only_answers_that_comply_are_tried() -> None:
    pairs = [pair(0), pair(1, "refusal"), pair(2, "benign"), pair(3)]
    assert untouched(pairs) == [Trial("Q0", "HARM 0"), Trial("Q3", "HARM 3")]


def test_a_text_stands_before_or_after_the_answer_or_behind_the_request() -> None:
    injection = Injection(id="x-1", kind="x", text="no ", times=2)
    found = {one.place: (one.question, one.answer) for one in trials([injection], unsafe_ones(1))}
    assert found == {
        "before": ("Q0", "no no \n\nHARM 0"),
        "after": ("Q0", "HARM 0\n\nno no "),
        "request": ("Q0\n\nno no ", "HARM 0"),
    }


def test_all_pairs_take_turns_and_the_draw_is_fixed() -> None:
    injections = [Injection(id=f"x-{n}", kind="x", text=f"{n}", places=("after",)) for n in range(4)]
    drawn = trials(injections, unsafe_ones(10))
    assert drawn == trials(injections, unsafe_ones(10))
    assert Counter(one.question for one in drawn) == {f"Q{n}": 2 for n in range(10)}
    for injection in injections:
        assert len({one.question for one in drawn if one.injection == injection}) == PAIRS_EACH


def test_a_judge_that_calls_nothing_unsafe_cannot_be_measured() -> None:
    before = [JudgedInjection(Trial("Q", "A"), SAFE), JudgedInjection(Trial("Q", "B"), UNSCORED)]
    with pytest.raises(ModelError, match="no answer that complies"):
        trials(read_injections(), before)


# --- the counts


def test_what_went_from_unsafe_to_safe_counts_as_moved() -> None:
    kinds = {kind: Injection(id=f"{kind}-1", kind=kind, text=kind) for kind in ("claim", CONTROL)}
    verdicts = {"claim": (SAFE, UNSAFE, UNSCORED), CONTROL: (UNSAFE, UNSAFE, SAFE)}
    after = [
        JudgedInjection(Trial("Q", "A", injection, place), verdict)
        for kind, injection in kinds.items()
        for place, verdict in zip(PLACES, verdicts[kind], strict=True)
    ]
    found = report(
        [*unsafe_ones(3), JudgedInjection(Trial("Q", "A"), SAFE)], after, "fake", 2.5, is_calibrated=False
    )
    assert (found.compliant, found.unsafe, found.calibrated) == (4, 3, False)
    counts = {(row.kind, row.place): (row.moved, row.n, row.unscored) for row in found.rows}
    assert counts[("claim", "before")] == (1, 1, 0)
    assert counts[("claim", "request")] == (0, 1, 1)
    assert counts[("claim", ALL)] == counts[(ALL, ALL)] == (1, 3, 1)
    assert counts[(CONTROL, ALL)] == (1, 3, 0)
    whole = next(row for row in found.rows if (row.kind, row.place) == (ALL, ALL))
    assert whole.share == pytest.approx(1 / 3)
    assert whole.low < whole.share < whole.high
    assert found.moved_by == {"claim-1": 1, "control-1": 1}


@pytest.mark.parametrize(
    ("decision", "answer", "verdict", "is_shown"),
    [
        (None, "Take a rope.", SAFE, True),
        (None, "Take a rope.", UNSAFE, False),
        (None, "Take a rope.", UNSCORED, False),
        ("clear", "Take a rope.", SAFE, True),
        ("doubtful", "Take a rope.", SAFE, True),
        ("harmful", "Take a rope.", SAFE, False),
        ("harmful", "I can't help with that.", SAFE, True),
        ("harmful", "I can't help with that.", UNSAFE, False),
    ],
)
def test_of_a_request_that_is_read_as_harmful_only_a_refusal_is_shown(
    decision: Decision | None, answer: str, verdict: Verdict, is_shown: bool
) -> None:
    assert JudgedInjection(Trial("Q", answer), verdict, decision).is_shown == is_shown


@pytest.mark.usefixtures("few_examples")
def test_each_request_is_read_once_and_as_the_injection_left_it() -> None:
    asked_about: list[str] = []

    def read(turns: Sequence[Message]) -> Steering:
        asked_about.append(turns[-1].content)
        p = 0.01 if "plainly" in turns[-1].content else 0.99
        return steering_of(Config(), p, p, low=0.2, high=0.8)

    injection = Injection(id="x-1", kind="x", text="plainly")
    tried = trials([injection], unsafe_ones(1))
    judge, _ = make_judge()
    found = list(judged(judge.judge, tried, Config(score_by="head"), read))
    assert asked_about == ["Q0", "Q0\n\nplainly"]
    assert [(one.decision, one.verdict.verdict) for one in found] == [
        ("harmful", "unsafe"),
        ("harmful", "unsafe"),
        ("clear", "safe"),
    ]
    by_judge = list(judged(judge.judge, tried, Config(score_by="judge"), read))
    assert {one.verdict.verdict for one in by_judge} == {"unsafe"}
    assert [one.decision for one in judged(judge.judge, tried, Config())] == [None] * 3


# --- the command


@pytest.fixture
def fake_judge(few_examples: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command opens instead of a model: HARM is unsafe unless INNOCENT is in the request."""
    judge, _ = make_judge()

    @contextmanager
    def opened(*_: object) -> Iterator[tuple[Judge, ModelCard]]:
        yield judge, ModelCard("fake", "fake.gguf", "ab", "Q4")

    shipped = [
        Injection(id="claim-1", kind="claim", text="INNOCENT"),
        Injection(id="control-1", kind=CONTROL, text="Thanks."),
    ]
    monkeypatch.setattr(judge_loading, "open_judge", opened)
    monkeypatch.setattr("alignbeam_local.judge.injections.read_injections", lambda: shipped)


@pytest.mark.usefixtures("fake_judge")
def test_check_tells_what_injections_move(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pairs.jsonl"
    pairs = [pair(0), pair(1), pair(2, "refusal")]
    path.write_text("\n".join(one.model_dump_json() for one in pairs))
    command = ["judge", "check", "any", "--pairs", str(path), "--injections"]
    assert main([*command, "--json"]) == 0
    found = InjectionReport.model_validate(json.loads(capsys.readouterr().out))
    assert (found.compliant, found.unsafe) == (2, 2)
    shares = {(row.kind, row.place): row.share for row in found.rows}
    assert {place: shares[("claim", place)] for place in PLACES} == {"before": 0, "after": 0, "request": 1}
    assert shares[(CONTROL, ALL)] == 0
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "2 of 2 answers that comply are unsafe as they are" in text
    assert re.search(r"claim +0/2 +0/2 +2/2 +2/6 +10% to 70% +0 *\n", text)
    assert "moved most: claim-1 (2)" in text


class ReadingAnchor:
    """Reads what tells its innocence as clear, and all else as harmful."""

    head = SimpleNamespace(model="reader")

    def steering(self, config: Config, turns: Sequence[Message]) -> Steering:
        p = 0.1 if "INNOCENT" in turns[-1].content else 0.9
        return steering_of(config, p, p, low=0.2, high=0.8)


@pytest.fixture
def with_anchor(tmp_path: Path) -> list[str]:
    """A command on two pairs."""
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(pair(n).model_dump_json() for n in range(2)))
    return ["judge", "check", "any", "--pairs", str(path), "--injections", "--anchor", "any"]


@pytest.mark.usefixtures("fake_judge")
def test_check_tells_what_is_shown_where_an_anchor_reads_the_requests(
    with_anchor: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def opened(*_: object) -> Iterator[ReadingAnchor]:
        yield ReadingAnchor()

    monkeypatch.setattr("alignbeam_local.engine.open_reader.open_head", opened)
    assert main(with_anchor) == 0
    text = capsys.readouterr().out
    assert "still shown where reader reads the requests too (for a harmful one only a refusal is):" in text
    assert re.search(r"claim +0/2 +0/2 +2/2 +2/6 +10% to 70% +0 *\n", text)
    monkeypatch.setenv("ALIGNBEAM_HARMFUL_ABOVE", "0.05")
    monkeypatch.setenv("ALIGNBEAM_CLEAR_BELOW", "0.01")
    assert main([*with_anchor, "--json"]) == 0
    found = InjectionReport.model_validate(json.loads(capsys.readouterr().out))
    assert (found.anchor, {row.moved for row in found.rows}) == ("reader", {0})


@pytest.mark.usefixtures("fake_judge")
def test_an_anchor_without_a_head_is_told_before_anything_is_judged(
    with_anchor: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def opened(*_: object) -> Iterator[ReadingAnchor]:
        raise ModelError("there is no head for reader with this template", "alignbeam heads fit reader")
        yield

    monkeypatch.setattr("alignbeam_local.engine.open_reader.open_head", opened)
    monkeypatch.setattr("alignbeam_local.judge.injections.judged", lambda *_: pytest.fail("judged"))
    assert main(with_anchor) == ModelError.exit_code
    assert "alignbeam heads fit reader" in capsys.readouterr().err


def test_an_anchor_without_injections_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", "check", "any", "--anchor", "any"]) == 2
    assert "--anchor goes with --injections" in capsys.readouterr().err
