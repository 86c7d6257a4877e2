"""What the opened models hold, taken out of their caches and put back into other ones."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from ..config import Config
from ..errors import ContextFull, ModelError
from ..lm.language_model import SequenceState
from ..lm.prompt_cache import PromptCache, SavedPrompt
from ..prompt.message import Message
from .open_models import OpenModels
from .prompters import Prompter, prompters
from .read_ahead import known_of_next

log = logging.getLogger(__name__)


class Snapshot(NamedTuple):
    """The prompts of draft and anchors, in that order, and what the judge reads before every request."""

    prompts: tuple[SavedPrompt | None, ...] = ()
    judge: tuple[SequenceState, ...] = ()

    @property
    def num_bytes(self) -> int:
        """What it takes of this machine's memory."""
        saved = [prompt for prompt in self.prompts if prompt is not None]
        states = [*self.judge, *(state for prompt in saved for state in prompt.states)]
        rows = [row for row in (*(s.logits for s in states), *(p.row for p in saved)) if row is not None]
        return sum(len(state.blob) for state in states) + sum(row.nbytes for row in rows)


def capture(models: OpenModels) -> Snapshot:
    """Copy what the models hold.

    Raises:
        ModelError: the backend failed.
    """
    return Snapshot(
        tuple(model.prompt.save() for model in models.followers),
        tuple(models.judge.save_prefixes()) if models.judge else (),
    )


def capture_conversation(models: OpenModels, turns: Sequence[Message], config: Config) -> Snapshot:
    """Copy what draft and anchor hold of this conversation; what they hold of others is left out.

    Raises:
        ModelError: the backend failed.
    """
    return Snapshot(tuple(_saved_of(prompter, turns) for prompter in prompters(models, config)))


def _saved_of(prompter: Prompter, turns: Sequence[Message]) -> SavedPrompt | None:
    saved = prompter.cache.save()
    own = tuple(known_of_next(prompter, turns)), tuple(prompter.encode(turns[:-1]))
    texts = (saved.prompt, *(state.tokens for state in saved.states)) if saved else ()
    return saved if all(any(ids[: len(text)] == text for ids in own) for text in texts) else None


def restore(models: OpenModels, snapshot: Snapshot) -> bool:
    """Let the models hold it again; False if any of it is another model's: that will be read anew."""
    held = zip(models.followers, snapshot.prompts, strict=False)
    fits = [_load(model.prompt, saved) for model, saved in held]
    if models.judge is not None:
        with suppress(ModelError, ContextFull):  # then they are read anew
            models.judge.load_prefixes(snapshot.judge)
    return all(fits)


def _load(cache: PromptCache, saved: SavedPrompt | None) -> bool:
    if saved is None:
        return True
    try:
        cache.load(saved)
    except (ModelError, ContextFull) as error:
        log.info("not taken up: %s", error)
        return False
    return True
