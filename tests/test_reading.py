"""Text that begins with a byte order mark is read without it, wherever text is read; no text is named."""

import codecs
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.runs.rescore import read_phrases
from alignbeam_local.evaluation.suites.suites import load_suite
from alignbeam_local.judge.check import read_pairs
from alignbeam_local.models.registry import Registry
from alignbeam_local.pair.prompts_file import read_prompts
from alignbeam_local.paths import config_file
from alignbeam_local.reading import Utf8Stream, read_text, whole_text
from tests.fake_engine import FakeEngine
from tests.running import run

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
ASKED = "Wie geht's, Zoë? 日本 🍵"
marked = pytest.mark.parametrize("encoding", ENCODINGS)


def as_bytes(text: str, encoding: str) -> bytes:
    """With the mark of this encoding, if it has one."""
    return text.encode() if encoding == "utf-8" else ("\ufeff" + text).encode(encoding.removesuffix("-sig"))


def write(path: Path, text: str, encoding: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_bytes(text, encoding))
    return path


# --- stdin


@marked
@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("ask",), ASKED),
        (("filter",), f"{ASKED}\n{ASKED}\n"),
        (("filter", "--null"), f"{ASKED}\0{ASKED}\0"),
        (("filter", "--jsonl"), f"{json.dumps({'prompt': ASKED}, ensure_ascii=False)}\n" * 2),
        (("chat", "--no-log"), f"{ASKED}\n{ASKED}"),
        (("filter", "--parallel", "2"), f"{ASKED}\r\n{ASKED}\r\n"),
    ],
)
def test_stdin(command: tuple[str, ...], text: str, encoding: str, engines: list[FakeEngine]) -> None:
    if "--parallel" in command:
        command = command[:1]  # the fake engine answers one at a time
    done = run(*command, given=as_bytes(text, encoding))
    assert (done.code, "internal" in done.err) == (0, False), done.err
    questions = [messages[-1].content.rstrip("\n") for messages, _ in engines[-1].asked]
    assert questions == [ASKED] * (1 if command == ("ask",) else 2)


@pytest.mark.parametrize("raw", [b"\xff\xfeh", b"\xff\xfe\x00\xd8", "\ufeffä".encode("utf-16-le") + b"\x00"])
def test_stdin_that_is_not_what_its_mark_says(raw: bytes, engines: list[FakeEngine]) -> None:
    done = run("ask", given=raw)
    assert (done.code, done.err.startswith("error: stdin is not UTF-16")) == (2, True)
    done = run("filter", given=raw)
    assert (done.code, "not UTF-8" in done.err) == (1, True)


@given(
    text=st.text(), encoding=st.sampled_from(ENCODINGS), cuts=st.lists(st.integers(0, 40)), tail=st.binary()
)
def test_a_stream_is_the_same_however_it_is_cut(
    text: str, encoding: str, cuts: list[int], tail: bytes
) -> None:
    raw = as_bytes("a" + text, encoding)
    stream, made = Utf8Stream(), b""
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(raw)], strict=True):
        made += stream.push(raw[start:end]) if raw[start:end] else b""
    assert made + stream.push(b"") == ("a" + text).encode()
    assert whole_text(raw, "it") == "a" + text
    stream.push(tail)  # whatever comes behind, nothing is raised
    stream.push(b"")


def test_a_line_that_can_be_no_mark_is_not_waited_for() -> None:
    stream = Utf8Stream()
    assert stream.push(b"a\n") == b"a\n"
    stream = Utf8Stream()
    assert (stream.push(b"\xef\xbb"), stream.push(b"\xbfb")) == (b"", b"b")
    assert Utf8Stream().push(codecs.BOM_UTF16_BE + b"\0a") == b"a"


# --- files

PAIR = {"question": ASKED, "answer": "No.", "label": "refusal"}
READERS: list[tuple[str, str, Callable[[Path], object]]] = [
    ("prompts.txt", f"{ASKED}\r\n{ASKED}", lambda path: read_prompts(path) == [ASKED] * 2),
    ("pairs.jsonl", json.dumps(PAIR, ensure_ascii=False), lambda path: read_pairs(path)[0].question == ASKED),
    ("phrases.txt", "I can't\nNo", lambda path: read_phrases(path) == ["i can't", "no"]),
    ("suite.csv", f'prompt,label\n"{ASKED}",benign\n', lambda path: suite(path) == [ASKED]),
    ("suite.tsv", f"label\tprompt\nbenign\t{ASKED}\n", lambda path: suite(path) == [ASKED]),
    ("suite.jsonl", '{"prompt": "é", "label": "benign"}\n', lambda path: suite(path) == ["é"]),
]


def suite(path: Path) -> list[str]:
    return [item.prompt for item in load_suite(str(path), lambda _: path)]


@marked
@pytest.mark.parametrize(("name", "text", "is_right"), READERS, ids=[name for name, *_ in READERS])
def test_a_file(
    name: str, text: str, is_right: Callable[[Path], object], encoding: str, tmp_path: Path
) -> None:
    assert is_right(write(tmp_path / name, text, encoding))


@pytest.mark.parametrize(("name", "_", "read"), READERS, ids=[name for name, *_ in READERS])
def test_a_file_that_is_no_text_is_named(
    name: str, _: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / name
    with pytest.raises(UsageError, match=f"(cannot read |no file '){path}"):
        read(path)
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(UsageError, match=f"{path} is not UTF-8: .* at byte 3") as caught:
        read(path)
    assert caught.value.hint


@marked
def test_the_configuration_and_the_models(encoding: str) -> None:
    write(config_file(), '# é\r\nsystem = "Sei höflich."\r\n', encoding)
    write(
        config_file().with_name("models.toml"),
        '[models.mine]\nabout = "für mich"\npath = "m.gguf"\n',
        encoding,
    )
    assert "Sei höflich." in run("config", "show").out
    assert Registry.load().resolve("mine").entry.about == "für mich"


def test_those_that_are_no_text_are_named() -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_bytes(b'system = "caf\xe9"\n')
    done = run("config", "show")
    assert (done.code, done.err.startswith(f"error: {config_file()} is not UTF-8")) == (2, True)


@marked
def test_a_template(encoding: str, tmp_path: Path, engines: list[FakeEngine]) -> None:
    path = write(tmp_path / "letter.txt", "Grüße an {prompt}.\n", encoding)
    assert run("filter", "--template", f"@{path}", given="Zoë\n").out == "Grüße an Zoë.\n"


def test_lines_end_in_one_way(tmp_path: Path) -> None:
    assert read_text(write(tmp_path / "x", "a\r\nb\rc\n", "utf-16-le"), "") == "a\nb\nc\n"
