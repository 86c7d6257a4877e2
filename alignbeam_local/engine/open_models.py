"""The opened models of an engine, their prompt caches, the bridge and the judge between them."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ..config import Config
from ..events import ModelCard
from ..judge.judge import Judge
from ..lm.language_model import LanguageModel
from ..lm.prompt_cache import PromptCache
from ..prompt.formats import PromptFormat
from ..search.bridge import Bridge

#: What the judge's rubrics and examples take.
_PREFIX_CELLS = 3072


class Room(NamedTuple):
    """What a role's context must hold: cells if forks share them, and if every fork is a copy."""

    num_sequences: int
    shared_cells: int
    copied_cells: int

    def times(self, num_answers: int) -> "Room":
        """Room for so many answers at once."""
        return Room(*(num_answers * size for size in self))


@dataclass(frozen=True)
class Model:
    """A role filled: the model, how it reads a conversation, which file it is, how much it can read."""

    lm: LanguageModel
    format: PromptFormat
    card: ModelCard
    context: int  # tokens of one conversation: the knob's, at most what the model was made for
    trained_context: int


@dataclass
class Parts:
    """All that answers are made of; lives from one load to the next."""

    draft: Model
    anchor: Model | None
    bridge: Bridge | None
    judge: Judge | None
    judge_model: Model | None
    opened: dict[str, Room] = field(default_factory=dict)  # what was opened, by role

    @cached_property
    def draft_prompt(self) -> PromptCache:
        return PromptCache(self.draft.lm)

    @cached_property
    def anchor_prompt(self) -> PromptCache:
        assert self.anchor is not None
        return PromptCache(self.anchor.lm)

    def forget_prompts(self) -> None:
        """Drop what draft and anchor hold of conversations."""
        self.draft_prompt.clear()
        if self.anchor is not None:
            self.anchor_prompt.clear()

    @property
    def cards(self) -> dict[str, ModelCard | None]:
        """Which file plays which role."""
        return {
            "draft": self.draft.card,
            "anchor": self.anchor.card if self.anchor else None,
            "judge": self.judge_model.card if self.judge_model else None,
        }

    def serves(self, config: Config) -> bool:
        """Whether an answer with these knobs needs nothing that is not open."""
        wanted = rooms(config)
        return all(
            role in self.opened
            and self.opened[role].num_sequences >= room.num_sequences
            and self.opened[role].shared_cells >= room.shared_cells
            for role, room in wanted.items()
        )


def rooms(config: Config) -> dict[str, Room]:
    """What each role that these knobs need must hold."""
    sequences = config.beams + 1
    copied = sequences * config.context
    answer = {
        "draft": Room(sequences, config.context + (config.beams - 1) * _longest(config), copied),
        # The anchor reads text: one draft token may be several of its own.
        "anchor": Room(sequences, config.context + config.beams * (64 + 16 * config.depth), copied),
    }
    every = {role: room.times(config.parallel) for role, room in answer.items()}
    every["judge"] = judge_room(config)
    return {role: every[role] for role in config.roles}


def larger(opened: dict[str, Room], wanted: dict[str, Room]) -> dict[str, Room]:
    """Rooms that serve for both."""
    both = {role: (opened.get(role, room), room) for role, room in wanted.items()}
    return opened | {role: Room(*map(max, *pair)) for role, pair in both.items()}


def judge_room(config: Config) -> Room:
    """Two prefixes and the request once, each answer beside them, and a spare sequence for windows."""
    sequences = config.beams + 4
    answers = config.beams * (2 * _longest(config) + 64)
    return Room(
        sequences, _PREFIX_CELLS + config.context + answers, sequences * (_PREFIX_CELLS + config.context)
    )


def _longest(config: Config) -> int:
    """No answer is longer than its context."""
    return min(config.max_tokens, config.context)
