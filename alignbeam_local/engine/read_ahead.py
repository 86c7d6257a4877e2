"""Reads what the next answer needs before its question is there."""

from collections.abc import Sequence

from ..config import Config
from ..lm.prefix_store import PrefixStore
from ..prompt.formats import Message, shared_prefix
from .open_models import Parts
from .prompters import Follower, followers

#: Tokens: a chat template's own few are not worth a file.
_WORTH_KEEPING = 64


def read_ahead(parts: Parts, turns: Sequence[Message], config: Config) -> None:
    """Let draft and anchor hold what is known of the next prompt, if it fits, and the judge its examples.

    Of a conversation without turns the models read nothing yet.

    Raises:
        Cancelled, ContextFull, ModelError: what was read until then is held.
    """
    for follower in followers(parts, config) if turns else ():
        ids = known_of_next(follower, turns)
        if len(ids) < follower.model.context:
            follower.cache.read_ahead(ids, prompt=follower.encode(turns[:-1]))
    if parts.judge:
        parts.judge.read_prefixes()


def read_beginning(follower: Follower, store: PrefixStore) -> None:
    """Let a model that holds nothing yet hold what a conversation begins with: as kept, or read and kept.

    Raises:
        Cancelled, ContextFull, ModelError: as the model's `extend`.
    """
    ids = known_of_next(follower, ())
    if _WORTH_KEEPING <= len(ids) < follower.model.context:
        follower.cache.begin(ids, store)


def known_of_next(follower: Follower, turns: Sequence[Message]) -> list[int]:
    """The ids that the next prompt begins with, whatever the user asks: templates may rewrite old turns."""
    return shared_prefix(lambda text: follower.encode([*turns, Message("user", text)]))
