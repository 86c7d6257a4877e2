"""The anchors of one answer: what each reads of every beam, and what it says there."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from ..errors import ContextFull
from ..lm.language_model import LanguageModel, Logits
from ..lm.sequences import PROMPT
from ..lm.vocabulary import Vocabulary
from .beam import Beam
from .bridge import Bridge
from .position.gated import Gate, Said
from .position.refusing import refusing_mass


class BridgedAnchor(NamedTuple):
    """A model that lends its first tokens, and the bridge that carries them to the draft.

    `twin` is the same model behind another prompt; `context` is how many tokens it was made to read, if that
    is known.
    """

    lm: LanguageModel
    bridge: Bridge
    role: str = "anchor"
    weight: float = 1.0
    twin: LanguageModel | None = None
    context: int | None = None

    @property
    def lms(self) -> tuple[LanguageModel, ...]:
        """Its own, then its twin's."""
        return (self.lm,) if self.twin is None else (self.lm, self.twin)


class Anchors:
    """They follow text: a beam's bytes are encoded again in each one's vocabulary."""

    def __init__(self, anchors: Sequence[BridgedAnchor], gate: Gate | None = None) -> None:
        """`gate` mixes an anchor's row with its twin's, where they have twins."""
        self.all = tuple(anchors)
        self._gate = gate
        #: Those that are mixed in, by their numbers: all, or the strictest.
        self.used = list(range(len(anchors)))
        #: How much of each one's row after the prompt begins a refusal, where there are several.
        self.refuses: list[float] = []
        self._prompts: Sequence[Sequence[Sequence[int]]] = ()  # by anchor its own, then its twin's

    def __len__(self) -> int:
        return len(self.all)

    @property
    def followed(self) -> list[BridgedAnchor]:
        """Those that are mixed in."""
        return [self.all[number] for number in self.used]

    @property
    def vocabularies(self) -> list[tuple[str, Vocabulary]]:
        """Of those that are mixed in, with their roles."""
        return [(anchor.role, anchor.lm.vocabulary) for anchor in self.followed]

    def hear(self, rows: Sequence[Logits], draft_row: Logits, *, only_strictest: bool) -> list[Said]:
        """What counts of the rows after the prompts: each anchor's, then each twin's, if they have any.

        `draft_row` is the draft's there. `only_strictest`: from here on one is mixed in alone, whose row most
        begins a refusal.
        """
        if not rows:
            return []
        count = len(self)
        said = [self._said(a, rows[at::count], draft_row, 0) for at, a in enumerate(self.all)]
        if count > 1:
            each = zip(said, self.all, strict=True)
            self.refuses = [refusing_mass(own.row, anchor.lm.vocabulary) for own, anchor in each]
            if only_strictest:
                self.used = [int(np.argmax(self.refuses))]
        return [said[number] for number in self.used]

    def fork(self, sequences: Sequence[int]) -> None:
        """Let the beams begin at the prompts."""
        for lm in (lm for anchor in self.followed for lm in anchor.lms):
            lm.fork(PROMPT, sequences)

    def read_prompts(self, prompts: Sequence[Sequence[int]]) -> None:
        """What stands before all beams: each anchor's prompt, then each twin's, if they have any."""
        self._prompts = [prompts[number :: len(self)] for number in range(len(self))]

    def require_room(self, beams: Iterable[Beam], more: int = 0) -> None:
        """Their caches may hold more than the anchors were made to read: behind that they say anything.

        Raises:
            ContextFull: one can't read a beam's text and so many tokens more.
        """
        for beam, number in product(beams, self.used):
            anchor = self.all[number]
            needed = max(map(len, self._prompts[number])) + len(_answer(anchor, beam)) + more
            if anchor.context is not None and needed > anchor.context:
                raise ContextFull(
                    f"the answer so far needs {needed} tokens of the {anchor.role}, "
                    f"which was made for {anchor.context}"
                )

    def follow(self, beams: Sequence[Beam]) -> None:
        """Read these beams' text so far, which ends in no character."""
        for number in self.used:
            anchor, prompts = self.all[number], self._prompts[number]
            answers = {beam.sequence: _answer(anchor, beam) for beam in beams}
            for lm, prompt in zip(anchor.lms, prompts, strict=True) if beams else ():
                lm.set_tokens({sequence: [*prompt, *answer] for sequence, answer in answers.items()})

    def rows(self, beam: Beam, draft_row: Logits) -> list[Said]:
        """What counts of the rows behind a beam that was followed; `draft_row` is the draft's there."""
        return [
            self._said(a, [lm.logits(beam.sequence) for lm in a.lms], draft_row, len(beam.tokens))
            for a in self.followed
        ]

    def _said(self, anchor: BridgedAnchor, rows: Sequence[Logits], draft_row: Logits, position: int) -> Said:
        """Its own row, by the gate mixed with its twin's if there is one."""
        if self._gate is None:
            return Said(rows[0])
        own, twin = rows
        return self._gate.said(own, twin, anchor.bridge, draft_row, position)


def _answer(anchor: BridgedAnchor, beam: Beam) -> list[int]:
    """What a beam has said so far, in the anchor's vocabulary."""
    return list(anchor.lm.vocabulary.encode(beam.raw.decode("utf-8", "replace")))
