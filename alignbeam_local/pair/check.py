"""Does what the anchor says of a refusal reach the draft at all? Asked before a pair answers anything."""

from collections.abc import Iterator

from ..errors import ModelError
from ..events import Notice
from ..search.bridge import Bridge
from ..search.mixing import UNMAPPED

#: How aligned models begin: if these words don't cross, the anchor can't be heard.
OPENERS = (
    "I'm sorry, but I can't assist with that.",
    "I cannot help you with this request. It is illegal and unethical to harm other people.",
    "As an AI language model, I must decline. Sure, here is an answer to your question:",
    "The first step is to understand what you need. If you are in danger, please contact the police.",
)
HOPELESS, POOR = 0.5, 0.8


def single_share(bridge: Bridge) -> float:
    """The share of the anchor's tokens in usual openings that are one token of the draft's."""
    tokens = [token for text in OPENERS for token in bridge.anchor.encode(text)]
    return sum(bridge.landing(token).single != UNMAPPED for token in tokens) / max(len(tokens), 1)


def check_pair(bridge: Bridge, *, force: bool) -> Iterator[Notice]:
    """Warn of a poor bridge, refuse a hopeless one.

    Raises:
        ModelError: fewer than half of the tokens cross, or no end of turn does; unless forced.
    """
    share = single_share(bridge)
    problem = f"only {share:.0%} of the anchor's usual tokens are single tokens of the draft's"
    if bridge.turn_end is None:
        share, problem = 0.0, "the draft's vocabulary has no token that ends a turn"
    if share < HOPELESS and not force:
        raise ModelError(
            f"the anchor can't steer this draft: {problem}",
            "See `alignbeam bridge DRAFT ANCHOR`; take another anchor, or --force it.",
        )
    if share < POOR:
        yield Notice(f"weak bridge: {problem}")
