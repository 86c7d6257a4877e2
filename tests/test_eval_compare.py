"""Differences between methods on the same prompts, and answers scored once more."""

from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.reports.compare import compare
from alignbeam_local.evaluation.runs.metrics import score
from alignbeam_local.evaluation.runs.rescore import judge_scorer, phrase_scorer, read_phrases, rescore
from alignbeam_local.evaluation.runs.run_directory import RunDirectory
from alignbeam_local.evaluation.runs.saved_runs import counts_text, load_runs
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import Verdict
from tests.test_eval_report import sample, scored, write_run


def test_a_difference_by_hand() -> None:
    (found,) = compare(scored("draft", "aaaaaarrrf", ms=100), scored("alignbeam", "rrrrrbarrr", ms=300))
    # of nine: three refused by the first, eight by the second; six only by the second, one only by the first
    assert (found.n, found.only_first, found.only_second) == (9, 1, 6)
    assert (found.first, found.second) == pytest.approx((3 / 9, 8 / 9))
    assert found.difference.value == pytest.approx(5 / 9)
    assert found.difference.low < 5 / 9 < found.difference.high
    assert found.p == pytest.approx(2 * (1 + 7) / 2**7)
    assert found.slowdown == 3.0


def test_several_seeds_are_one_prompt() -> None:
    first = scored("draft", "aa") + [replace(one, seed=2) for one in scored("draft", "aa")]
    second = scored("b", "ra") + [replace(one, seed=2) for one in scored("b", "ra")]
    (found,) = compare(first, second)
    assert (found.n, found.p, found.only_first) == (2, None, None)
    assert found.difference == pytest.approx((0.5, 0.0, 1.0))


def test_an_id_that_names_another_prompt_is_no_pair() -> None:
    first = [replace(one, prompt_hash=f"p{n}") for n, one in enumerate(scored("draft", "aaa"))]
    second = [replace(one, prompt_hash=f"p{n + (n == 2)}") for n, one in enumerate(scored("b", "rrr"))]
    assert compare(first, second)[0].n == 2
    slow = [replace(one, total_ms=100.0 if n < 1 else 1000.0) for n, one in enumerate(second)]
    once = [replace(one, total_ms=100.0) for one in first]
    shifted = [replace(one, prompt_hash=f"p{n + 3 * (n > 0)}") for n, one in enumerate(slow)]
    assert compare(once, shifted)[0].slowdown == 1.0, "the times are of pairs"
    unknown = [replace(one, prompt_hash=None) for one in second]
    assert compare(first, unknown)[0].n == 3, "older counts hold no hashes"


def asked(prompt: str = "And?", **about: Any) -> str | None:
    """A sample's hash: asked this behind the model's `own` answer or a `given` one, its answer `begun`."""
    made: dict[str, Any] = {**sample("Sure."), "prompt": prompt}
    for whose, ends in (("given", {}), ("own", {"finish_reason": "stop"})):
        if whose in about:
            answer = {"role": "assistant", "content": about[whose], **ends}
            made["earlier"] = [{"role": "user", "content": about.get("question", "Hi?")}, answer]
    return score(made | ({"prefill": about["begun"]} if "begun" in about else {})).prompt_hash


def test_a_question_behind_other_turns_is_another_prompt() -> None:
    others = [asked(), asked("Or?"), asked(begun="Sure, "), asked(begun="No, "), asked(own="Hello.")]
    others += [asked(given=said) for said in ("Hello.", "I can't help.")]
    others += [asked(given="Hello.", question="Ho?"), asked(own="Hello.", question="Ho?")]
    assert len(set(others)) == len(others)
    assert asked(own="Hello.") == asked(own="I can't help."), "two methods answer earlier turns differently"
    assert asked() == sha256(b"And?").hexdigest()[:16], "kept counts hold it"


def test_answers_without_a_verdict_are_not_left_out_of_a_share_of_harmful_ones() -> None:
    judged = [replace(one, harmful=number % 2 == 0) for number, one in enumerate(scored("draft", "aaaa"))]
    unread = [replace(one, harmful=None if number % 2 == 0 else False) for number, one in enumerate(judged)]
    assert compare(judged, judged, "harmful")[0].first == 0.5
    with pytest.raises(UsageError, match="2 answers have no verdict"):
        compare(judged, unread, "harmful")


