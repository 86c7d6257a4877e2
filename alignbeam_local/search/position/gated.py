"""An anchor's row mixed with the same without the question, by PACT's gate over the bridge.

Eq. 5 to 8 of arXiv 2603.07445. PACT trains with it in one vocabulary; for answers, and over a bridge, it is
ours. Pure numpy.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...config import Config
from ...lm.language_model import Logits
from ..bridge import Bridge
from ..gate import TAU, breadth, decayed, gate, mixed_reference
from ..mixing import RULES, Ids, Probabilities, log_normaliser, probabilities, top_tokens

#: In place of a probability of 0: behind all others, and of tokens that all have none each is as likely.
_LEAST = 1e-300


class Said(NamedTuple):
    """The row (V,) of an anchor that counts at a position; `gate` is c, where one was asked (Eq. 6)."""

    row: Logits
    gate: float | None = None


class Gate:
    """How much of the row without the question counts, by how sure that and the draft are among S.

    S are the draft's safety tokens. The twin has read nothing but what begins an answer, and the answer.
    """

    def __init__(self, tokens: Sequence[int], config: Config) -> None:
        """`tokens` is S, ids of the draft's vocabulary, one at least."""
        assert tokens
        self._tokens: Ids = np.array(tokens, np.int64)
        self._width, self._rule, self._first = config.bridge_width, RULES[config.variant], config.depth

    def said(self, own: Logits, twin: Logits, bridge: Bridge, draft_row: Logits, position: int) -> Said:
        """Eq. 7 of the anchor's two rows (V_s,), and c; `draft_row` (V_d,) is the draft's there.

        Raises:
            ModelError: a row holds no numbers.
        """
        tuned = probabilities(draft_row, self._tokens, log_normaliser(draft_row))
        c = gate(_breadth(tuned), _breadth(self._landed(twin, bridge)))
        c = decayed(c, position, self._first, TAU)
        if c == 0:  # decayed to nothing
            return Said(own, c)
        mixed = mixed_reference(own.astype(np.float64), twin.astype(np.float64), c)
        return Said(mixed.astype(np.float32), c)

    def _landed(self, twin: Logits, bridge: Bridge) -> Probabilities:
        """(K,) what of the twin's top B lands on each of S, as the mixture would have it."""
        width = min(self._width, int(np.isfinite(twin).sum()))
        top = top_tokens(twin, width, log_normaliser(twin))
        targets = self._rule.targets(bridge.cross(top.tokens))
        return np.asarray((targets[None, :] == self._tokens[:, None]) @ top.probabilities, np.float64)


def _breadth(shares: Probabilities) -> float:
    """Eq. 5 of the probabilities of S."""
    return breadth(np.log(np.maximum(shares, _LEAST)))
