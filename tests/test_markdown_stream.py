"""Markdown that grows: what is finished is printed once, in order, and nothing is lost."""

import re

import pytest
from alignbeam_local.cli.console.markdown_stream import MarkdownStream, rendered, split_finished
from hypothesis import given
from hypothesis import strategies as st

from .screen import Screen

DOCUMENT = """\
# Sorting

A *short* paragraph with `code`, a [link](https://example.org/x) and <b>tags</b>.

```python
def first():
    return 1

def second():
    return 2
```

1. one

   more of it
2. two

| a | b |
|---|---|
| 1 | 2 |

> a quote

The end.
"""
LONG_CODE = "Before.\n\n```python\n" + "".join(f"value_{i} = {i}\n" for i in range(60)) + "```\n\nAfter.\n"


pytestmark = pytest.mark.usefixtures("always_redrawn")


def streamed(text: str, screen: Screen, size: int = 3) -> MarkdownStream:
    stream = MarkdownStream(screen.console())
    for start in range(0, len(text), size):
        stream.write(text[start : start + size])
    return stream


def filled(lines: list[str]) -> list[str]:
    return [line for line in lines if line]


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("", ""),
        ("one line", ""),
        ("one\n\n", ""),
        ("one\n\ntwo", "one\n\n"),
        ("one\n\n```\ncode\n\nmore\n", "one\n\n"),
        ("```\ncode\n\nmore\n```\nafter", "```\ncode\n\nmore\n```\n"),
        ("~~~\n```\n\nstill code", ""),
        ("- a\n\n- b\n\n  of b\n", ""),
        ("- a\n\nafter", "- a\n\n"),
        ("Title\n---", ""),
        ("| a |\n|---|\n| 1 |\n", ""),
        ("# head\ntext", "# head\n"),
        ("a\u2028b\n\nc", "a\u2028b\n\n"),
    ],
)
def test_all_but_the_last_block_is_finished(text: str, finished: str) -> None:
    assert split_finished(text) == (finished, text.removeprefix(finished))


@given(st.text(alphabet="ab `#->*\n|1.~", max_size=60))
def test_splitting_loses_nothing(text: str) -> None:
    finished, rest = split_finished(text)
    assert finished + rest == text


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("columns", [30, 80])
def test_pieces_look_like_the_whole(size: int, columns: int) -> None:
    whole, pieces = Screen(columns, 200), Screen(columns, 12)
    whole.console().print(rendered(DOCUMENT))
    streamed(DOCUMENT, pieces, size).close()
    assert filled(pieces.lines) == filled(whole.lines)
    assert "tags" in pieces.text
    assert "<b>" in pieces.text
    assert "https://example.org/x" in pieces.text.replace("\n", "")
    assert "\x1b]8" not in pieces.written, "no link that hides where it leads"


def test_a_block_taller_than_the_screen_is_printed_once() -> None:
    screen = Screen(40, 10)
    stream = streamed(LONG_CODE.partition("```\n\n")[0], screen)
    assert screen.lines.count(" value_59 = 59") == 1, "its end is on the screen while it grows"
    assert len(screen.lines) <= screen.rows, "and nothing of it has scrolled away"
    stream.write("```\n\nAfter.\n")
    stream.close()
    assert filled(screen.lines) == ["Before.", *(f" value_{i} = {i}" for i in range(60)), "After."]


def test_a_status_is_gone_with_the_end() -> None:
    screen = Screen()
    stream = streamed("An answer", screen)
    stream.status("the judge reads it")
    assert screen.lines == ["An answer", "the judge reads it"]
    stream.close()
    assert screen.lines == ["An answer"]


@pytest.mark.parametrize(("rows", "erased"), [(60, True), (10, False)])
def test_what_is_on_the_screen_can_be_withdrawn(rows: int, erased: bool) -> None:
    screen = Screen(60, rows)
    screen.write(">>> question\n")
    assert streamed(DOCUMENT, screen).withdraw() is erased
    assert (screen.lines == [">>> question"]) is erased
    assert "The end." not in screen.text


def test_only_the_last_block_is_redrawn() -> None:
    """What flickers is what is erased: of a long answer no more than its last block at a time."""
    screen = Screen(80, 12)
    paragraphs = "".join(f"Paragraph {i}.\n\n" for i in range(40))
    streamed(paragraphs, screen).close()
    erased = re.findall(r"\r(?:\x1b\[(\d+)A)?\x1b\[J", screen.written)
    assert len(erased) > 100
    assert max(int(rows or 0) for rows in erased) == 1, "the paragraph and the gap above it"