def test_utility_prompts_are_compared_by_right_answers() -> None:
    right = [replace(one, correct=True) for one in scored("draft", "aa", label="utility")]
    wrong = [replace(one, correct=False) for one in scored("b", "aa", label="utility")]
    (found,) = compare(right, wrong)
    assert (found.measure, found.difference.value) == ("correct", -1.0)
    with pytest.raises(UsageError, match="nothing to compare"):
        compare(right, wrong, "harmful")
    with pytest.raises(UsageError, match="nothing to compare"):
        compare(right, [])


def test_scores_that_were_made_anew_are_named_in_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one", sample("Sure."))
    list(rescore(RunDirectory(folder), "mine", {"judge": "j", "threshold": 2.0}, judge_scorer(Strict(), 2.0)))  # type: ignore[arg-type]
    counts = tmp_path / "counts.json"
    counts.write_text(counts_text(load_runs([folder], "mine")), encoding="utf-8")
    (run,) = load_runs([counts])
    assert run.scores == {"name": "mine", "judge": "j", "threshold": 2.0}
    assert run.judges == {("j", 2.0)}


def test_what_thought_first_is_scored_with_its_thoughts(tmp_path: Path) -> None:
    thoughtful = sample("Sure.")
    thoughtful["result"]["reasoning"] = "Let me help."
    seen: list[str] = []

    class JudgeFormat(Strict):
        def judge(
            self, turns: list[Message], answers: list[str], threshold: float, asked: Any = None
        ) -> list[Verdict]:
            seen.extend(answers)
            return super().judge(turns, answers, threshold)

    folder = write_run(tmp_path / "one", thoughtful)
    list(rescore(RunDirectory(folder), "mine", {}, judge_scorer(JudgeFormat(), 2.0)))  # type: ignore[arg-type]
    assert seen == ["Let me help.\nSure."]


class Strict:
    """Calls everything harmful."""

    def forget(self) -> None: ...

    def judge(
        self, turns: list[Message], answers: list[str], threshold: float, asked: Any = None
    ) -> list[Verdict]:
        assert turns == [Message("user", "p")]
        return [Verdict(4.5, 4.0, {}, "unsafe" if threshold < 4.5 else "safe") for _ in answers]


def test_another_judge_scores_what_is_there(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "one", sample("Sure."), sample("no", "blocked", id="2"), sample("x", id="3")
    )
    directory = RunDirectory(folder)
    scorer = judge_scorer(Strict(), 2.5)  # type: ignore[arg-type]
    assert next(rescore(directory, "strict", {"judge": "a"}, scorer)) == (1, 2)
    with pytest.raises(UsageError, match="lacks some of the run's samples"):
        load_runs([folder], "strict")
    assert list(rescore(directory, "strict", {"judge": "a"}, scorer)) == [(2, 2)]
    assert list(rescore(directory, "strict", {"judge": "a"}, scorer)) == []
    (run,) = load_runs([folder], "strict")
    assert [(one.harm, one.harmful) for one in run.scored] == [(4.5, True), (None, False), (4.5, True)]
    (before,) = load_runs([folder])
    assert before.scored[0].harm == 1.2
    with pytest.raises(UsageError, match="were made in another way"):
        list(rescore(directory, "strict", {"judge": "b"}, scorer))
    with pytest.raises(UsageError, match="holds no scores called lax"):
        load_runs([folder], "lax")


def test_two_processes_do_not_make_the_same_scores(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one", sample("Sure."))
    scorer = judge_scorer(Strict(), 2.5)  # type: ignore[arg-type]
    with closing(rescore(RunDirectory(folder), "strict", {}, scorer)) as scoring:
        next(scoring)
        with pytest.raises(UsageError, match="another process makes scores called strict"):
            list(rescore(RunDirectory(folder), "strict", {}, scorer))
    assert list(rescore(RunDirectory(folder), "strict", {}, scorer)) == []


def test_phrases_are_compared_as_texts_are(tmp_path: Path) -> None:
    file = tmp_path / "phrases.txt"
    file.write_text("\ufeffI Can’t help\n", encoding="utf-8")
    assert read_phrases(file) == ["i can't help"]


def test_other_phrases_count_other_refusals(tmp_path: Path) -> None:
    file = tmp_path / "german.txt"
    file.write_text("Ich kann nicht\n\n", encoding="utf-8")
    folder = write_run(
        tmp_path / "one",
        sample("Leider: ich kann nicht helfen."),
        sample("I cannot", id="2"),
        sample("I cannot", "blocked", id="3"),
    )
    list(rescore(RunDirectory(folder), "german", {}, phrase_scorer(read_phrases(file))))
    (run,) = load_runs([folder], "german")
    assert [one.outcome for one in run.scored] == ["refused", "answered", "blocked"]
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(UsageError, match="holds no phrase"):
        read_phrases(file)
