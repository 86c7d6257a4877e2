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
    Crossing,
    Ids,
    Mixture,
    Probabilities,
    TopTokens,
    log_normaliser,
    mix,
    probabilities,
    top_tokens,
)
from .position.alpha import Weight
from .position.several import Voice, distance, mean

_NOTHING = Mixture(np.empty(0, np.int64), np.empty(0), 0.0)


class _Heard(NamedTuple):
    """What one anchor says at a position, and where it lands."""

    top: TopTokens
    crossing: Crossing
    targets: Ids  # (B,)


class MixedRow(NamedTuple):
    """One position of one beam: what each model wanted, and the mixture of both."""

    mixture: Mixture
    anchor: TopTokens | None  # None: the anchor was not asked; of several it is the first one's
    landed: Probabilities  # (M,) the anchor's probability that landed on each token of the mixture
    draft_row: Logits
    draft_normaliser: float
    anchor_choice: int = -1  # the draft token that the anchor's likeliest landed on; -1: none
    anchor_mass: float = 0.0  # the anchor's probability that landed on it
    voices: tuple[Voice, ...] = ()  # what each anchor in use says by itself, where there are several

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

    def add(self, voice: Voice, single: int) -> None:
        """Count a step in which an anchor was asked; `single` of its tokens are one token of the draft."""
        self.steps += 1
        self.tokens += len(voice.top.tokens)
        self.single += single
        self._covered += voice.mixture.covered_mass

    @property
    def result(self) -> BridgeResult:
        covered = self._covered / self.steps if self.steps else None
        fallback = self.tokens - self.single
        return BridgeResult(self.steps, self.unmixed, self.tokens, self.single, fallback, covered)


class Mixer:
    """Eq. 1 at every mixed position of an answer, by the knobs of its configuration."""

    def __init__(
        self, bridges: Sequence[Bridge], config: Config, weights: Sequence[float] | None = None
    ) -> None:
        """`bridges` lead from each anchor to the draft; none where nothing is mixed.

        `weights` say what each of several counts in their mean; None: all the same.
        """
        self._bridges = tuple(bridges)
        self._weights = [1 / len(bridges) for _ in bridges] if weights is None else list(weights)
        self._rule = RULES[config.variant]
        self._config = config
        #: Of all anchors together, and of each.
        self.count = BridgeCount()
        self.counts = [BridgeCount() for _ in bridges]
        self._used = list(range(len(bridges)))

    def use_only(self, numbers: Sequence[int]) -> None:
        """From here on only these anchors' rows come."""
        self._used = list(numbers)

    def count_unmixed(self) -> None:
        """Count a step in which the anchors in use could not be asked."""
        for count in (self.count, *(self.counts[number] for number in self._used)):
            count.unmixed += 1

    def mix(
        self,
        draft_row: Logits,
        anchor_rows: Sequence[Logits],
        weight: Weight | None = None,
        position: int = 0,
    ) -> MixedRow:
        """Mix one position.

        Args:
            draft_row: (V_d,) logits of the draft.
            anchor_rows: (V_s,) logits of each anchor in use; none where they could not be asked.
            weight: says what they count at this position of the beam; None: alpha.

        Raises:
            ModelError: a row holds no numbers.
        """
        normaliser = log_normaliser(draft_row)
        if not anchor_rows:
            return MixedRow(_NOTHING, None, np.empty(0), draft_row, normaliser)
        heard = [self._heard(n, row) for n, row in zip(self._used, anchor_rows, strict=True)]
        alpha: float | None = self._config.alpha
        if weight is not None:
            alpha = weight.at(position, lambda: self._distance(heard, draft_row, normaliser))
        own = 1.0 if alpha is None else alpha
        voices = [self._voice(each, draft_row, normaliser, own) for each in heard]
        self._add(voices, heard)
        whole = mean(voices, [self._weights[number] for number in self._used])
        mass = whole.landed_on(whole.choice)
        row = MixedRow(whole.mixture, whole.top, whole.landed, draft_row, normaliser, whole.choice, mass)
        if alpha is None:
            quiet = Mixture(_NOTHING.tokens, _NOTHING.probabilities, whole.mixture.covered_mass)
            row = row._replace(mixture=quiet, landed=np.empty(0))
        return row._replace(voices=tuple(voices)) if len(self._bridges) > 1 else row

    def _heard(self, number: int, row: Logits) -> _Heard:
        width = min(self._config.bridge_width, int(np.isfinite(row).sum()))
        top = top_tokens(row, width, log_normaliser(row))
        crossing = self._bridges[number].cross(top.tokens)
        return _Heard(top, crossing, self._rule.targets(crossing))

    def _voice(self, heard: _Heard, draft_row: Logits, normaliser: float, alpha: float) -> Voice:
        width, rule = self._config.bridge_width, self._rule
        mixture = mix(
            heard.top,
            heard.crossing,
            self.draft_probabilities(draft_row, heard.targets, normaliser),
            alpha=alpha,
            rule=rule,
            draft_mass=self._config.draft_mass,
            draft_top=top_tokens(draft_row, width, normaliser) if rule.needs_draft_top else None,
        )
        landed = (heard.targets[None, :] == mixture.tokens[:, None]) @ heard.top.probabilities
        return Voice(heard.top, mixture, landed, int(heard.targets[0]))

    def _distance(self, heard: Sequence[_Heard], draft_row: Logits, normaliser: float) -> float:
        """How far the anchors, as they land, and the draft are apart on what landed."""
        voices = [self._voice(each, draft_row, normaliser, 1.0) for each in heard]
        whole = mean(voices, [self._weights[number] for number in self._used])
        support = whole.mixture.tokens[whole.landed > 0]
        own = self.draft_probabilities(draft_row, support, normaliser)
        return distance(whole.landed[whole.landed > 0], own)

    def _add(self, voices: Sequence[Voice], heard: Sequence[_Heard]) -> None:
        for number, voice, each in zip(self._used, voices, heard, strict=True):
            single = int((each.crossing.single >= 0).sum())
            self.count.add(voice, single)
            self.counts[number].add(voice, single)

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
