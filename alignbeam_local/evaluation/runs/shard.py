"""One part of a run that is made in several, apart from one another."""

import re
from typing import NamedTuple, Self

from ...errors import UsageError

_MOST = 100_000


class Shard(NamedTuple):
    """Part `number` of `whole` parts, counted from 1."""

    number: int
    whole: int

    @classmethod
    def of(cls, text: str) -> Self:
        """From `I/N`. Raises: UsageError: it is not that, or I is no part of N."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        if found is None or not 1 <= int(found[1]) <= int(found[2]) <= _MOST:
            raise UsageError(f"--shard {text}: no part of a whole", "Write I/N, such as 2/8: I from 1 to N.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.whole}"

    def has(self, index: int) -> bool:
        """Whether it makes the group of this index, from 0: neighbours go to different shards."""
        return index % self.whole == self.number - 1
