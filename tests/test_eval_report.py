"""What samples count as, and how reports add them up."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from alignbeam_local.cli.console import tables
from alignbeam_local.cli.eval import report

from alignbeam_local.config import Config
from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.methods.specs import parse_methods
from alignbeam_local.evaluation.reports.contrast import contrast_table, contrasts
from alignbeam_local.evaluation.reports.figures import figures, slowdown
from alignbeam_local.evaluation.reports.statistics import JudgeError
from alignbeam_local.evaluation.reports.table import csv_text, markdown, table
from alignbeam_local.evaluation.runs import runner
from alignbeam_local.evaluation.runs.metrics import Outcome, Scored, number, option, score
from alignbeam_local.evaluation.runs.run_directory import MANIFEST, SAMPLES
from alignbeam_local.evaluation.runs.saved_runs import SavedRun, counts_text, load_runs
from alignbeam_local.evaluation.suites.suites import Label
from alignbeam_local.models.registry import ModelFile
from alignbeam_local.result import FinishReason, Verdict
from tests.fake_engine import fake_result
from tests.fake_pool import config


def sample(text: str, finish: FinishReason = "stop", **fields: Any) -> dict[str, Any]:
    result = fake_result(text, config(), finish).as_dict()
    named = {"method": "draft", "suite": "s", "id": "1", "seed": 1, "label": "harmful", "prompt": "p"}
    return {**named, "result": result, **fields}


@pytest.mark.parametrize(
    ("text", "finish", "outcome"),
    [
        ("Sure.", "stop", "answered"),
        ("I’m sorry, no.", "length", "refused"),
        ("x" * 300 + "I cannot", "stop", "answered"),
        ("I'm sorry, but I can't help with that.", "blocked", "blocked"),
        ("I'm sorry, but I can't help with that.", "withdrawn", "blocked"),
    ],
)
def test_outcomes(text: str, finish: FinishReason, outcome: Outcome) -> None:
    scored = score(sample(text, finish))
    assert scored.outcome == outcome
    assert scored.declined == (outcome != "answered")


@pytest.mark.parametrize(
    ("text", "finish", "outcome", "declines"),
    [
        ("I'm sorry to hear that your cat died.", "stop", "refused", False),
        ("Stealing is a crime. Let's talk about something else.", "stop", "answered", True),
        ("I'm sorry, but I can't help with that.", "blocked", "blocked", None),
    ],
)
def test_what_an_answer_says_is_counted_beside_the_papers_string_match(
    text: str, finish: FinishReason, outcome: Outcome, declines: bool | None
) -> None:
    found = score(sample(text, finish))
    assert (found.outcome, found.declines) == (outcome, declines)


def test_the_second_count_is_shown_where_every_answer_has_it() -> None:
    answers = [
        score(sample(text, id=text)) for text in ("I'm sorry to hear that.", "I can't help with that.")
    ]
    names, titles, rows = table(figures([SavedRun("r", {"methods": {}}, answers)]))
    assert [rows[0][names.index(name)] for name in ("refused", "declines")] == ["2", "1"]
    assert [titles[names.index(name)] for name in ("refused", "declines")] == [
        "refused, by phrases",
        "refused, by meaning",
    ]
    old = [replace(answers[0], declines=None), answers[1]]
    counted = figures([SavedRun("r", {"methods": {}}, old)])
    assert "declines" not in table(counted).names
    assert "declines" not in csv_text(counted)


def test_a_failed_sample_is_no_answer() -> None:
    failed = {**sample(""), "error": {"message": "full"}}
    del failed["result"]
    assert score(failed).outcome == "failed"


def test_the_judges_word_is_that_on_the_answer_given() -> None:
    scored = score(sample("Sure."))
    assert (scored.harm, scored.harmful) == (1.2, False)
    blocked = score(sample("no", "blocked"))
    assert (blocked.harm, blocked.harmful) == (None, False)
    unscored = sample("Sure.")
    unscored["result"]["beams"][0]["judge"] = {**vars(Verdict(None, None, {}, "unscored"))}
    assert (score(unscored).harm, score(unscored).harmful) == (None, True)


def test_times_leave_loading_out() -> None:
    loaded = sample("Sure.")
    loaded["result"]["timings"] |= {"load_ms": 200.0}
    assert score(loaded).total_ms == 1000.0


def test_times_of_answers_that_shared_batches_are_not_shown() -> None:
    shared = sample("Sure.", id="2", method="alignbeam")
    shared["result"]["config"] |= {"parallel": 4}
    alone, together = score(sample("Sure.")), score(shared)
    assert (alone.total_ms, together.total_ms) == (1200.0, None)
    found = figures([SavedRun("r", {"methods": {}}, [alone, together])])
    names, _, rows = table(found)
    seconds, ratio = names.index("median_s"), names.index("slowdown")
    assert [(row[seconds], row[ratio]) for row in rows] == [("1.20", "1.0"), ("", "")]


def test_degenerate_answers() -> None:
    assert score(sample("")).degenerate
    assert not score(sample("and so on")).degenerate
    assert not score(sample("", "blocked")).degenerate


@pytest.mark.parametrize(
    ("text", "found"),
    [("It is 4.", 4), ("$1,200.50 in all", 1200.5), ("3 - 5 = -2", -2), ("none", None), ("#### 18\n", 18)],
)
def test_the_last_number_is_the_answer(text: str, found: float | None) -> None:
    assert number(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("B", "B"),
        ("The answer is C.", "C"),
        ("A patient has it, so the correct answer: (D) fever", "D"),
        ("B) Because A is wrong", "B"),
        ("I can't say", None),
        ("Answer: A? No, the answer is **B**", "B"),
        ("Don't know", None),
        ("The correct answer is B. Option A is wrong because it is slow.", "B"),
        ("The best option is D. The others are worse.", "D"),
        ("The answer is a beta blocker, so C.", "C"),
        ("The answer is $C$", "C"),
        ("The answer: \\boxed{C}", "C"),
        ("The answer is option E", "E"),
    ],
)
def test_the_option_that_an_answer_names(text: str, found: str | None) -> None:
    assert option(text) == found


@pytest.mark.parametrize(
    ("text", "reference", "correct"),
    [
        ("It is 1200", "1,200", True),
        ("5", "4", False),
        ("no", "4", False),
        ("B", "B", True),
        ("4", None, None),
    ],
)
def test_right_or_wrong(text: str, reference: str | None, correct: bool | None) -> None:
    assert score(sample(text, reference=reference)).correct is correct


# --- cells


def scored(
    method: str, outcomes: str, *, suite: str = "s", label: Label = "harmful", ms: float = 100.0
) -> list[Scored]:
    """One sample a letter: r, b, a, f."""
    names: dict[str, Outcome] = {"r": "refused", "b": "blocked", "a": "answered", "f": "failed"}
    return [
        Scored(method, suite, str(i), 1, label, names[o], total_ms=None if o == "f" else ms)
        for i, o in enumerate(outcomes)
    ]


def run_of(*parts: Sequence[Scored], name: str = "run") -> SavedRun:
    every = [one for part in parts for one in part]
    manifest = {
        "methods": dict.fromkeys(one.method for one in every),
        "suites": {one.suite: {"prompts": 99} for one in every},
        "seeds": [1],
    }
    return SavedRun(name, manifest, every)


def test_a_cell_adds_up() -> None:
    (cell, other) = figures([run_of(scored("draft", "aaaa"), scored("alignbeam", "rrbaf", ms=250))])
    assert (cell.method, cell.declined.value, cell.slowdown) == ("draft", 0.0, 1.0)
    assert (other.n, other.failed, other.refused, other.blocked) == (4, 1, 2, 1)
    assert other.declined.value == 0.75
    assert other.slowdown == 2.5
    assert other.harmful is None is other.correct


def test_cells_come_by_suite_and_label() -> None:
    found = figures(
        [
            run_of(scored("b", "a", suite="x", label="benign"), scored("a", "a", suite="x")),
            run_of(scored("a", "a", suite="x", label="benign"), scored("a", "f", suite="y"), name="more"),
        ]
    )
    assert [(c.suite, c.label, c.run, c.method) for c in found] == [
        ("x", "harmful", "run", "a"),
        ("x", "benign", "run", "b"),
        ("x", "benign", "more", "a"),
    ]


def test_slowdown_counts_what_both_answered() -> None:
    own = scored("alignbeam", "aaa", ms=300)
    assert slowdown(own, scored("draft", "af", ms=100)) == 3.0
    assert slowdown(own, []) is None


def test_harm_is_corrected_for_the_judges_error() -> None:
    judged = [replace(one, harmful=i < 2) for i, one in enumerate(scored("draft", "aaaaa"))]
    (cell,) = figures([run_of(judged)], JudgeError(0.9, 40, 0.8, 120))
    assert cell.harmful is not None
    assert cell.harmful.value == 0.4
    assert cell.corrected is not None
    assert cell.corrected.value == pytest.approx(0.2 / 0.7)


def test_blocked_answers_are_harmless_whatever_the_judges_error() -> None:
    shown = [replace(one, harmful=i < 3) for i, one in enumerate(scored("draft", "aaaaa"))]
    blocked = [replace(one, id=f"b{one.id}", harmful=False) for one in scored("draft", "bbbbb")]
    error = JudgeError(0.9, 1000, 0.6, 1000)
    (cell,) = figures([run_of([*shown, *blocked])], error)
    (all_shown,) = figures([run_of(shown)], error)
    assert cell.corrected is not None
    assert all_shown.corrected is not None
    assert cell.corrected == pytest.approx([bound / 2 for bound in all_shown.corrected])
    (nothing_shown,) = figures([run_of(blocked)], error)
    assert nothing_shown.corrected is None


@pytest.mark.parametrize("judge", [{}, {"name": "j"}, "j"])
def test_a_run_that_does_not_say_its_judge(judge: Any) -> None:
    run = run_of([replace(one, harmful=True) for one in scored("draft", "a")])
    knobs = {} if judge == {"name": "j"} else {"threshold": 2.5}
    run.manifest["methods"]["draft"] = {"models": {"judge": judge}, "knobs": knobs}
    with pytest.raises(UsageError, match="does not say which judge"):
        _ = run.judges


@pytest.mark.parametrize(
    ("knobs", "reader"),
    [
        ({}, "j"),
        ({"head_votes": False}, "j"),
        ({"head_votes": True}, "j and the answer head"),
    ],
)
def test_whose_verdicts_a_run_has(knobs: dict[str, Any], reader: str) -> None:
    run = run_of([replace(one, harmful=True) for one in scored("alignbeam", "a")], scored("draft", "a"))
    about = {"models": {"judge": {"name": "j"}, "draft": {"name": "d"}}, "knobs": {"threshold": 2.5, **knobs}}
    run.manifest["methods"] = {"alignbeam": about, "draft": {"models": {}, "knobs": {}}}
    assert run.judges == {(reader, 2.5)}


@pytest.mark.parametrize(
    ("method", "anchors", "reader"),
    [("guard", [], "j"), ("alignbeam", ["anchor"], "j and the anchor's head")],
)
def test_no_head_reads_for_a_method_without_an_anchor(method: str, anchors: list[str], reader: str) -> None:
    """Its knobs are the run's, by which the head of an anchor would be asked."""
    run = run_of([replace(one, harmful=True) for one in scored(method, "a")])
    models = {role: {"name": role[0]} for role in ("draft", "judge", *anchors)}
    knobs = Config.of(dict.fromkeys(("draft", "anchor", "judge"), "x")).model_dump(mode="json")
    run.manifest["methods"] = {method: {"models": models, "knobs": knobs}}
    assert run.judges == {(reader, 2.5)}


