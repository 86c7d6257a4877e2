"""How far a beam's mixed start goes: N tokens, or on from there while the models part."""

from copy import copy
from typing import Self

from ...config import Config

#: The anchor is sure of its own choice where at least this much of its probability landed on it.
_SURE = 0.5


class Prefix:
    """Of one beam: whether its next token is mixed as well."""

    def __init__(self, config: Config, least: int | None = None) -> None:
        """`least` tokens are mixed in any case; None: N."""
        self._least = config.depth if least is None else least
        self._most = max(config.longest_prefix, self._least)
        self._is_adaptive = config.prefix == "adaptive"
        self._is_long = config.alpha_rule == "disagreement"
        self._agree_for = config.agree_for
        self.count = 0  # tokens of the start so far
        self._together = 0  # the last of them in a row in which the models did not part

    def note(self, draft_choice: int, anchor_choice: int, anchor_mass: float) -> None:
        """Take a token of the start.

        Args:
            draft_choice: the draft's likeliest token there.
            anchor_choice: the draft's token that the anchor's likeliest landed on; -1: it crossed onto none.
            anchor_mass: the anchor's probability that landed on it.
        """
        parts = anchor_choice not in (-1, draft_choice) and anchor_mass >= _SURE
        self.count += 1
        self._together = 0 if parts else self._together + 1

    def note_plain(self) -> None:
        """Take a token that says nothing about their parting: no anchor could be asked, or none need be."""
        self.count += 1

    @property
    def goes_on(self) -> bool:
        """Whether the next token is mixed."""
        if self.count >= self._most:
            return False
        if self.count < self._least:
            return True
        return self._together < self._agree_for if self._is_adaptive else self._is_long

    def fork(self) -> Self:
        """The same for another beam that begins likewise."""
        return copy(self)
