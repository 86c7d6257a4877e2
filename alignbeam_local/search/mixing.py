"""The mixture of two next-token distributions over the bridged support (Eq. 1): pure numpy, no model.

Shapes: V_d and V_s are the two vocabularies' sizes, B the bridge width, M the size of the mixture's support.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from ..knobs.method import DraftMass, Variant

Ids = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]

UNMAPPED = -1
#: With so many groups of entries as tokens are sought, few of the highest share one.
_GROUPS_PER_TOKEN = 16
#: Entries whose exponentials stay in the processor's cache.
_CHUNK = 1 << 15


class TopTokens(NamedTuple):
    """The B most probable tokens of a distribution over the whole vocabulary, most probable first."""

    tokens: Ids  # (B,)
    probabilities: Probabilities  # (B,), not renormalised


class Crossing(NamedTuple):
    """Where each of the anchor's top B tokens lands in the draft's vocabulary."""

    single: Ids  # (B,), the one draft token, or UNMAPPED
    first: Ids  # (B,), the first draft token of the piece, or UNMAPPED where it has none


class Shares(NamedTuple):
    """Draft tokens and the mass that each holds, not renormalised."""

    tokens: Ids  # (S,), ascending
    mass: Probabilities  # (S,)


class Mixture(NamedTuple):
    """The mixed distribution f~ over its support, most probable first; empty if nothing crossed."""

    tokens: Ids  # (M,)
    probabilities: Probabilities  # (M,), sums to 1
    covered_mass: float  # share of the top B's probability that maps to one token


def log_normaliser(logits: npt.NDArray[np.float32]) -> float:
    """log(sum(exp(logits))) of a row (V,), without overflow.

    Raises:
        ModelError: the row holds a NaN or no finite entry at all.
    """
    peak = logits.max()
    if not np.isfinite(peak):
        raise ModelError("the model computed logits that are not numbers", "Is the file damaged? Verify it.")
    parts = (logits[start : start + _CHUNK] for start in range(0, len(logits), _CHUNK))
    return float(peak) + float(np.log(sum(float(np.exp(part - peak).sum()) for part in parts)))


def top_tokens(logits: npt.NDArray[np.float32], width: int, normaliser: float) -> TopTokens:
    """The `width` most probable tokens of a row; equal logits in the order of their ids."""
    width = min(width, len(logits))
    tokens = np.flatnonzero(logits >= _reached(logits, width))
    tokens = tokens[np.lexsort((tokens, -logits[tokens]))[:width]].astype(np.int64)
    return TopTokens(tokens, probabilities(logits, tokens, normaliser))


def _reached(logits: npt.NDArray[np.float32], width: int) -> np.float32:
    """A logit that `width` entries of a row reach, and hardly more: the least of the highest group peaks."""
    groups = _GROUPS_PER_TOKEN * width
    peaks = logits
    if len(logits) > groups:
        peaks = logits[: len(logits) // groups * groups].reshape(-1, groups).max(axis=0)
    place = len(peaks) - width
    return np.float32(np.partition(peaks, place)[place])


def probabilities(logits: npt.NDArray[np.float32], tokens: Ids, normaliser: float) -> Probabilities:
    """Probabilities of some tokens of a row."""
    return np.exp(logits[tokens].astype(np.float64) - normaliser)


class MixingRule(Protocol):
    """What becomes of an anchor token that is no single token of the draft."""

    #: Whether the rule wants the draft's own top B.
    needs_draft_top: bool

    def targets(self, crossing: Crossing) -> Ids:
        """(B,) the draft token that each anchor token is credited to, or UNMAPPED."""

    def settle(
        self, support: Ids, mass: Probabilities, unmapped: float, draft_top: TopTokens | None
    ) -> Shares:
        """What the mixture holds once the `unmapped` mass, weighted by alpha, is dealt with.

        Args:
            support: (S,) draft tokens, ascending.
            mass: (S,) what Eq. 1 gives them.
        """


class Drop:
    """Skip it: renormalising spreads its mass over the survivors (paper, section 3; the default)."""

    needs_draft_top = False

    def targets(self, crossing: Crossing) -> Ids:
        return crossing.single

    def settle(
        self, support: Ids, mass: Probabilities, unmapped: float, draft_top: TopTokens | None
    ) -> Shares:
        return Shares(support, mass)


class First(Drop):
    """Credit its first sub-token ("stealth safety" in the paper)."""

    def targets(self, crossing: Crossing) -> Ids:
        return crossing.first


class Exact(Drop):
    """Give its mass back to the draft, over the draft's own top B (our reading of the paper)."""

    needs_draft_top = True

    def settle(
        self, support: Ids, mass: Probabilities, unmapped: float, draft_top: TopTokens | None
    ) -> Shares:
        assert draft_top is not None
        returned = unmapped * draft_top.probabilities / draft_top.probabilities.sum()
        support, slots = np.unique(np.concatenate([support, draft_top.tokens]), return_inverse=True)
        return Shares(support, _sums(slots, np.concatenate([mass, returned]), len(support)))


RULES: Mapping[Variant, MixingRule] = {"drop": Drop(), "first": First(), "exact": Exact()}


def mix(
    anchor: TopTokens,
    crossing: Crossing,
    draft_probabilities: Probabilities,
    *,
    alpha: float,
    rule: MixingRule,
    draft_mass: DraftMass,
    draft_top: TopTokens | None = None,
) -> Mixture:
    """Mix at one position: Eq. 1 (paper, section 3), with a rule for what is unmapped.

    Args:
        anchor: the anchor's top B.
        crossing: where they land.
        draft_probabilities: (B,), P_d of the token each is credited to by the rule; for the turn's end the
            sum over all of the draft's end tokens. Ignored where nothing is credited.
        alpha: the anchor's weight.
        rule: `Drop`, `First` or `Exact`.
        draft_mass: `each` adds (1 - alpha) P_d once per anchor token that lands on a draft token, as Eq. 1
            reads; `once` once per draft token.
        draft_top: the draft's own top B, where the rule needs it.
    """
    targets = rule.targets(crossing)
    credited = targets != UNMAPPED
    support, slots = np.unique(targets[credited], return_inverse=True)
    mass = alpha * _sums(slots, anchor.probabilities[credited], len(support))
    own = (1 - alpha) * draft_probabilities[credited]
    if draft_mass == "each":
        mass += _sums(slots, own, len(support))
    else:
        once = np.zeros(len(support))
        once[slots] = own
        mass += once
    unmapped = anchor.probabilities[crossing.single == UNMAPPED].sum()
    shares = rule.settle(support, mass, alpha * unmapped, draft_top)
    return _normalised(*shares, covered_mass=float(1 - unmapped / anchor.probabilities.sum()))


def _normalised(support: Ids, mass: Probabilities, *, covered_mass: float) -> Mixture:
    order = np.lexsort((support, -mass))
    order = order[mass[order] > 0]
    kept = mass[order]
    return Mixture(support[order], kept / kept.sum() if len(kept) else kept, covered_mass)


def _sums(slots: Ids, values: Probabilities, count: int) -> Probabilities:
    """Sum the values that share a slot, for `count` slots."""
    return np.bincount(slots, values, minlength=count).astype(np.float64)
