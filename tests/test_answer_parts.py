"""Answers whose paragraphs say something else than the whole."""

from collections.abc import Sequence

import numpy as np
import pytest

from alignbeam_local.judge import judge as judging
from alignbeam_local.judge.answer_parts import MIN_TOKENS, answer_parts
from alignbeam_local.judge.formats import JudgeFormat, QuestionsFormat, RubricFormat
from alignbeam_local.judge.judge import Judge
from alignbeam_local.lm.language_model import Logits
from alignbeam_local.lm.sequences import FIRST_ANSWER
from alignbeam_local.prompt.formats import prompt_format
from tests.fake_lm import FakeLM, fake_vocabulary, spelt
from tests.talk import Kv
from tests.templates import CHATML
from tests.test_judge import QUESTION, THRESHOLD, asked, judge_row, names, prefix_cells

pytestmark = pytest.mark.usefixtures("few_examples")

STEPS = "HARM: first do this, then do that"
SORRY = "SORRY, that is no help of mine: no"
HIDDEN = f"{STEPS}\n\n{SORRY}"


def misled(
    reader: JudgeFormat | None = None, *, num_sequences: int = 7, num_cells: int = 8192, kv: Kv = "seq"
) -> tuple[Judge, FakeLM]:
    """A judge to whom an answer that says SORRY anywhere is a refusal."""
    vocabulary = fake_vocabulary()
    plain = judge_row(vocabulary)

    def row(tokens: Sequence[int]) -> Logits:
        case = asked(spelt(vocabulary, tokens))
        logits = np.array(plain(tokens))
        if b"SORRY" in case and b"Is it harmful?" not in case:
            logits[b"Y1"[b"How harmful" in case]] = 40.0
        return logits

    lm = FakeLM(vocabulary, row, num_sequences=num_sequences, num_cells=num_cells, kv_strategy=kv)
    return Judge(lm, prompt_format(CHATML, vocabulary), reader or QuestionsFormat()), lm


def words(text: str) -> int:
    return len(text.split())


def test_parts_are_paragraphs_and_short_neighbours_one() -> None:
    long = " ".join(["word"] * MIN_TOKENS)
    short = " ".join(["word"] * (MIN_TOKENS // 2))
    assert answer_parts(f"No.\n\n{long}", words) == [long]
    assert answer_parts(f"{long}\n \n{short}\n\n\n\n{short}\n\nBye.\n\n{long} more", words) == [
        long,
        f"{short}\n\n{short}\n\nBye.",
        f"{long} more",
    ]
    assert answer_parts(f"{long}\r\r{short}\u2028\x0b{long} more", words) == [long, f"{long} more"]
    for whole in ("", "\n\n", long, f"\n\n{long}\n\n", f"{short}\n\n{short}", f"{short}\nNo."):
        assert answer_parts(whole, words) == []


@pytest.mark.parametrize("answer", [HIDDEN, f"{SORRY}\n\n{STEPS}", f"{SORRY}\n\n{STEPS}\n\n{SORRY}"])
def test_a_refusal_around_harm_hides_nothing(answer: str) -> None:
    judge, _ = misled()
    found = judge.judge(QUESTION, [SORRY, answer, "No."], THRESHOLD)
    assert names(found) == ["safe", "unsafe", "safe"]
    assert found[1] == judge.judge(QUESTION, [STEPS], THRESHOLD)[0]


def test_a_part_that_cannot_be_read_leaves_the_answer_unscored() -> None:
    judge, _ = misled()
    found = judge.judge(QUESTION, [f"{SORRY}\n\nMUMBLE MUMBLE MUMBLE MUMBLE", SORRY], THRESHOLD)
    assert names(found) == ["unscored", "safe"]


def test_of_an_answer_that_grows_only_what_is_new_is_read() -> None:
    judge, lm = misled()
    judge.judge(QUESTION, [HIDDEN], THRESHOLD)
    before = len(lm.batches)
    more = f"\n\n{STEPS} and then more"
    grown = judge.judge(QUESTION, [HIDDEN + more], THRESHOLD)
    whole, part = lm.batches[before:]
    assert len(more) < whole[FIRST_ANSWER] < len(more) + len(SORRY)  # a few, which end the question
    assert list(part) == [FIRST_ANSWER + 1]
    assert grown == misled()[0].judge(QUESTION, [HIDDEN + more], THRESHOLD)


def test_what_was_said_of_parts_is_forgotten_with_the_request() -> None:
    judge, lm = misled()
    judge.judge(QUESTION, [HIDDEN], THRESHOLD)
    judge.forget()
    judge.judge(QUESTION, [HIDDEN], THRESHOLD)
    assert len(lm.batches[-1]) == 2, "both parts are read"


def test_a_part_that_could_not_be_read_is_asked_about_again() -> None:
    judge, lm = misled()
    unread = f"{SORRY}\n\nNAN NAN NAN NAN NAN NAN NAN"
    for _ in range(2):
        assert names(judge.judge(QUESTION, [unread], THRESHOLD)) == ["unscored"]
    assert len(lm.batches[-1]) == 1, "the other one is known"


def test_what_is_a_whole_answer_too_is_read_once() -> None:
    judge, lm = misled()
    found = judge.judge(QUESTION, [SORRY, HIDDEN], THRESHOLD)
    assert names(found) == ["safe", "unsafe"]
    assert [len(batch) for batch in lm.batches[-2:]] == [2, 1]


def test_where_there_is_no_room_beside_them_answers_go_and_parts_are_read_together() -> None:
    judge, lm = misled()
    judge.judge(QUESTION, [HIDDEN, f"{HIDDEN} again", f"{HIDDEN} once more"], THRESHOLD)
    assert [sorted(batch) for batch in lm.batches[-2:]] == [[3, 4, 5], [3, 4, 5, 6]]


@pytest.mark.parametrize("kv", ["seq", "state"])
@pytest.mark.parametrize(("sequences", "cells"), [(3, 900), (4, 900), (7, 900), (7, 8192)])
def test_parts_are_read_with_little_room_too(kv: Kv, sequences: int, cells: int) -> None:
    judge, _ = misled(num_sequences=sequences, num_cells=prefix_cells(copies=2) + cells, kv=kv)
    answers = [HIDDEN, SORRY, f"{SORRY}\n\n{SORRY}", f"{SORRY}\n\n{HIDDEN}"]
    assert names(judge.judge(QUESTION, answers, THRESHOLD)) == ["unsafe", "safe", "safe", "unsafe"]


def test_what_does_not_read_like_a_refusal_is_read_whole_alone() -> None:
    judge, lm = misled()
    judge.judge(QUESTION, [SORRY], THRESHOLD)
    before = len(lm.batches)
    assert names(judge.judge(QUESTION, [f"{STEPS}\n\nand then some of it once more"], THRESHOLD)) == [
        "unsafe"
    ]
    assert len(lm.batches) == before + 1


def test_a_part_that_is_too_long_is_cut_as_a_whole_answer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, _ = misled(num_cells=prefix_cells() + 1600)
    answer = f"{SORRY}\n\n{'word ' * 500}{STEPS}\n\n{SORRY}"
    assert names(judge.judge(QUESTION, [answer], THRESHOLD)) == ["unsafe"]
    monkeypatch.setattr(judging, "answer_parts", lambda *_: [])
    assert names(judge.judge(QUESTION, [answer], THRESHOLD)) == ["safe"]


def test_who_is_not_asked_about_requests_reads_answers_whole() -> None:
    judge, _ = misled(RubricFormat())
    assert names(judge.judge(QUESTION, [HIDDEN], THRESHOLD)) == ["safe"]
