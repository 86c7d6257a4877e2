"""Fewer prompts of a suite, the same ones every time."""

import random
from collections.abc import Sequence
from typing import Literal

from .suites import Item

Pick = Literal["stratified", "even"]


def pick(items: Sequence[Item], limit: int | None, how: Pick, seed: int) -> list[Item]:
    """At most `limit` items, in the suite's order.

    Args:
        how: `stratified` draws from every label and category in proportion, by `seed`; `even` takes items
            evenly spaced, whatever the seed.
    """
    if limit is None or limit >= len(items):
        return list(items)
    if how == "even":
        return [items[i * len(items) // limit] for i in range(limit)]
    return _stratified(items, limit, seed)


def _stratified(items: Sequence[Item], limit: int, seed: int) -> list[Item]:
    strata: dict[tuple[str, str], list[int]] = {}
    for index, item in enumerate(items):
        strata.setdefault((item.label, item.category), []).append(index)
    chosen: list[int] = []
    for key, indices in strata.items():
        # A generator of its own: another stratum's size must not change what is drawn here.
        draw = random.Random(f"{seed}|{key}")
        chosen += draw.sample(indices, _shares(strata, limit)[key])
    return [items[index] for index in sorted(chosen)]


def _shares(strata: dict[tuple[str, str], list[int]], limit: int) -> dict[tuple[str, str], int]:
    """How many of each stratum: in proportion, what is left over to the largest remainders."""
    total = sum(map(len, strata.values()))
    shares = {key: limit * len(indices) // total for key, indices in strata.items()}
    by_remainder = sorted(strata, key=lambda key: (-(limit * len(strata[key]) % total), key))
    for key in by_remainder[: limit - sum(shares.values())]:
        shares[key] += 1
    return shares