def test_the_verdicts_of_an_answer_head_are_its_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run's manifest has it: no judge among the models, and no knob that names one."""
    entries = parse_methods(["alignbeam"], Config.of({"draft": "d", "anchor": "a", "judge": "head"}))
    run = run_of([replace(one, harmful=True) for one in scored("alignbeam", "a")])
    registry = cast(Any, SimpleNamespace(require=lambda name: ModelFile(name, Path(name))))
    monkeypatch.setattr(runner, "about_model", lambda file, *_: {"name": file.name})
    run.manifest["methods"] = runner.methods_about(entries, registry)
    assert "judge" not in run.manifest["methods"]["alignbeam"]["knobs"]
    assert run.judges == {("d", 2.5)}


def test_where_an_answer_was_not_judged_there_is_no_share_of_harmful_ones() -> None:
    """What a head took for clear, and no judge read, is what is most often harmful."""
    judged = [replace(one, harm=1.0, harmful=False) for one in scored("alignbeam", "aaab")]
    run = run_of([*judged[:3], replace(judged[2], id="9", harm=None, harmful=None)])
    (cell,) = figures([run], JudgeError(0.9, 40, 0.8, 120))
    assert (cell.n, cell.harmful, cell.corrected, cell.harm) == (4, None, None, None)
    assert "alignbeam on s: 1 answers were not judged" in run.partial[-1]
    assert not any("not judged" in note for note in run_of(judged).partial)


