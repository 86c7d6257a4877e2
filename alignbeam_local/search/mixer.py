"""Mixes one position of both models: the anchor's row carried over the bridge, Eq. 1, and what crossed."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from ..config import Config
from ..lm.language_model import Logits
from ..result import BridgeResult
from .bridge import Bridge
from .mixing import (
    RULES,
    Ids,
    Mixture,
    Probabilities,
    TopTokens,
    log_normaliser,
    mix,
    probabilities,
    top_tokens,
)


class MixedRow(NamedTuple):
    """One position of one beam: what each model wanted, and the mixture of both."""

    mixture: Mixture
    anchor: TopTokens | None  # None: the anchor was not asked
    landed: Probabilities  # (M,) the anchor's probability that landed on each token of the mixture
    draft_row: Logits
    draft_normaliser: float
    anchor_choice: int = -1  # the draft token that the anchor's likeliest landed on; -1: none

    @property
    def is_mixed(self) -> bool:
        """Whether anything crossed: else the draft chooses by itself."""
        return bool(len(self.mixture.tokens))

    def among(self, draft_row: Logits) -> Self:
        """Only the tokens that are finite in this, the draft's row with -inf for what may not come.

        The mixture is what is left of it, its mass 1 again; nothing left, and the draft chooses by itself.
        """
        kept = np.isfinite(draft_row[self.mixture.tokens])
        mass = self.mixture.probabilities[kept]
        left = Mixture(self.mixture.tokens[kept], mass / (mass.sum() or 1.0), self.mixture.covered_mass)
        return self._replace(mixture=left, landed=self.landed[kept], draft_row=draft_row)

    def mixed_probabilities(self, token: int) -> tuple[float, float]:
        """What the mixture gives a token, and what of the anchor's probability landed on it."""
        slot = np.flatnonzero(self.mixture.tokens == token)
        if not len(slot):
            return 0.0, 0.0
        return float(self.mixture.probabilities[slot[0]]), float(self.landed[slot[0]])

    @property
    def draft_choice(self) -> int:
        return int(self.draft_row.argmax())

    @property
    def best(self) -> int:
        """The argmax of the mixture, or of the draft's own row where nothing was mixed."""
        return int(self.mixture.tokens[0]) if self.is_mixed else self.draft_choice


class BridgeCount:
    """Counts what crossed, for the result."""

    def __init__(self) -> None:
        self.steps = self.unmixed = self.tokens = self.single = 0
        self._covered = 0.0

    def add(self, row: MixedRow, single: int) -> None:
        """Count a step in which the anchor was asked; `single` of its tokens are one token of the draft."""
        assert row.anchor is not None
        self.steps += 1
        self.tokens += len(row.anchor.tokens)
        self.single += single
        self._covered += row.mixture.covered_mass

    @property
    def result(self) -> BridgeResult:
        covered = self._covered / self.steps if self.steps else None
        fallback = self.tokens - self.single
        return BridgeResult(self.steps, self.unmixed, self.tokens, self.single, fallback, covered)


class Mixer:
    """Eq. 1 at every mixed position of an answer, by the knobs of its configuration."""

    def __init__(self, bridges: Sequence[Bridge], config: Config) -> None:
        """`bridges` lead from each anchor to the draft; none where nothing is mixed."""
        self._bridges = tuple(bridges)
        self._rule = RULES[config.variant]
        self._config = config
        self.count = BridgeCount()

    def mix(self, draft_row: Logits, anchor_rows: Sequence[Logits]) -> MixedRow:
        """Mix one position.

        Args:
            draft_row: (V_d,) logits of the draft.
            anchor_rows: (V_s,) logits of each anchor; none where they could not be asked.

        Raises:
            ModelError: a row holds no numbers.
        """
        normaliser = log_normaliser(draft_row)
        if not anchor_rows:
            nothing = Mixture(np.empty(0, np.int64), np.empty(0), 0.0)
            return MixedRow(nothing, None, np.empty(0), draft_row, normaliser)
        (bridge,), (anchor_row,) = self._bridges, anchor_rows
        width = self._config.bridge_width
        anchor = top_tokens(anchor_row, width, log_normaliser(anchor_row))
        crossing = bridge.cross(anchor.tokens)
        targets = self._rule.targets(crossing)
        mixture = mix(
            anchor,
            crossing,
            self.draft_probabilities(draft_row, targets, normaliser),
            alpha=self._config.alpha,
            rule=self._rule,
            draft_mass=self._config.draft_mass,
            draft_top=top_tokens(draft_row, width, normaliser) if self._rule.needs_draft_top else None,
        )
        landed = (targets[None, :] == mixture.tokens[:, None]) @ anchor.probabilities
        row = MixedRow(mixture, anchor, landed, draft_row, normaliser, int(targets[0]))
        self.count.add(row, int((crossing.single >= 0).sum()))
        return row

    def draft_probabilities(self, row: Logits, tokens: Ids, normaliser: float) -> Probabilities:
        """P_d of some tokens (n,); behind a bridge the turn's end stands for all of the draft's ends."""
        values = probabilities(row, tokens, normaliser)
        for bridge in self._bridges[:1]:
            if bridge.turn_end is not None:
                ends = probabilities(row, bridge.draft_end_tokens, normaliser).sum()
                values[tokens == bridge.turn_end] = ends
        return values

    def draft_probability(self, row: MixedRow, token: int) -> float:
        """What the draft alone gives one token at a mixed position."""
        tokens = np.array([token], np.int64)
        return float(self.draft_probabilities(row.draft_row, tokens, row.draft_normaliser)[0])
