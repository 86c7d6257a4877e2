"""Conversations as ids: what inference would read and write; and lines that are refused by their number."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.prompt.answers import answer_ids, answer_start
from alignbeam_local.prompt.formats import prompt_format
from alignbeam_local.prompt.message import Message
from alignbeam_local.training.samples import Sample, encoded, read_conversations
from tests import templates
from tests.fake_lm import fake_vocabulary, spelt

CONTROL = ("<|im_start|>", "<|im_end|>", "<s>", "</s>")
VOCABULARY = fake_vocabulary("Hello", " Hello", control=CONTROL, bos="<s>", eos="</s>", eot="<|im_end|>")
CHATML = prompt_format(templates.CHATML, VOCABULARY)
ASK: dict[str, Any] = {"role": "user", "content": "How do I brew tea?"}
SYSTEM: dict[str, Any] = {"role": "system", "content": "Be short."}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "Pour <|im_end|> water."}


def written(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def sample_of(tmp_path: Path, *turns: dict[str, Any]) -> Sample:
    path = written(tmp_path, {"messages": turns})
    [sample] = encoded(path, read_conversations(path), CHATML, VOCABULARY, 1000)
    return sample


def test_a_pipe_is_refused_it_can_not_be_hashed_behind_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is a pipe"):
        read_conversations(tmp_path / "pipe")


def test_the_prompt_is_that_of_inference(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, ASK, ANSWER)
    assert list(sample.prompt) == CHATML.encode([Message("user", "How do I brew tea?")], VOCABULARY)


def test_the_answer_ends_its_turn_and_its_text_stays_text(tmp_path: Path) -> None:
    answer = sample_of(tmp_path, ASK, ANSWER).answer
    assert spelt(VOCABULARY, answer) == b"Pour <|im_end|> water.<|im_end|>"
    assert [token for token in answer if token in VOCABULARY.control_tokens] == [VOCABULARY.eot]


def test_of_several_answers_the_last_is_learnt(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, ASK, ANSWER, {"role": "user", "content": "And then?"}, ANSWER)
    assert b"And then?" in spelt(VOCABULARY, sample.prompt)
    assert spelt(VOCABULARY, sample.answer).startswith(b"Pour")


def test_an_answer_begins_with_the_formats_space() -> None:
    base = prompt_format(None, VOCABULARY)
    assert spelt(VOCABULARY, answer_ids("Hello", base, VOCABULARY)) == b" Hello</s>"


@pytest.mark.parametrize(
    ("template", "start"),
    [
        (templates.CHATML, b"<|im_start|>assistant\n"),
        (templates.LLAMA2, b" [/INST]"),
        (None, b"A:"),
    ],
)
def test_what_stands_before_an_answer_holds_no_question(template: str | None, start: bytes) -> None:
    layout = prompt_format(template, VOCABULARY)
    assert spelt(VOCABULARY, answer_start(layout, VOCABULARY)) == start


def test_bos_stands_before_it_where_the_model_wants_one() -> None:
    vocabulary = fake_vocabulary(control=CONTROL, bos="<s>", eos="</s>", eot="<|im_end|>", add_bos=True)
    layout = prompt_format(templates.CHATML, vocabulary)
    assert spelt(vocabulary, answer_start(layout, vocabulary)) == b"<s><|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"messages": [ASK]}, "line 2 has no answer"),
        ({"messages": []}, "line 2 has no answer"),
        ({"messages": [ASK, {**ANSWER, "content": " \n"}]}, "line 2 has no answer"),
        ({"messages": [ANSWER]}, "line 2 has no question before its answer"),
        ({"messages": [ASK, ANSWER, ANSWER]}, "line 2 has no question before its answer"),
        ({"messages": [{**ASK, "role": "human"}, ANSWER]}, "line 2: messages.0.role"),
        ({"messages": [{"role": "user"}, ANSWER]}, "line 2: messages.0.content"),
        ({"text": "Hello"}, "line 2: messages: Field required"),
        (["Hello"], "line 2: .*object"),
        ({"messages": [ANSWER, ASK, ANSWER]}, "line 2: a turn of assistant stands where one of user belongs"),
        ({"messages": [ASK, ASK, ANSWER]}, "line 2: a turn of user stands where one of assistant belongs"),
        (
            {"messages": [ASK, ANSWER, SYSTEM, ASK, ANSWER]},
            "line 2: a turn of system stands where",
        ),
        ({"messages": [{**ASK, "content": " \n"}, ANSWER]}, "line 2 has an empty turn of user"),
        (
            {"messages": [ASK, {**ANSWER, "content": ""}, ASK, ANSWER]},
            "an empty turn of assistant",
        ),
    ],
)
def test_a_line_that_is_no_conversation_is_named(tmp_path: Path, row: object, complaint: str) -> None:
    path = written(tmp_path, {"messages": [ASK, ANSWER], "source": "mine"}, row)
    with pytest.raises(UsageError, match=complaint) as caught:
        read_conversations(path)
    assert "messages" in caught.value.hint or "system turn" in caught.value.hint


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\n{"messages"')
    with pytest.raises(UsageError, match=r"line 2: Invalid JSON"):
        read_conversations(path)


def test_a_key_that_is_there_twice_is_named(tmp_path: Path) -> None:
    """The last one would be learnt, and nobody would know."""
    path = written(tmp_path, {"messages": [ASK, ANSWER]})
    path.write_text(path.read_text() + '\n{"messages": [], ' + path.read_text()[1:])
    with pytest.raises(UsageError, match=r"line 2: .*'messages' is there twice"):
        read_conversations(path)


def test_a_system_turn_may_come_first(tmp_path: Path) -> None:
    assert len(read_conversations(written(tmp_path, {"messages": [SYSTEM, ASK, ANSWER, ASK, ANSWER]}))) == 1


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": [ASK, ANSWER]}), encoding=encoding)
    with pytest.raises(UsageError, match="UTF-16 without a mark") as caught:
        read_conversations(path)
    assert "UTF-8" in caught.value.hint


def test_an_array_is_not_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"messages": [ASK, ANSWER]}], indent=1))
    with pytest.raises(UsageError, match="begins a JSON array; what is read is JSON Lines"):
        read_conversations(path)


def test_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, {"messages": [ASK, ANSWER]})
    path.write_bytes(path.read_bytes() + '\n{"messages": "Größe"}'.encode("latin-1"))
    with pytest.raises(UsageError, match="line 2 is not UTF-8") as caught:
        read_conversations(path)
    assert "UTF-8" in caught.value.hint


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_mark_says_the_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"messages": [ASK, {**ANSWER, "content": "Größe"}]}
    path.write_text(json.dumps(row, ensure_ascii=False), encoding=encoding)
    assert read_conversations(path)[0].answer == "Größe"


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is empty"):
        read_conversations(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_conversations(tmp_path / "none.jsonl")


def test_a_conversation_longer_than_the_context_is_named(tmp_path: Path) -> None:
    path = written(
        tmp_path, {"messages": [ASK, ANSWER]}, {"messages": [ASK, {**ANSWER, "content": "a" * 999}]}
    )
    with pytest.raises(UsageError, match=r"line 2 has \d+ tokens, more than --context 500"):
        encoded(path, read_conversations(path), CHATML, VOCABULARY, 500)


def test_a_model_that_reasons_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"messages": [ASK, ANSWER]})
    layout = prompt_format(templates.CHATML.replace("assistant\\n'", "assistant\\n<think>'"), VOCABULARY)
    with pytest.raises(ModelError, match="reasons before every answer"):
        encoded(path, read_conversations(path), layout, VOCABULARY, 500)


def test_a_template_that_refuses_a_row_names_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, {"messages": [ASK, ANSWER, ASK, ANSWER]})
    refusing = "{% if messages|length > 2 %}{{ raise_exception('too many') }}{% endif %}"
    layout = prompt_format(refusing + templates.CHATML, VOCABULARY)
    with pytest.raises(ModelError, match="line 1: "):
        encoded(path, read_conversations(path), layout, VOCABULARY, 500)
