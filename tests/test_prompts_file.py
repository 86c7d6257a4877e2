"""Prompts from files, as people and programs write them."""

import json
from pathlib import Path

import pytest

from alignbeam_local.errors import UsageError
from alignbeam_local.pair.prompts_file import read_prompts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prompts"


def test_plain_lines(file: Path) -> None:
    file.write_bytes("How?\r\n\n  \nWhy é?\n".encode())
    assert read_prompts(file) == ["How?", "Why é?"]


def test_json_lines_keep_their_newlines(file: Path) -> None:
    file.write_text(json.dumps({"prompt": "a\nb", "id": 1}) + "\nplain\n")
    assert read_prompts(file) == ["a\nb", "plain"]


def test_only_newlines_end_a_line(file: Path) -> None:
    prompt = "one\u2028two\x0cthree\x85four"
    file.write_text(json.dumps({"prompt": prompt}, ensure_ascii=False) + "\n" + prompt, encoding="utf-8")
    assert read_prompts(file) == [prompt, prompt]


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "a"}',
        '{"prompt": 1}',
        '{"prompt": "a"',
        "{}",
        '{"prompt": "a", "prompt": "b"}',
        '{"a":' * 9999,
    ],
)
def test_an_object_without_a_prompt_is_named_with_its_line(file: Path, line: str) -> None:
    file.write_text(f"first\n\n{line}\n")
    with pytest.raises(UsageError, match=r"prompts:3 is not a JSON object with a prompt"):
        read_prompts(file)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_a_prompt(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(UsageError, match="holds no prompt"):
        read_prompts(file)


def test_a_file_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_prompts(file)
    file.write_bytes(b"caf\xe9\n")
    with pytest.raises(UsageError, match="is not UTF-8"):
        read_prompts(file)