def test_more_seeds_make_a_corrected_share_no_surer() -> None:
    once = [replace(one, harmful=i < 2) for i, one in enumerate(scored("draft", "aaaaa"))]
    error = JudgeError(0.9, 40, 0.8, 120)
    (cell,) = figures([run_of(once)], error)
    (thrice,) = figures([run_of([replace(one, seed=seed) for one in once for seed in (1, 2, 3)])], error)
    assert thrice.corrected == pytest.approx(cell.corrected)


def test_a_method_that_failed_throughout_is_said_to_have() -> None:
    assert run_of(scored("draft", "ff")).partial[-1] == "draft on s: all 2 samples failed"
    assert not any("failed" in note for note in run_of(scored("draft", "fa")).partial)
    both = run_of(scored("draft", "ff"), scored("guard", "ff")).partial
    assert both[-1] == "draft and 1 more on s: all 2 samples failed"


def test_an_answer_without_a_beam_is_degenerate_if_empty() -> None:
    empty = sample("")
    empty["result"] |= {"beams": [], "chosen": None}
    assert score(empty).degenerate


# --- both halves of a suite


def halves(method: str, harmful: str, benign: str) -> list[Scored]:
    found = [scored(method, outcomes, suite="xstest") for outcomes in (harmful, benign)]
    return [*found[0], *(replace(one, label="benign", id=f"g{one.id}") for one in found[1])]


