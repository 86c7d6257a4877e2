"""Reads what the next answer needs before its question is there."""

from collections.abc import Sequence

from ..config import Config
from ..lm.prefix_store import PrefixStore
from ..prompt.formats import shared_prefix
from ..prompt.message import Message
from .open_models import OpenModels
from .prompters import Prompter, prompters

#: Tokens: a chat template's own few are not worth a file.
_WORTH_KEEPING = 64


def read_ahead(models: OpenModels, turns: Sequence[Message], config: Config) -> None:
    """Let draft and anchor hold what is known of the next prompt, if it fits.

    Of a conversation without turns the models read nothing yet.

    Raises:
        Cancelled, ContextFull, ModelError: what was read until then is held.
    """
    for prompter in prompters(models, config) if turns else ():
        ids = known_of_next(prompter, turns)
        if len(ids) < prompter.model.context:
            prompter.cache.read_ahead(ids, prompt=prompter.encode(turns[:-1]))


def read_beginning(prompter: Prompter, store: PrefixStore) -> None:
    """Let a model that holds nothing yet hold what a conversation begins with: as kept, or read and kept.

    Raises:
        Cancelled, ContextFull, ModelError: as the model's `extend`.
    """
    ids = known_of_next(prompter, ())
    if _WORTH_KEEPING <= len(ids) < prompter.model.context:
        prompter.cache.begin(ids, store)


def known_of_next(prompter: Prompter, turns: Sequence[Message]) -> list[int]:
    """The ids that the next prompt begins with, whatever the user asks: templates may rewrite old turns."""
    return shared_prefix(lambda text: prompter.encode([*turns, Message("user", text)]))
