"""What an anchor's twin is for: a second row of the same model, of another prompt, held against its own."""

from typing import NamedTuple, Protocol

from ...lm.language_model import Logits
from ..bridge import Bridge


class Said(NamedTuple):
    """The row (V,) of an anchor that counts at a position; `gate` is c, where one was asked (Eq. 6)."""

    row: Logits
    gate: float | None = None


class TwinRule(Protocol):
    """What becomes of the two rows of an anchor and its twin."""

    def hears(self, position: int) -> bool:
        """Whether the twin is asked at this position of an answer, from 0."""

    def said(self, own: Logits, twin: Logits, bridge: Bridge, draft_row: Logits, position: int) -> Said:
        """The row that counts, of the anchor's two (V_s,); `draft_row` (V_d,) is the draft's there.

        Raises:
            ModelError: a row holds no numbers.
        """
