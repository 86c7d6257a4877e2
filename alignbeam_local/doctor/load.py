"""How much of the processors other programs take: what is left is what an answer can have."""

import psutil

from ..config import Config
from ..llama.library import default_threads
from .findings import Finding

#: Of the processors: with less taken by others an answer is hardly slower.
_MUCH = 0.25


def load(config: Config, usable: int) -> Finding:
    """What ran in the last minute, against the processors that this process may use.

    Args:
        usable: how many processors that are.
    """
    busy, threads = psutil.getloadavg()[0], config.threads or default_threads()
    details = {"load": busy, "usable": usable, "threads": threads}
    message = f"{busy:.1f} of {usable} processors were busy in the last minute"
    if busy < _MUCH * usable:
        return Finding("load", "ok", message, details=details)
    hint = "Close what runs beside it, or wait; fewer --threads do not help."
    return Finding("load", "warning", f"{message}: answers take longer", hint, details)
