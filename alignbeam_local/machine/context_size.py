"""How many sequences and cells each role's context must hold, told from the knobs."""

from typing import NamedTuple

from ..config import Config
from ..lm.sequences import BATCH_TOKENS, answer_sequences, judge_sequences
from ..roles import reader_role, twin_role

#: What an answer takes more while its head reads it: the token that ends its turn, with room.
_ENDS = 4
#: What a request's reader holds at once: it whole, and parts of it beside.
_READ_AT_ONCE = 9
#: What the judge's rubrics and examples take.
_PREFIX_CELLS = 3072


class ContextSize(NamedTuple):
    """What a role's context must hold: cells if forks share them, and if every fork is a copy."""

    num_sequences: int
    shared_cells: int
    copied_cells: int

    def times(self, num_answers: int) -> "ContextSize":
        """For so many answers at once."""
        return ContextSize(*(num_answers * size for size in self))

    def holds(self, other: "ContextSize") -> bool:
        """Whether a context of this size serves where the other is needed."""
        return self.num_sequences >= other.num_sequences and self.shared_cells >= other.shared_cells


def context_sizes(config: Config) -> dict[str, ContextSize]:
    """What each role that these knobs need must hold."""
    sequences = answer_sequences(config.beams)
    copied = sequences * config.context
    ends = config.beams * _ENDS if config.needs_answer_head else 0
    draft = ContextSize(
        sequences, config.context + (config.beams - 1) * _longest(config) + ends, copied + ends
    )
    # An anchor reads text: one draft token may be several of its own.
    read = config.beams * (64 + 16 * config.longest_prefix)
    # To steer an answer back it reads all that had been said.
    said = 2 * _longest(config) if config.late != "off" else 0
    anchor = ContextSize(sequences, config.context + read + said, copied)
    followers = {role: draft if role == "draft" else anchor for role in config.roles if role != "judge"}
    if config.is_gated:
        followers |= {twin_role(role): anchor for role in config.anchor_roles}
    if config.reads_request:
        followers |= {reader_role(role): reader_context_size(config) for role in config.anchor_roles}
    every = {role: size.times(config.parallel) for role, size in followers.items()}
    return every | ({"judge": judge_context_size(config)} if "judge" in config.roles else {})


def reader_context_size(config: Config) -> ContextSize:
    """A conversation, and parts of its request beside it; forks are of what all prompts begin with."""
    shared = config.context + BATCH_TOKENS
    return ContextSize(_READ_AT_ONCE, shared, shared + BATCH_TOKENS)


def judge_context_size(config: Config) -> ContextSize:
    """Two prefixes and the request once, each answer beside them, and a spare sequence for windows."""
    sequences, prompt = judge_sequences(config.beams), _PREFIX_CELLS + config.context
    answers = config.beams * (2 * _longest(config) + 64)
    return ContextSize(sequences, prompt + answers, sequences * prompt)


def larger(opened: dict[str, ContextSize], wanted: dict[str, ContextSize]) -> dict[str, ContextSize]:
    """Sizes that serve for both."""
    both = {role: (opened.get(role, size), size) for role, size in wanted.items()}
    return opened | {role: ContextSize(*map(max, *pair)) for role, pair in both.items()}


def _longest(config: Config) -> int:
    """No answer is longer than its context."""
    return min(config.max_tokens, config.context)
