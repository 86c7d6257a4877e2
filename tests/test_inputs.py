"""Records and rows that come in, what `filter` writes of them, and what knobs look like as flags."""

import io
import json
import os
from itertools import pairwise
from typing import Any

import pytest
from alignbeam_local.cli.console.terminal import is_dumb, is_terminal
from alignbeam_local.cli.endings import by_ending
from alignbeam_local.cli.filter.output import JsonOutput, TextOutput
from alignbeam_local.cli.filter.tally import Tally
from alignbeam_local.cli.inputs import (
    Arriving,
    checked,
    count_records,
    is_blank,
    is_ready,
    parse_row,
    records,
    row_knobs,
    row_messages,
    unseen,
)
from alignbeam_local.cli.options import knob_choices, metavar
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbeam_local.config import KNOBS, Config
from alignbeam_local.errors import TimedOut, UsageError
from alignbeam_local.judge.check import Pair
from alignbeam_local.prompt.message import Message

from .fake_engine import fake_result

# --- records


class Chunks(io.RawIOBase):
    """Bytes that come in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def read1(self, _: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


@settings(max_examples=60)
@given(st.binary(max_size=30), st.lists(st.integers(0, 30), max_size=4), st.sampled_from([b"\n", b"\0"]))
def test_records_are_what_the_separators_end_however_they_come(
    whole: bytes, cuts: list[int], separator: bytes
) -> None:
    whole = b"x" + whole.replace(b"\xef", b"")  # no mark at the beginning
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    pieces = [whole[a:b] for a, b in pairwise(places) if b > a]
    *ended, last = whole.split(separator)
    assert list(records(Chunks(*pieces), separator)) == [*ended, *([last] if last else [])]


def test_a_record_is_there_as_soon_as_its_separator_is() -> None:
    arriving = Arriving(Chunks(b"xa\nb", b"c\n"), b"\n")
    assert arriving.take() == b"xa"
    assert arriving.take() == b"bc"
    assert arriving.take() is arriving.take() is None


def test_what_is_not_there_is_not_waited_for() -> None:
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as stream:
        arriving = Arriving(stream, b"\n")
        assert (is_ready(stream), arriving.take(wait=False)) == (False, None)
        os.write(theirs, b"one\ntw")
        assert (is_ready(stream), arriving.take(wait=False), arriving.take(wait=False)) == (
            True,
            b"one",
            None,
        )
        os.close(theirs)
        assert arriving.take(wait=False) == b"tw"


def test_a_stream_that_cannot_be_asked_is_ready() -> None:
    assert is_ready(io.BytesIO(b""))


@pytest.mark.parametrize(("record", "blank"), [(b"", True), (b" \t\r", True), (b" x ", False)])
def test_blank_records(record: bytes, blank: bool) -> None:
    assert is_blank(record) == blank


def test_counting_starts_where_reading_does() -> None:
    stream = io.BytesIO(b"skipped\na\n\nb")
    stream.readline()
    assert (count_records(stream, b"\n"), stream.read()) == (2, b"a\n\nb")


# --- rows


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not JSON: "),
        (b"{", "not JSON: "),
        (b"[]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b'{"a": NaN}', "not JSON: NaN is not a JSON number"),
        (b'{"a": -Infinity}', "not JSON: -Infinity is not a JSON number"),
        (b'{"a": 1, "a": 2}', "not JSON: 'a' is there twice"),
        (b'{"a": ' + b"[" * 9999 + b"]" * 9999 + b"}", "not JSON: "),
        (b'{"a": "\xff"}', "the line is not UTF-8"),
    ],
)
def test_a_row_that_is_none(raw: bytes, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_row(raw)
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_a_row_is_its_object() -> None:
    assert parse_row('{"prompt": "é", "x": [1]}'.encode()) == {"prompt": "é", "x": [1]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "give either prompt or messages"),
        ({"prompt": "a", "messages": []}, "give either prompt or messages"),
        ({"prompt": 7}, "prompt: "),
        ({"prompt": None}, "prompt: "),
        ({"prompt": " \n"}, "there is nothing to answer"),
        ({"prompt": "a\ud800"}, "the prompt is not Unicode text"),
        ({"messages": []}, "there is nothing to answer"),
        ({"messages": "x"}, "messages: "),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: "),
        ({"messages": [{"role": "user"}]}, "messages.0.content: "),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "there is nothing to answer"),
    ],
)
def test_a_row_that_asks_nothing(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        row_messages(row)
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_a_conversation_in_a_row() -> None:
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": "é"}]
    assert row_messages({"messages": turns}) == [Message("system", ""), Message("user", "é")]
    assert row_messages({"prompt": " a "}) == [Message("user", " a ")]


def test_only_whole_names_are_knobs_of_a_row() -> None:
    assert row_knobs({"alpha": 0.1, "K": 2, "N": "x", "beams": 2, "id": 1}) == {"alpha": 0.1, "beams": 2}


def test_text_that_can_be_written_is_given_back() -> None:
    assert checked("日本", "x") == "日本"
    with pytest.raises(UsageError, match="argument 1 is not Unicode text"):
        checked("caf\udce9", "argument 1")


# --- what is written


@pytest.mark.parametrize(
    ("null", "text", "written"),
    [
        (False, "a\nb\r\nc\rd", "a b c d\n"),
        (True, "a\nb\0c", "a\nbc\0"),
        (False, "", "\n"),
        (True, "", "\0"),
    ],
)
def test_an_answer_is_one_record(null: bool, text: str, written: str) -> None:
    out = io.StringIO()
    TextOutput(out, null=null).result({}, fake_result(text, Config()))
    assert out.getvalue() == written


def test_a_failed_line_is_an_empty_record_and_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    TextOutput(out, null=False).failure(7, TimedOut("too late", "Wait."), "id")
    assert out.getvalue() == "\n"
    assert capsys.readouterr().err == "error: line 7: too late\nhint: Wait.\n"


def test_objects_keep_the_fields_of_their_row_but_for_the_results_own() -> None:
    out = io.StringIO()
    output = JsonOutput(out)
    output.result({"id": 3, "text": "old", "odd": "\u2028"}, fake_result("new", Config()))
    output.failure(2, TimedOut("late", "Wait."), [1])
    output.blank()
    first, second, third = out.getvalue().split("\n")[:3]
    row = json.loads(first)
    assert (row["id"], row["text"], row["odd"], row["finish_reason"]) == (3, "new", "\u2028", "stop")
    assert json.loads(second) == {
        "id": [1],
        "line": 2,
        "error": {"type": "timeout", "message": "late", "hint": "Wait."},
    }
    assert third == ""


def test_a_tally_tells_refused_from_blocked_and_failed() -> None:
    tally = Tally()
    for finish in ("stop", "blocked"):
        tally.count(fake_result("x", Config(), finish))
    tally.count_failure()
    assert (tally.done, tally.refused, tally.blocked, tally.failed) == (3, 0, 1, 1)


# --- endings and terminals


@pytest.mark.parametrize("name", ["x.md", "x.MD", "a.b.md"])
def test_a_format_by_its_ending(name: str, tmp_path: Any) -> None:
    assert by_ending(tmp_path / name, {".md": 1, ".csv": 2}, "Or none.") == 1


@pytest.mark.parametrize("name", ["x", "x.txt", ".md", "x.md.gz"])
def test_an_ending_that_says_none(name: str, tmp_path: Any) -> None:
    with pytest.raises(UsageError) as caught:
        by_ending(tmp_path / name, {".md": 1, ".csv": 2, ".html": 3}, "Or none.")
    assert name in caught.value.message
    assert caught.value.hint == ".md, .csv or .html. Or none."


def test_no_terminal_where_there_is_no_stream() -> None:
    closed = io.StringIO()
    closed.close()
    assert [is_terminal(stream) for stream in (None, closed, io.StringIO())] == [False] * 3


@pytest.mark.parametrize(("term", "dumb"), [("dumb", True), ("unknown", True), ("xterm", False), ("", False)])
def test_a_terminal_that_cannot_move_its_cursor(
    term: str, dumb: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    assert is_dumb() == dumb


# --- flags


@pytest.mark.parametrize(
    ("knob", "shown"),
    [
        ("alpha", "0≤NUMBER≤1"),
        ("depth", "0≤INT≤512"),
        ("top_p", "0<NUMBER≤1"),
        ("main_gpu", "0≤INT<256"),
        ("gpu_layers", "auto|all|0≤INT≤65536"),
        ("judge_at", "1≤INT≤10485760"),
        ("variant", "drop|first|exact"),
        ("system", "TEXT"),
        ("draft", "TEXT"),
    ],
)
def test_which_values_a_knob_takes(knob: str, shown: str) -> None:
    assert metavar(Config.model_fields[knob]) == shown


@pytest.mark.parametrize(
    ("knob", "choices"),
    [
        ("force", ("on", "off")),
        ("gpu_layers", ("auto", "all")),
        ("kv", ("auto", "seq", "state")),
        ("alpha", ()),
        ("system", ()),
    ],
)
def test_the_words_that_a_knob_may_be(knob: str, choices: tuple[str, ...]) -> None:
    assert knob_choices(Config.model_fields[knob]) == choices


@pytest.mark.parametrize("knob", KNOBS)
def test_every_word_that_is_offered_is_taken(knob: str) -> None:
    field = Config.model_fields[knob]
    for choice in knob_choices(field):
        value = choice == "on" if field.annotation is bool else choice
        assert getattr(Config.of({knob: choice}), knob) == value


def test_pairs_of_no_split_are_measured_with_those_held_out(capsys: pytest.CaptureFixture[str]) -> None:
    def pair(split: Any) -> Pair:
        return Pair(question="How?", answer="So.", label="benign", split=split)

    assert len(unseen([pair(None)] * 5 + [pair("held_out")], "pairs")) == 6
    assert len(unseen([pair(None)] * 5, "pairs")) == 5
    assert capsys.readouterr().err == ""
    assert len(unseen([pair(None), pair("fit"), pair("held_out")], "pairs")) == 2
    assert capsys.readouterr().err == "note: 1 pairs of split `fit` are left out\n"
