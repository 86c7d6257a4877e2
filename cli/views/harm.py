"""A harm score beside the limit that it is compared with, in figures."""

_MOST_DIGITS = 17


def harm_text(score: float | None, threshold: float | None, digits: int, missing: str) -> str:
    """A score with at least so many decimals, and as many as it takes to stay on its side of the threshold.

    `missing` stands for a score that there is none of.
    """
    if score is None:
        return missing
    texts = (f"{score:.{places}f}" for places in range(digits, _MOST_DIGITS + 1))
    if threshold is None:
        return next(texts)
    return next((text for text in texts if (float(text) > threshold) == (score > threshold)), repr(score))


def limit_text(threshold: float) -> str:
    """A threshold with all its digits."""
    return f"{threshold:.15g}"
