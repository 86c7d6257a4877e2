"""What several anchors come to at one position: the mean of what each makes of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..mixing import UNMAPPED, Ids, Mixture, Probabilities, TopTokens


class Voice(NamedTuple):
    """One anchor at one position.

    `landed` has its probability that crossed onto each token of its mixture, `choice` the draft's token that
    its likeliest landed on, or -1.
    """

    top: TopTokens
    mixture: Mixture
    landed: Probabilities
    choice: int

    def landed_on(self, token: int) -> float:
        """Its probability that crossed onto this token of the draft's."""
        slot = np.flatnonzero(self.mixture.tokens == token)
        return float(self.landed[slot[0]]) if len(slot) else 0.0


def mean(voices: Sequence[Voice], weights: Sequence[float]) -> Voice:
    """f = sum of w_i f_i, over the anchors of which anything crossed; of one it is its own, to the bit.

    What landed, and the covered mass, are averaged alike. The choice is the token that most of the averaged
    anchors' probability landed on; `top` stays the first anchor's.
    """
    if len(voices) == 1:
        return voices[0]
    heard = [(v, w) for v, w in zip(voices, weights, strict=True) if w > 0 and len(v.mixture.tokens)]
    if not heard:
        return voices[0]
    own, shares = zip(*heard, strict=True)
    share = np.array(shares) / sum(shares)
    tokens = np.unique(np.concatenate([voice.mixture.tokens for voice in own]))
    mixed = sum(
        w * _on(tokens, v.mixture.tokens, v.mixture.probabilities) for v, w in zip(own, share, strict=True)
    )
    landed = sum(w * _on(tokens, v.mixture.tokens, v.landed) for v, w in zip(own, share, strict=True))
    order = np.lexsort((tokens, -mixed))
    covered = float(sum(w * v.mixture.covered_mass for v, w in zip(own, share, strict=True)))
    choice = int(tokens[landed.argmax()]) if landed.max() > 0 else UNMAPPED
    mixture = Mixture(tokens[order], mixed[order], covered)
    return Voice(voices[0].top, mixture, landed[order], choice)


def _on(support: Ids, tokens: Ids, values: Probabilities) -> Probabilities:
    """Values of some tokens, over an ascending support that holds all of them; 0 elsewhere."""
    spread = np.zeros(len(support))
    spread[np.searchsorted(support, tokens)] = values
    return spread


def distance(landed: Probabilities, own: Probabilities) -> float:
    """Half the L1 distance, from 0 to 1, of two distributions over one support; of nothing it is 0.

    Args:
        landed: (M,) what of the anchor landed, not renormalised.
        own: (M,) what the draft gives the same tokens, likewise.
    """
    if not (landed.sum() > 0 and own.sum() > 0):
        return 0.0
    return float(0.5 * np.abs(landed / landed.sum() - own / own.sum()).sum())
