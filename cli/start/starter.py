"""The profile that nobody chose: small enough to run anywhere, and no more."""

import sys
from contextlib import suppress

from alignbeam_local.paths import cache_dir, ensure_dir
from alignbeam_local.settings import SourcedConfig

from ..console.terminal import is_terminal, say

STARTER = "starter"
TOY = (
    "the starter profile is a toy for trying the mechanics: its answers are not worth much. "
    "`alignbeam start` leads to a chat with a model file of your own."
)


def is_toy(settings: SourcedConfig) -> bool:
    """Whether the starter's draft answers, only because nobody named another."""
    profile, draft = settings.given.get("profile"), settings.given.get("draft")
    if profile is None or draft is None or profile.explicit or draft.explicit:
        return False
    return bool(profile.value == STARTER)


def tell_toy_once(settings: SourcedConfig) -> None:
    """On a terminal, the first time ever: where it can't be kept that it was told, it is told again."""
    told = cache_dir() / "told-starter"
    if not is_toy(settings) or told.exists() or not is_terminal(sys.stderr):
        return
    say(f"note: {TOY}")
    with suppress(OSError):
        ensure_dir(told.parent)
        told.touch(mode=0o600)
