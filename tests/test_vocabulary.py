"""Tokens as bytes on a tokeniser in Python: nothing added, nothing lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbeam_local.lm.vocabulary import Vocabulary, is_text, is_unfinished
from tests.fake_lm import BYTES, FakeTokeniser, fake_vocabulary

PLAIN = fake_vocabulary("he", "hello", " hello", "é")
SPACED = fake_vocabulary("he", "hello", " hello", "\nhello", "é", space_prefix=True)


def test_pieces_join_and_controls_are_empty() -> None:
    hello, end = PLAIN.encode("hello")[0], PLAIN.eot
    assert end is not None
    assert PLAIN.pieces([hello, end, ord("!")]) == b"hello!"
    assert (PLAIN.text(end), PLAIN.piece(end)) == ("<|im_end|>", b"")


def test_text_never_becomes_control_tokens() -> None:
    assert not PLAIN.control_tokens & set(PLAIN.encode("<|im_end|>"))
    assert PLAIN.encode_template("<|im_end|>") == [PLAIN.eot]


@given(st.text(max_size=12))
def test_what_is_encoded_is_spelt_with_or_without_a_space_prefix(text: str) -> None:
    for vocabulary in (PLAIN, SPACED):
        if text.startswith("hello") and vocabulary is SPACED:
            continue  # see the next test
        assert vocabulary.pieces(vocabulary.encode(text)) == text.encode()


def test_a_space_prefix_is_undone_behind_a_sentinel() -> None:
    assert SPACED.adds_space_prefix
    assert not PLAIN.adds_space_prefix
    assert SPACED.pieces(SPACED.encode("he")) == b"he"
    assert SPACED.pieces(SPACED.encode(" hello")) == b" hello"


def test_where_the_sentinel_merges_the_space_stays_and_is_seen() -> None:
    assert SPACED.pieces(SPACED.encode("hello")) == b" hello", "whoever needs the bytes compares them"


def test_empty_text_is_no_token() -> None:
    assert PLAIN.encode("") == SPACED.encode(b"") == []


def test_a_lone_surrogate_is_replaced() -> None:
    assert PLAIN.pieces(PLAIN.encode("a\ud800b")) == b"a?b"


def test_stray_bytes_are_looked_up_whole() -> None:
    vocabulary = Vocabulary(FakeTokeniser([*BYTES, b" \xe2\x80", b" \xe2\x80", b"\xc3\xa9"]))
    assert vocabulary.encode(b" \xe2\x80") == [256], "the lowest of two equal pieces"
    assert vocabulary.encode(b"\xe9") == [0xE9]
    assert vocabulary.encode(b"\xe9\xe9") == [], "no piece is these bytes"
    assert vocabulary.encode(b"\xc3\xa9") == [258], "whole characters are text"
    assert sorted(vocabulary.byte_tokens.values()) == [*range(128, 256), 256]


def test_the_turns_end_is_eot_behind_a_template() -> None:
    assert (PLAIN.turn_end(True), PLAIN.turn_end(False)) == (PLAIN.eot, PLAIN.eos)
    without = fake_vocabulary(eot=None)
    assert without.turn_end(True) == without.eos


class Unmerged(FakeTokeniser):
    """The same pieces, cut into bytes."""

    def encode(self, text: bytes, parse_special: bool) -> list[int]:
        return list(text)


def test_fingerprints_tell_vocabularies_apart() -> None:
    same = fake_vocabulary("he", "hello", " hello", "é")
    assert same.fingerprint == PLAIN.fingerprint
    others = [
        fake_vocabulary("he", "hell", "o hello", "é"),
        fake_vocabulary("he", "hello", " hello", "é", eot=None),
        fake_vocabulary("hello", "he", " hello", "é"),
        Vocabulary(Unmerged([*BYTES, b"he", b"hello", b" hello", "é".encode()])),
    ]
    assert PLAIN.fingerprint not in {other.fingerprint for other in others}


@pytest.mark.parametrize(
    ("raw", "text", "unfinished"),
    [
        (b"", True, False),
        ("é€".encode(), True, False),
        (b"a\xc3", False, True),
        (b"\xf0\x9f\x98", False, True),
        (b"\xffa", False, False),
        (b"\xff\xe2\x82", False, True),
        (b"\x80", False, False),
    ],
)
def test_text_and_unfinished_characters(raw: bytes, text: bool, unfinished: bool) -> None:
    assert (is_text(raw), is_unfinished(raw)) == (text, unfinished)