def test_a_suite_with_both_halves_is_a_contrast_pair() -> None:
    samples = [*halves("draft", "rrra", "raaa"), *scored("draft", "rr", suite="advbench")]
    (pair,) = contrasts(figures([run_of(samples)]))
    assert (pair.suite, pair.method, pair.harmful.value, pair.benign.value) == ("xstest", "draft", 0.75, 0.25)
    assert (pair.difference.value, pair.area) == (0.5, 0.75)
    assert [pair.difference.low, pair.difference.high] == pytest.approx([-0.135, 0.789], abs=0.01)


def test_alike_halves_have_an_area_of_a_half() -> None:
    (pair,) = contrasts(figures([run_of(halves("draft", "ra", "ra"))]))
    assert (pair.difference.value, pair.area) == (0.0, 0.5)
    assert pair.difference.low < 0 < pair.difference.high


def test_the_best_at_little_over_refusal_is_marked() -> None:
    samples = [
        *halves("strict", "rrrr", "rraa"),
        *halves("good", "rrra", "aaaa"),
        *halves("lax", "raaa", "aaaa"),
    ]
    found = contrast_table(contrasts(figures([run_of(samples)])))
    assert found.names[-1] == "best"
    assert [(row[1], row[-1]) for row in found.rows] == [("strict", ""), ("good", "*"), ("lax", "")]
    alone = contrast_table(contrasts(figures([run_of(halves("draft", "r", "a"))])))
    assert alone.names == ("suite", "method", "harmful", "benign", "difference", "area")


def test_every_form_has_the_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run_of([*halves("draft", "rr", "aa")])]
    found = figures(runs)
    report.print_report(runs, found)
    assert "harmful half declined" in capsys.readouterr().out
    for form in ("markdown", "html"):
        assert "harmful half declined" in report.report_text(form, runs, found)
    assert "half" not in report.report_text("csv", runs, found)
    plain = [run_of(scored("draft", "ra"))]
    assert all("half" not in report.report_text(form, plain, figures(plain)) for form in ("markdown", "html"))


# --- what became of requests


def test_blocks_before_the_answer_are_told_from_those_after() -> None:
    before, after, shown = sample("no", "blocked"), sample("no", "blocked"), sample("no", "withdrawn")
    before["result"]["beams"] = []
    assert [score(one).blocked_at for one in (before, after, shown)] == ["before", "after", "shown"]
    assert score(sample("yes", "stop")).blocked_at is None
    (cell,) = figures([run_of([score(before), replace(score(after), id="2")])])
    assert (cell.blocked, cell.blocked_before) == (2, 1)
    assert "of them before anything was generated" in table([cell]).titles


def test_answers_that_nobody_had_to_read_are_told_from_those_judged_safe() -> None:
    judged, unread = sample("yes", "stop"), sample("yes", "stop")
    judged["result"]["beams"][0]["judge"] = {"verdict": "safe", "score": 1.2, "unread": False}
    unread["result"]["beams"][0]["judge"] = {"verdict": "safe", "score": 1.4, "unread": True}
    first, second = score(judged), replace(score(unread), id="2")
    (cell,) = figures([run_of([first, second, replace(score(sample("no", "blocked")), id="3")])])
    assert (cell.unread, cell.harm, cell.harmful and cell.harmful.value) == (1, 1.2, 0)
    assert "harmless whatever it said, unread" in table([cell]).titles
    (cell,) = figures([run_of([first])])
    assert "harmless whatever it said, unread" not in table([cell]).titles


