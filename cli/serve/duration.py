"""A duration as a person writes it: 90, 90s, 10m, 2h."""

import re

from alignbeam_local.errors import UsageError

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_MOST = 1e7


def seconds(text: str | None, flag: str) -> float | None:
    """How long that is. Raises: UsageError: it is no duration, or not over 0."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip(), re.ASCII)
    value = float(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < value <= _MOST:
        raise UsageError(f"{flag} {text}: not a duration", "Write for example 90s, 10m or 2h.")
    return value
