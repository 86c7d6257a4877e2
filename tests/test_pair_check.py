"""A pair whose bridge can't carry a refusal is refused; a weak one is told of."""

import re

import pytest

from alignbeam_local.errors import ModelError
from alignbeam_local.lm.vocabulary import Vocabulary
from alignbeam_local.pair.check import OPENERS, check_pair, single_share
from alignbeam_local.search.bridge import Bridge
from tests.fake_lm import fake_vocabulary

WORDS = sorted({word for text in OPENERS for word in re.findall(r" ?\w+", text)})
ANCHOR = fake_vocabulary(*WORDS)


def draft_with(share: float) -> Vocabulary:
    """A draft that knows this share of the anchor's tokens in the openers as single ones."""
    tokens = [ANCHOR.pieces([token]).decode() for text in OPENERS for token in ANCHOR.encode(text)]
    words: list[str] = []
    known = sum(len(token) == 1 for token in tokens)
    for word in sorted(set(tokens), key=tokens.count):
        if len(word) > 1 and (known + tokens.count(word)) / len(tokens) <= share:
            words.append(word)
            known += tokens.count(word)
    return fake_vocabulary(*words)


def bridge_with(share: float) -> Bridge:
    draft = draft_with(share)
    return Bridge(draft, ANCHOR, draft_turn_end=draft.eot)


def test_the_share_counts_single_tokens() -> None:
    assert single_share(bridge_with(1.0)) == 1.0
    for share in (0.55, 0.75):
        assert single_share(bridge_with(share)) == pytest.approx(share, abs=0.03)


def test_a_good_pair_passes_in_silence() -> None:
    assert list(check_pair(bridge_with(0.9), force=False)) == []


def test_a_weak_pair_is_told_of() -> None:
    (notice,) = check_pair(bridge_with(0.7), force=False)
    assert re.search(r"weak bridge: only (6|7)\d% of", notice.message)


def test_a_hopeless_pair_is_refused_with_a_hint_unless_forced() -> None:
    bridge = bridge_with(0.45)
    with pytest.raises(ModelError, match="can't steer this draft") as caught:
        list(check_pair(bridge, force=False))
    assert "--force" in caught.value.hint
    (notice,) = check_pair(bridge, force=True)
    assert "weak bridge" in notice.message


def test_a_draft_that_cannot_end_a_turn_is_hopeless() -> None:
    bridge = Bridge(draft_with(1.0), ANCHOR, draft_turn_end=None)
    with pytest.raises(ModelError, match="no token that ends a turn"):
        list(check_pair(bridge, force=False))