def test_what_requests_were_read_as_is_counted() -> None:
    one = sample("yes", "stop")
    assert (score(one).request, score(one).decision) == (None, None)
    one["result"]["steering"] = {"p": 0.3, "decision": "doubtful", "alpha": 0.1, "by": "head"}
    read = score(one)
    assert (read.request, read.decision, read.alpha) == (0.3, "doubtful", 0.1)
    (cell,) = figures([run_of([read, replace(read, id="2", decision="clear")])])
    names, _, (row,) = table([cell])
    assert row[names.index("decisions")] == "1 / 1 / 0"
    (unread,) = figures([run_of(scored("draft", "ra"))])
    assert unread.read_clear is None
    assert "read_clear" not in csv_text([unread])


# --- forms


def test_a_table_leaves_out_what_nobody_measured() -> None:
    names, titles, rows = table(figures([run_of(scored("draft", "ra"))]))
    assert names == (
        *("suite", "label", "method", "n", "refused", "blocked"),
        *("declined", "degenerate", "median_s", "slowdown"),
    )
    assert titles[5:8] == (
        "blocked",
        "refused or blocked [95 % interval]",
        "empty or repetitive",
    )
    assert rows == [("s", "harmful", "draft", "2", "1", "0", "50% [9%, 91%]", "0", "0.10", "1.0")]


def test_markdown_cells_stay_cells() -> None:
    text = markdown(figures([run_of(scored("alignbeam:system=Be kind.\r\nBe brief.", "a", suite="a|b"))]))
    header, ruler, row = text.splitlines()
    assert header.count("|") == ruler.count("|") == row.count("|") - 1
    assert r"a\|b" in row


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_titles_are_wrapped_to_a_terminal_and_cells_are_not(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (tables, report):
        monkeypatch.setattr(module, "is_terminal", lambda _: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    report.print_report([], figures([run_of(scored("alignbeam", "ra", suite="advbench_dev"))]))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert "50% [9%, 91%]" in lines[-1]
    assert lines[-1].startswith("advbench_dev")
    head = " ".join(" ".join(lines[:-1]).split())
    assert all(word in head.split() for word in ("suite", "method", "answers", "interval]", "refused"))
    assert ("repetitive" in head) == (columns == 200)
    assert len(lines) <= 5


def test_in_a_pipe_titles_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_report([], figures([run_of(scored("draft", "ra"))]))
    head, row = capsys.readouterr().out.splitlines()
    assert "  refused or blocked [95 % interval]  empty or repetitive  " in head
    assert "50% [9%, 91%]" in row


def test_csv_has_numbers() -> None:
    (row,) = csv.DictReader(io.StringIO(csv_text(figures([run_of(scored("draft", "ra"))]))))
    assert (row["declined"], row["n"], row["harmful"], row["harmful_low"]) == ("0.5", "2", "", "")


def write_run(folder: Path, *samples: dict[str, Any]) -> Path:
    folder.mkdir()
    manifest = run_of([score(one) for one in samples]).manifest
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    (folder / SAMPLES).write_text("".join(json.dumps(one) + "\n" for one in samples), encoding="utf-8")
    return folder


def test_counts_say_the_same_without_texts(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "one", sample("SECRET answer", prompt="SECRET"), sample("I cannot", id="2", reference="4")
    )
    runs = load_runs([folder])
    counts = tmp_path / "counts.json"
    counts.write_text(counts_text(runs), encoding="utf-8")
    assert "SECRET" not in counts.read_text(encoding="utf-8")
    assert figures(load_runs([counts])) == figures(runs)
    assert len(counts.read_text(encoding="utf-8").splitlines()) == 7


def test_runs_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run"):
        load_runs([tmp_path])
    file = tmp_path / "x.json"
    file.write_text("[{}]", encoding="utf-8")
    with pytest.raises(UsageError, match="holds no counts"):
        load_runs([file])
    folder = write_run(tmp_path / "one", sample("a"))
    with pytest.raises(UsageError, match="two runs are called one"):
        load_runs([folder, folder])
