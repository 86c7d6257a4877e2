"""What the opened models hold, taken out of their caches and put back into other ones."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from ..config import Config
from ..errors import ContextFull, ModelError
from ..lm.language_model import SequenceState
from ..lm.prompt_cache import PromptCache, SavedPrompt
from ..prompt.formats import Message
from .open_models import Parts
from .prompters import Follower, followers
from .read_ahead import known_of_next

log = logging.getLogger(__name__)


class Snapshot(NamedTuple):
    """The prompts of draft and anchor, and what the judge reads before every request."""

    draft: SavedPrompt | None = None
    anchor: SavedPrompt | None = None
    judge: tuple[SequenceState, ...] = ()


def take(parts: Parts) -> Snapshot:
    """Copy what the models hold.

    Raises:
        ModelError: the backend failed.
    """
    return Snapshot(
        parts.draft_prompt.save(),
        parts.anchor_prompt.save() if parts.anchor else None,
        tuple(parts.judge.save_prefixes()) if parts.judge else (),
    )


def take_of(parts: Parts, turns: Sequence[Message], config: Config) -> Snapshot:
    """Copy what draft and anchor hold of this conversation; what they hold of others is left out.

    Raises:
        ModelError: the backend failed.
    """
    held = {follower.role: _saved_of(follower, turns) for follower in followers(parts, config)}
    return Snapshot(held.get("draft"), held.get("anchor"))


def _saved_of(follower: Follower, turns: Sequence[Message]) -> SavedPrompt | None:
    saved = follower.cache.save()
    own = tuple(known_of_next(follower, turns)), tuple(follower.encode(turns[:-1]))
    texts = (saved.prompt, *(state.tokens for state in saved.states)) if saved else ()
    return saved if all(any(ids[: len(text)] == text for ids in own) for text in texts) else None


def put_back(parts: Parts, snapshot: Snapshot) -> bool:
    """Let the models hold it again; False if any of it is another model's: that will be read anew."""
    fits = [_load(parts.draft_prompt, snapshot.draft)]
    fits.append(_load(parts.anchor_prompt if parts.anchor else None, snapshot.anchor))
    if parts.judge is not None:
        with suppress(ModelError, ContextFull):  # then they are read anew
            parts.judge.load_prefixes(snapshot.judge)
    return all(fits)


def _load(cache: PromptCache | None, saved: SavedPrompt | None) -> bool:
    if cache is None or saved is None:
        return True
    try:
        cache.load(saved)
    except (ModelError, ContextFull) as error:
        log.info("not taken up: %s", error)
        return False
    return True
