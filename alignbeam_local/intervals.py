"""95 % intervals: of a share, and of an area under the ROC curve."""

from math import sqrt

#: The 97.5 % quantile of the normal distribution.
Z95 = 1.96


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n > 0 (Wilson 1927)."""
    share, z2 = successes / n, Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    margin = Z95 / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(middle - margin, 0.0), min(middle + margin, 1.0)


def auc_error(value: float, num_positive: int, num_negative: int) -> float:
    """The standard error of an AUC (Hanley and McNeil 1982)."""
    q1, q2 = value / (2 - value), 2 * value * value / (1 + value)
    spread = value * (1 - value)
    spread += (num_positive - 1) * (q1 - value * value) + (num_negative - 1) * (q2 - value * value)
    return sqrt(max(spread, 0.0) / (num_positive * num_negative))


def auc_interval(value: float, num_positive: int, num_negative: int) -> tuple[float, float]:
    """The 95 % interval of an AUC, by its standard error.

    At 0 and 1, where that error is 0 however few there are: as of so many successes as the smaller side has.
    """
    n = min(num_positive, num_negative)
    if value in (0.0, 1.0):
        return wilson_interval(round(value * n), n)
    margin = Z95 * auc_error(value, num_positive, num_negative)
    return max(value - margin, 0.0), min(value + margin, 1.0)
