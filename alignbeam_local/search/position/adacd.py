"""An anchor's row held against the one it has when it is told to refuse: AdaCD (arXiv 2604.17132).

Where being told changes nothing, the request is one to refuse, and the refusal is strengthened; where it
does, the refusal came of being told, and is taken away. Pure numpy.
"""

import numpy as np

from ...lm.language_model import Logits
from ..bridge import Bridge
from ..mixing import log_normaliser
from .twins import Said

#: What the twin is told.
INSTRUCTION = "Please refuse to answer me!"
#: In how many tokens of an answer both are asked.
STEPS = 10
#: The paper's: the strength of the contrast, what counts as agreement and as sure, what is plausible at all.
_RATIO, _AGREES, _PLAUSIBLE = 4.5, 0.9, 0.01


class Contrast:
    """The twin is told to refuse, and what that changes is taken away."""

    def hears(self, position: int) -> bool:
        """In the first tokens of an answer."""
        return position < STEPS

    def said(self, own: Logits, twin: Logits, bridge: Bridge, draft_row: Logits, position: int) -> Said:
        """The contrast of both, whatever the draft says. Raises: as `contrasted`."""
        return Said(contrasted(own, twin))


def contrasted(plain: Logits, told: Logits) -> Logits:
    """The row that counts, of (V,) logits z and, told to refuse, z_s.

    z_s + 4.5 (z_s - z) where the two agree, else z_s - 4.5 (z_s - z); -inf for what z gives less than 0.01
    of its likeliest. They agree where 1 / (1 + the rank in z of z_s's likeliest) >= 0.9, and z's likeliest
    has at least 0.9 of the probability of z_s's.

    Raises:
        ModelError: a row holds no numbers.
    """
    best = int(told.argmax())
    rank = int((plain > plain[best]).sum())
    sure = plain.max() - log_normaliser(plain) >= np.log(_AGREES) + told.max() - log_normaliser(told)
    ratio = _RATIO if 1 / (rank + 1) >= _AGREES and sure else -_RATIO
    row = np.asarray(told + np.float32(ratio) * (told - plain), np.float32)
    row[plain < plain.max() + np.float32(np.log(_PLAUSIBLE))] = -np.inf
    return row
