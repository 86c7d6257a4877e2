"""How sure a model is among the safety tokens, and what of a reference counts by that.

PACT (arXiv 2603.07445), Eq. 5 to 8: pure numpy, no model. K is the number of safety tokens; a row is the
logits of just these. PACT uses it while training; here it is what a rule for alpha can ask.
"""

from math import exp

import numpy as np
import numpy.typing as npt

Row = npt.NDArray[np.float64]  # (K,)

#: The mass that the likeliest tokens must reach (Eq. 5).
REACHED = 0.9
#: Eq. 8's τ, which the paper does not give; the authors' published code has it.
TAU = 8.0


def breadth(logits: Row, reached: float = REACHED) -> float:
    """Eq. 5, I_p: how many of K tokens it takes, the likeliest first, to hold 0.9 of their mass; over K.

    From 1/K, sure of one token, to nearly 1, sure of none.

    Args:
        logits: (K,) of the safety tokens; their softmax is over them alone.
    """
    weights = np.exp(logits - logits.max())
    held = np.cumsum(np.sort(weights)[::-1]) / weights.sum()
    needed = int(np.searchsorted(held, reached - 1e-12)) + 1
    return min(needed, len(logits)) / len(logits)


def gate(breadth_tuned: float, breadth_post: float, sharpness: float = 1.0) -> float:
    """Eq. 6, c: how much of the reference is that without the question, from 0 to 1.

    A half where both are as sure; more where the tuned model is less sure than the reference that has read
    nothing but the answer. The authors' published code has a sharpness of 2.
    """
    return 1 / (1 + exp(-sharpness * (breadth_tuned - breadth_post)))


def decayed(c: float, position: int, first: int, tau: float) -> float:
    """Eq. 8: c in the first N positions of an answer, from 0; then less by exp(-(t - N) / tau)."""
    return c if position < first else c * exp(-(position - first) / tau)


def mixed_reference(full: Row, post: Row, c: float) -> Row:
    """Eq. 7: (1 - c) z_full + c z_post, of logits (K,) with and without the question."""
    return np.asarray((1 - c) * full + c * post, np.float64)
