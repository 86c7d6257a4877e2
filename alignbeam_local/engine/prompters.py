"""The models that follow a conversation, draft and anchor: what each reads of it, what it has room for."""

from collections.abc import Sequence
from typing import NamedTuple

from ..config import Config
from ..errors import ContextFull, ModelError, UsageError
from ..lm.prompt_cache import PromptCache
from ..prompt.answers import answer_start
from ..prompt.encoding import encode_plain
from ..prompt.formats import fold_system
from ..prompt.message import Message
from ..roles import ModelRole
from .open_models import Model, OpenModels


class Prompter(NamedTuple):
    """One of them, under the knobs of one answer."""

    role: ModelRole
    model: Model
    config: Config
    is_unasked: bool = False  # a twin that reads no question, only what begins an answer

    @property
    def cache(self) -> PromptCache:
        """What the model holds of the last prompt."""
        return self.model.prompt

    def encode(self, turns: Sequence[Message]) -> list[int]:
        """The ids of a conversation as this model reads it, its own system prompt included.

        Behind it comes what the answer is made to begin with, if anything is.

        Raises:
            UsageError, ModelError: as `PromptFormat.encode`.
        """
        return [*self.encode_asked(turns), *prefilled(self.model, self.config)]

    def encode_asked(self, turns: Sequence[Message]) -> list[int]:
        """The same up to where an answer begins. Raises: as `encode`."""
        if self.is_unasked:
            return self._answer_start()
        return self.model.format.encode(self._read(turns), self.model.lm.vocabulary)

    def encode_alone(self, turns: Sequence[Message]) -> list[int]:
        """The same without a system prompt of ours. Raises: as `encode`."""
        return self.model.format.encode(turns, self.model.lm.vocabulary)

    def require_possible(self, turns: Sequence[Message]) -> None:
        """What no tokenising could make fit is told at once: of megabytes it takes seconds.

        Raises:
            ContextFull: even the longest tokens would be too many.
        """
        own = [] if self.is_unasked else self._read(turns)
        num_bytes = sum(len(turn.content.strip().encode()) for turn in own)
        least = max(len(own), num_bytes // self.model.lm.vocabulary.longest_piece)  # a turn has its marks
        self.require_fit(least, "at least ")

    def _read(self, turns: Sequence[Message]) -> list[Message]:
        if self.role != "anchor":
            return with_system(turns, self.config.system)
        return anchor_turns(turns, self.config)

    def _answer_start(self) -> list[int]:
        start = answer_start(self.model.format, self.model.lm.vocabulary)
        if not start:
            raise ModelError(
                f"the chat template of {self.model.card.name} writes nothing before an answer: "
                "without a question there is nothing to read",
                "Leave anchor_row = gated out, or take another anchor.",
            )
        return start

    def require_fit(self, tokens: int, about: str = "") -> None:
        """Raises: ContextFull: a prompt of so many tokens leaves no room for an answer."""
        needed = tokens + (1 if self.role == "draft" else self.config.mixed_depth)
        if needed > self.model.context:
            raise ContextFull(
                f"the conversation needs {about}{needed} tokens of the {self.role}, "
                f"its context holds {self.model.context}",
                "Shorten it, or raise --context as far as the model allows.",
            )


def prompters(models: OpenModels, config: Config) -> list[Prompter]:
    """The draft's, each anchor's where tokens are mixed, then those of their twins, if these are asked."""
    anchors = models.anchors if config.depth > 0 else ()
    twins = [anchor.twin for anchor in anchors if anchor.twin and config.is_gated]
    return [
        draft_prompter(models, config),
        *(Prompter("anchor", anchor.model, config) for anchor in anchors),
        *(Prompter("anchor", twin, config, is_unasked=True) for twin in twins),
    ]


def prefilled(model: Model, config: Config) -> list[int]:
    """What an answer is made to begin with, as this model would say it: never a control token.

    Raises:
        UsageError: it reasons before its answer.
    """
    if not config.prefill:
        return []
    if model.format.thinking == "thinks":
        raise UsageError(
            f"{model.card.name} reasons before it answers: its answer can't be made to begin with a text",
            "Leave --prefill out.",
        )
    space = " " if model.format.strips_leading_space else ""
    return encode_plain(space + config.prefill, model.lm.vocabulary)


def draft_prompter(models: OpenModels, config: Config) -> Prompter:
    """How the draft reads a conversation."""
    return Prompter("draft", models.draft, config)


def with_system(messages: Sequence[Message], system: str | None) -> list[Message]:
    """The conversation, led by the `system` knob where it has no system turn of its own."""
    turns = list(messages)
    if system is None or any(turn.role == "system" for turn in turns):
        return turns
    return [Message("system", system), *turns]


def anchor_turns(turns: Sequence[Message], config: Config) -> list[Message]:
    """What the anchor reads: the `system` knob can jailbreak it too, so it gets its own, or none.

    System turns that a conversation brings are part of what is asked: they lead the user turn behind them.
    """
    if config.anchor_system == "same":
        return with_system(turns, config.system)
    asked = fold_system(turns)
    return asked if config.anchor_system == "none" else [Message("system", config.anchor_system), *asked]
