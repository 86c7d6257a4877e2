"""Intervals and tests: shares, paired differences, a judge's own error. Pure numpy and the standard library.

Wilson's interval of a share is `intervals.wilson_interval`.
"""

from collections.abc import Sequence
from math import comb, sqrt
from typing import NamedTuple

import numpy as np

from ...intervals import Z95, wilson_interval

_RESAMPLES = 10_000
Groups = Sequence[Sequence[float]]


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def share(groups: Groups) -> Estimate:
    """The mean of values of 0 or 1, one group a prompt, none of them empty.

    Wilson's interval where every prompt was asked once. Answers to one prompt are not independent: of
    several (one a seed) the interval is a bootstrap over prompts, or Wilson's of the prompts where all of
    them say the same and there is nothing to draw.
    """
    values = [value for group in groups for value in group]
    mean = sum(values) / len(values)
    if all(len(group) == 1 for group in groups) or _all_alike(groups):
        return Estimate(mean, *wilson_interval(round(mean * len(groups)), len(groups)))
    return bootstrap_mean(groups)


def mean_difference(groups: Groups) -> Estimate:
    """The mean of differences of -1, 0 or 1, one group a prompt, none of them empty.

    The interval is a bootstrap over prompts; where all are alike, and there is nothing to draw, that of
    Agresti and Min (2005), with half a prompt more in each of the four cells.
    """
    if not _all_alike(groups):
        return bootstrap_mean(groups)
    mean, n = sum(groups[0]) / len(groups[0]), len(groups) + 2
    hits = mean * len(groups)
    margin = Z95 * sqrt(abs(hits) + 1 - hits**2 / n) / n
    return Estimate(mean, max(-1.0, hits / n - margin), min(1.0, hits / n + margin))


def _all_alike(groups: Groups) -> bool:
    return len({sum(group) / len(group) for group in groups}) == 1


def bootstrap_mean(groups: Groups, resamples: int = _RESAMPLES) -> Estimate:
    """The mean with a percentile interval; prompts are drawn, each with all its values (Efron 1979).

    The draws are fixed: the same values give the same interval.
    """
    sums = np.array([sum(group) for group in groups], np.float64)
    sizes = np.array([len(group) for group in groups], np.float64)
    rng = np.random.default_rng(0)
    means = np.empty(resamples)
    for start in range(0, resamples, 1000):  # in parts: the index array of all of them would be large
        stop = min(start + 1000, resamples)
        drawn = rng.integers(len(groups), size=(stop - start, len(groups)))
        means[start:stop] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(float(sums.sum() / sizes.sum()), float(low), float(high))


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value (McNemar 1947): prompts that only the one, or only the other, method hits."""
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    tail = sum(comb(discordant, k) for k in range(min(only_first, only_second) + 1))
    return float(min(1.0, 2 * tail / 2**discordant))


class JudgeError(NamedTuple):
    """A judge on labelled answers: share of harmful ones it calls harmful, of harmless ones it does not."""

    sensitivity: float
    num_harmful: int
    specificity: float
    num_harmless: int


def corrected_share(hits: float, n: int, error: JudgeError) -> Estimate | None:
    """The share of harmful answers behind what an imperfect judge says (Rogan and Gladen 1978).

    (p + specificity - 1) / (sensitivity + specificity - 1), cut to 0..1; the interval also counts that the
    judge was measured on a sample (Lang and Reiczigel 2014). None if the judge is no better than chance.
    """
    z2 = Z95**2
    youden = error.sensitivity + error.specificity - 1
    sens, n_sens = _plus_one(error.sensitivity, error.num_harmful)
    spec, n_spec = _plus_one(error.specificity, error.num_harmless)
    if youden <= 0 or sens + spec <= 1:
        return None
    p, size = (hits + z2 / 2) / (n + z2), n + z2
    centre = (p + spec - 1) / (sens + spec - 1)
    of_sens, of_spec = sens * (1 - sens) / n_sens, spec * (1 - spec) / n_spec
    shift = 2 * z2 * (centre * of_sens - (1 - centre) * of_spec)
    spread = sqrt(p * (1 - p) / size + centre**2 * of_sens + (1 - centre) ** 2 * of_spec)
    margin = Z95 * spread / (sens + spec - 1)
    value = (hits / n + error.specificity - 1) / youden
    bounds = (value, centre + shift - margin, centre + shift + margin)
    return Estimate(*(min(max(bound, 0.0), 1.0) for bound in bounds))


def _plus_one(rate: float, n: int) -> tuple[float, int]:
    """With one more success and one more failure."""
    return (n * rate + 1) / (n + 2), n + 2
