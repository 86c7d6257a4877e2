"""Reads the rest of an answer before the next question is there, as that question's prompt will have it."""

from collections.abc import Sequence

from .config import Config
from .followers import Follower, followers
from .parts import Parts
from .prompt import Message, shared_prefix


def read_ahead(parts: Parts, turns: Sequence[Message], config: Config) -> None:
    """Let both models hold all that is known of the prompt after an answer, unless it does not fit.

    Raises:
        Cancelled, ContextFull, ModelError: what was read until then is held.
    """
    for follower in followers(parts, config):
        ids = known_of_next(follower, turns)
        if len(ids) < follower.model.context:
            follower.cache.read_ahead(ids, prompt=follower.encode(turns[:-1]))


def known_of_next(follower: Follower, turns: Sequence[Message]) -> list[int]:
    """The ids that the next prompt begins with, whatever the user asks: templates may rewrite old turns."""
    return shared_prefix(lambda text: follower.encode([*turns, Message("user", text)]))
