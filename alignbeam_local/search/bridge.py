"""The bridge: where each token of the anchor's vocabulary lands in the draft's, through its bytes."""

from typing import NamedTuple

import numpy as np

from ..lm.vocabulary import Vocabulary
from ..prompt.formats import PromptFormat
from .mixing import UNMAPPED, Crossing, Ids


class Landing(NamedTuple):
    """The draft's tokens for one anchor token; none if it does not cross."""

    tokens: tuple[int, ...]

    @property
    def single(self) -> int:
        return self.tokens[0] if len(self.tokens) == 1 else UNMAPPED

    @property
    def first(self) -> int:
        return self.tokens[0] if self.tokens else UNMAPPED


def bridge_between(draft: Vocabulary, draft_format: PromptFormat, anchor: Vocabulary) -> "Bridge":
    """The bridge to a draft that reads conversations in this format: it says what ends a turn."""
    return Bridge(draft, anchor, draft_turn_end=draft.turn_end(draft_format.uses_template))


class Bridge:
    """Carries anchor tokens into the draft's vocabulary, remembering what it has carried."""

    def __init__(self, draft: Vocabulary, anchor: Vocabulary, *, draft_turn_end: int | None) -> None:
        """`draft_turn_end` is the token that ends a turn in the draft's format."""
        self.draft = draft
        self.anchor = anchor
        self.turn_end = draft_turn_end
        self._landings: dict[int, Landing] = {}
        self.draft_end_tokens = np.array(sorted(draft.end_tokens), np.int64)

    def landing(self, token: int) -> Landing:
        """Where an anchor token lands."""
        landing = self._landings.get(token)
        if landing is None:
            landing = self._landings[token] = self._carry(token)
        return landing

    def cross(self, tokens: Ids) -> Crossing:
        """Landings of (B,) anchor tokens."""
        landings = [self.landing(int(token)) for token in tokens]
        return Crossing(
            single=np.array([landing.single for landing in landings], np.int64),
            first=np.array([landing.first for landing in landings], np.int64),
        )

    def _carry(self, token: int) -> Landing:
        if token in self.anchor.end_tokens:
            return Landing(() if self.turn_end is None else (self.turn_end,))
        piece = self.anchor.piece(token)
        if not piece:
            return Landing(())
        if self.draft is self.anchor:  # one file in both roles: how its text would be cut does not matter
            return Landing((token,))
        ids = self.draft.encode(piece)
        return Landing(tuple(ids) if self.draft.pieces(ids) == piece else ())
