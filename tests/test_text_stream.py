"""Bytes become characters once they are whole, and no stop string is ever shown."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbeam_local.prompt.text_stream import TextStream, whole_characters


def pushed(stream: TextStream, chunks: Sequence[bytes]) -> list[str]:
    return [stream.push(chunk) for chunk in chunks]


def test_a_character_is_shown_when_it_is_whole() -> None:
    stream = TextStream()
    assert pushed(stream, [b"a\xc3", b"\xa9", b"\xe2\x82", b"\xac!"]) == ["a", "é", "", "€!"]
    assert stream.text == "aé€!"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert pushed(TextStream(), [b"a\xffb", b"\xc3b"]) == ["a\ufffdb", "\ufffdb"]


@pytest.mark.parametrize("character", ["é", "€", "🍵"])
def test_an_unfinished_character_is_left_out_at_the_end(character: str) -> None:
    for size in range(1, len(character.encode())):
        raw = b"a" + character.encode()[:size]
        stream = TextStream()
        assert (stream.push(raw), stream.finish(), stream.text) == ("a", "", "a")
        assert whole_characters(raw) == "a"
    assert whole_characters(f"a{character}".encode()) == f"a{character}"
    assert whole_characters(b"\xff" + character.encode()[:1]) == "\ufffd"


def test_what_may_become_a_stop_string_is_held_back() -> None:
    stream = TextStream(["\nQ:"])
    assert pushed(stream, [b"yes\n", b"Q", b" and", b"\nQ", b": more", b"x"]) == [
        "yes",
        "",
        "\nQ and",
        "",
        "",
        "",
    ]
    assert stream.stopped
    assert (stream.finish(), stream.text) == ("", "yes\nQ and")


def test_what_was_held_back_is_shown_at_the_end() -> None:
    stream = TextStream(["\nQ:"])
    assert stream.push(b"yes\nQ") == "yes"
    assert (stream.finish(), stream.text, stream.stopped) == ("\nQ", "yes\nQ", False)


def test_the_earliest_of_several_stop_strings_decides() -> None:
    stream = TextStream(["END", "\n\n"])
    assert stream.push(b"a\n\nb END c") == "a"
    assert stream.stopped


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([b" yes"], "yes"),
        ([b" ", b" yes"], " yes"),
        ([b"", b" ", b"yes"], "yes"),
        ([b"yes ", b" x"], "yes  x"),
    ],
)
def test_one_leading_space_may_belong_to_the_format(chunks: list[bytes], text: str) -> None:
    stream = TextStream(strip_leading_space=True)
    assert "".join(pushed(stream, chunks)) == text == stream.text


@given(
    st.text(alphabet="ab\nQ:é€ ", max_size=30),
    st.lists(st.text(alphabet="ab\nQ:é", min_size=1, max_size=3), max_size=3),
    st.data(),
)
def test_chunks_change_nothing(text: str, stops: list[str], data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    chunks = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    stream = TextStream(stops)
    shown = "".join([*pushed(stream, chunks), stream.finish()])
    assert shown == stream.text == text[: len(shown)]
    assert not any(stop in shown for stop in stops)
    assert stream.stopped == any(stop in text for stop in stops)
    if not stream.stopped:
        assert shown == text
