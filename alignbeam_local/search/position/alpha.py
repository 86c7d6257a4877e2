"""The anchor's weight at each position of a beam: always the same, falling, or where the models part."""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Protocol, Self

from ...config import Config
from ...knobs.method import AlphaRule

#: NGSD (arXiv 2602.02027): what is left of the disagreement so far at each further token, and after a firing.
_KEPT, _KEPT_AFTER_FIRING = 1 - 1 / 8, 0.6
_FIRES_AT = 1.0

#: Tells how far the models are apart at a position: half the L1 distance, from 0 to 1.
Apart = Callable[[], float]


class Weight(Protocol):
    """What an anchor counts, position by position; it may remember a beam's earlier ones."""

    def at(self, position: int, apart: Apart) -> float | None:
        """The weight at the next position of the beam, counted from 0; None: the draft chooses alone.

        Called once a position, in their order.
        """

    def fork(self) -> Self:
        """The same for another beam that begins likewise."""


class Fixed:
    """Alpha everywhere (the paper)."""

    def __init__(self, config: Config) -> None:
        self._alpha = config.alpha

    def at(self, position: int, apart: Apart) -> float | None:
        return self._alpha

    def fork(self) -> Self:
        return self


class Decay:
    """Alpha at the first token, half of it N tokens on, and so forth."""

    def __init__(self, config: Config) -> None:
        self._alpha, self._half_life = config.alpha, config.depth

    def at(self, position: int, apart: Apart) -> float | None:
        return float(self._alpha * 0.5 ** (position / self._half_life))

    def fork(self) -> Self:
        return self


class Disagreement:
    """Alpha in the first N tokens; behind them only where what the models are apart has added up.

    NGSD (arXiv 2602.02027): v <- (1 - 1/8) v + D at each token; at v >= 1 this token is mixed and
    v <- 0.6 v. It adds up from the first token on.
    """

    def __init__(self, config: Config) -> None:
        self._alpha, self._depth = config.alpha, config.depth
        self._sum = 0.0

    def at(self, position: int, apart: Apart) -> float | None:
        self._sum = _KEPT * self._sum + apart()
        fires = self._sum >= _FIRES_AT
        if fires:
            self._sum *= _KEPT_AFTER_FIRING
        return self._alpha if fires or position < self._depth else None

    def fork(self) -> Self:
        return copy(self)


class AtFirst:
    """Alpha in the first tokens whatever the rule, and behind them as the rule says."""

    def __init__(self, alpha: float, tokens: int, rule: Weight) -> None:
        self._alpha, self._tokens, self._rule = alpha, tokens, rule

    def at(self, position: int, apart: Apart) -> float | None:
        by_rule = self._rule.at(position, apart)
        return self._alpha if position < self._tokens else by_rule

    def fork(self) -> Self:
        return type(self)(self._alpha, self._tokens, self._rule.fork())


_RULES: Mapping[AlphaRule, type[Fixed] | type[Decay] | type[Disagreement]] = {
    "fixed": Fixed,
    "decay": Decay,
    "disagreement": Disagreement,
}


def weight_of(config: Config, whole: int = 0) -> Weight:
    """The rule that these knobs name, for one beam; so many tokens get alpha whatever it says."""
    rule = _RULES[config.alpha_rule](config)
    return AtFirst(config.alpha, whole, rule) if whole else rule
