"""Where anchor tokens land: by their bytes alone, never by near misses; and the map on disk."""

from pathlib import Path

import numpy as np
import pytest

from alignbeam_local.lm.vocabulary import Vocabulary
from alignbeam_local.pair.landing_counts import landing_counts
from alignbeam_local.paths import cache_dir
from alignbeam_local.search.bridge import Bridge
from alignbeam_local.search.mixing import UNMAPPED
from tests.fake_lm import BYTES, FakeTokeniser, fake_vocabulary
from tests.running import no_file_beyond

DRAFT = fake_vocabulary(" I", " can", "not", control=("<s>", "</s>", "<end>"), eos="</s>", eot="<end>")
ANCHOR = fake_vocabulary(" can", " cannot", "é", " I")


def bridge_of(draft: Vocabulary = DRAFT, anchor: Vocabulary = ANCHOR) -> Bridge:
    return Bridge(draft, anchor, draft_turn_end=draft.turn_end(True))


def landed(bridge: Bridge, piece: bytes) -> bytes | None:
    """What the draft tokens spell that an anchor's piece lands on; None if it does not cross."""
    token = next(t for t in range(bridge.anchor.size) if bridge.anchor.piece(t) == piece)
    tokens = bridge.landing(token).tokens
    return bridge.draft.pieces(tokens) if tokens else None


def test_equal_bytes_cross_whatever_their_ids() -> None:
    bridge = bridge_of()
    token = ANCHOR.encode(" I")[0]
    assert bridge.landing(token).tokens == tuple(DRAFT.encode(" I"))
    assert token != DRAFT.encode(" I")[0]


def test_several_draft_tokens_are_no_single_one() -> None:
    landing = bridge_of().landing(ANCHOR.encode(" cannot")[0])
    assert landing.tokens == tuple(DRAFT.encode(" can") + DRAFT.encode("not"))
    assert (landing.single, landing.first) == (UNMAPPED, DRAFT.encode(" can")[0])


def test_a_row_of_tokens_crosses_at_once() -> None:
    tokens = np.array([*ANCHOR.encode(" I"), *ANCHOR.encode(" cannot"), ANCHOR.size - 2])
    crossing = bridge_of().cross(tokens)
    i, can = DRAFT.encode(" I")[0], DRAFT.encode(" can")[0]
    assert crossing.single.tolist() == [i, UNMAPPED, UNMAPPED]
    assert crossing.first.tolist() == [i, can, UNMAPPED]


def test_stray_bytes_land_on_the_same_bytes() -> None:
    anchor = Vocabulary(FakeTokeniser([*BYTES, b" \xe2\x80", b"\xc3\xc3"]))
    draft = Vocabulary(FakeTokeniser([*reversed(BYTES), b" \xe2\x80"]))
    bridge = bridge_of(draft, anchor)
    assert all(bridge.landing(byte).tokens == (255 - byte,) for byte in range(256))
    assert bridge.landing(256).tokens == (256,)
    assert bridge.landing(257).tokens == (), "not a token of the draft's, and no text to encode"


def test_every_end_becomes_the_end_of_the_drafts_turn() -> None:
    assert len(ANCHOR.end_tokens) == 2
    assert {bridge_of().landing(end).tokens for end in ANCHOR.end_tokens} == {(DRAFT.eot,)}
    base = Bridge(DRAFT, ANCHOR, draft_turn_end=DRAFT.turn_end(False))
    assert {base.landing(end).tokens for end in ANCHOR.end_tokens} == {(DRAFT.eos,)}


def test_without_an_end_in_the_draft_none_crosses() -> None:
    endless = fake_vocabulary(eos=None, eot=None)
    assert {bridge_of(endless).landing(end).single for end in ANCHOR.end_tokens} == {UNMAPPED}


def test_other_control_tokens_and_empty_pieces_never_cross() -> None:
    anchor = Vocabulary(FakeTokeniser([*BYTES, b""]))
    others = anchor.control_tokens - anchor.end_tokens
    assert others
    for token in (256, *others):
        assert bridge_of(anchor=anchor).landing(token).tokens == ()


def test_a_space_prefix_of_the_draft_is_no_obstacle() -> None:
    draft = fake_vocabulary("can", " can", space_prefix=True)
    anchor = fake_vocabulary("can", " can")
    bridge = bridge_of(draft, anchor)
    assert [landed(bridge, piece) for piece in (b"can", b" can", b" ")] == [b"can", b" can", b" "]
    assert all(bridge.landing(anchor.encode(word)[0]).single != UNMAPPED for word in ("can", " can"))


def test_joined_bytes_must_be_the_piece() -> None:
    draft = fake_vocabulary("\ncan", " can", space_prefix=True)  # its sentinel merges: the space stays
    assert draft.pieces(draft.encode("can")) == b" can"
    assert landed(bridge_of(draft, fake_vocabulary("can")), b"can") is None


# --- the whole map


def stored() -> Path:
    (path,) = (cache_dir() / "bridges").glob("*.npz")
    return path


def unmappable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(Bridge, "landing", fail)


def test_the_map_counts_landings() -> None:
    bridge = bridge_of()
    expected = [len(bridge.landing(token).tokens) for token in range(ANCHOR.size)]
    assert landing_counts(bridge).tolist() == expected
    assert set(expected) == {0, 1, 2}


def test_the_map_is_read_from_disk_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = landing_counts(bridge_of())
    unmappable(monkeypatch)
    assert np.array_equal(landing_counts(bridge_of()), made)


def test_another_pair_or_turn_end_has_another_map() -> None:
    landing_counts(bridge_of())
    endless = Bridge(DRAFT, ANCHOR, draft_turn_end=None)
    ends = list(ANCHOR.end_tokens)
    assert set(landing_counts(endless)[ends].tolist()) == {0}
    assert set(landing_counts(bridge_of())[ends].tolist()) == {1}
    assert len(landing_counts(bridge_of(ANCHOR, DRAFT))) == DRAFT.size


def damaged(raw: bytes, how: str) -> bytes:
    middle = len(raw) // 2
    return {
        "empty": b"",
        "cut": raw[:middle],
        "no archive": b"no archive",
        "flipped": raw[:80] + bytes(byte ^ 0xFF for byte in raw[80:200]) + raw[200:],
        "a pickle": b"\x80\x04N.",
    }[how]


@pytest.mark.parametrize("how", ["empty", "cut", "no archive", "flipped", "a pickle"])
def test_a_damaged_map_is_made_again(how: str) -> None:
    made = landing_counts(bridge_of())
    stored().write_bytes(damaged(stored().read_bytes(), how))
    assert np.array_equal(landing_counts(bridge_of()), made)
    with np.load(stored()) as archive:
        assert np.array_equal(archive["counts"], made)


def test_a_map_is_there_on_a_full_disk() -> None:
    made = landing_counts(bridge_of())
    stored().unlink()
    with no_file_beyond(100):
        assert np.array_equal(landing_counts(bridge_of()), made)
    assert list(cache_dir().rglob("*.npz*")) == [], "nor is half of it"


def test_a_map_of_the_wrong_shape_is_made_again() -> None:
    made = landing_counts(bridge_of())
    np.savez(stored(), counts=made[1:])
    assert np.array_equal(landing_counts(bridge_of()), made)
    np.savez(stored(), first=made)
    assert np.array_equal(landing_counts(bridge_of()), made)
