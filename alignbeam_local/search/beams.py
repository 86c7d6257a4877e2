"""The three phases (paper, section 3): start K beams, extend them mixed, complete them by the draft alone.

In every model the prompt is one sequence and each beam another (`lm.sequences`); every step of all beams is
one decode a model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..config import Config
from ..events import Event
from ..lm.language_model import LanguageModel, Logits, Sampler, SamplerSettings
from ..lm.sequences import PROMPT
from ..lm.vocabulary import is_unfinished
from ..prompt.text_stream import TextStream
from ..result import AnchorResult
from .anchors import Anchors, BridgedAnchor
from .beam import Beam
from .mixer import MixedRow, Mixer
from .mixing import Ids, top_tokens
from .position.alpha import Weight, weight_of
from .position.gated import Gate, Said
from .position.prefix import Prefix
from .safety_tokens import UNCHANGED, SafetyTokens
from .trace import traced

#: In place of a probability of 0, whose logarithm is no number.
_LEAST = 1e-300
#: The same where a token is none of the anchor's likeliest: its own probability is not known.
_LEAST_LANDED = 1e-9


class Start(NamedTuple):
    """How the mixed start of one beam goes on: the anchors' weight, and how far it is mixed."""

    weight: Weight
    prefix: Prefix

    def fork(self) -> "Start":
        """The same for another beam that begins likewise."""
        return Start(self.weight.fork(), self.prefix.fork())


class BeamSearch:
    """K beams over a draft and the anchors that its first tokens are mixed with."""

    def __init__(
        self,
        draft: LanguageModel,
        anchors: Sequence[BridgedAnchor],
        config: Config,
        *,
        max_tokens: int,
        stop_strings: Sequence[str] = (),
        strip_leading_space: bool = False,
        grammar: str = "",
        safety: SafetyTokens = UNCHANGED,
        gate_tokens: Sequence[int] = (),
    ) -> None:
        """`anchors` are none where nothing is mixed; `max_tokens` is the longest answer that fits.

        A `grammar` (GBNF) says which tokens may come, mixed ones too. What `safety` does to the draft's rows
        is done before anything is mixed or drawn. `gate_tokens` are what a gate goes by, if there is one.
        """
        self.draft = draft
        self.anchors = Anchors(anchors, Gate(gate_tokens, config) if config.is_gated else None)
        self.config = config
        self.max_tokens = max_tokens
        self.beams: list[Beam] = []
        self._mixer = Mixer([a.bridge for a in anchors], config, [a.weight for a in anchors])
        self.count = self._mixer.count
        self._starts_of: dict[int, Start] = {}
        self._stop_strings = stop_strings
        self._strip_leading_space = strip_leading_space
        self._grammar = grammar
        self._safety = safety

    @property
    def active(self) -> list[Beam]:
        return [beam for beam in self.beams if beam.finish is None]

    @property
    def anchor_results(self) -> tuple[AnchorResult, ...]:
        """What each of several anchors did; nothing where there is one, or none was asked."""
        each = zip(self.anchors.all, self.anchors.refuses, self._mixer.counts, strict=False)
        return tuple(
            AnchorResult(anchor.role, anchor.weight, refuses, count.steps > 0, count.result)
            for anchor, refuses, count in each
        )

    # --- phases 1 and 2

    def start(self, draft_row: Logits, anchor_rows: Sequence[Logits]) -> Iterator[Event]:
        """Phase 1: the K most probable tokens of the mixture after the prompts start the beams.

        `anchor_rows` are those of each anchor, then those of their twins, if they have any.
        """
        begun = Start(weight_of(self.config), Prefix(self.config))
        draft_row = self._safety.changed(draft_row)
        said = self.anchors.hear(anchor_rows, draft_row, only_strictest=self.config.anchors == "strictest")
        self._mixer.use_only(self.anchors.used)
        row = self._accepted(self._mixed(draft_row, said, begun.weight))
        self._note(begun.prefix, row)
        starts = self._starts(row)
        self.beams = [Beam(i, self._stream()) for i in range(len(starts))]
        self._starts_of = {beam.index: begun.fork() for beam in self.beams}
        sequences = [beam.sequence for beam in self.beams]
        self.draft.fork(PROMPT, sequences)
        if self.config.mixed_depth > 1 or self.config.late != "off":  # steered back, they read more
            self.anchors.fork(sequences)
        for beam, token in zip(self.beams, starts, strict=True):
            yield from self._take(beam, int(token), row)

    def _mixed(self, draft_row: Logits, said: Sequence[Said], weight: Weight, position: int = 0) -> MixedRow:
        """Eq. 1 at one position, and by which gates the anchors' rows came about."""
        row = self._mixer.mix(draft_row, [one.row for one in said], weight, position)
        return row._replace(gates=tuple(one.gate for one in said if one.gate is not None))

    def _note(self, prefix: Prefix, row: MixedRow) -> None:
        if self.config.prefix == "adaptive" and row.anchor is not None:
            prefix.note(row.draft_choice, row.anchor_choice, row.anchor_mass)
        else:
            prefix.note_plain()

    def _starts(self, row: MixedRow) -> Ids:
        if row.is_mixed:
            return row.mixture.tokens[: self.config.beams]
        if self.config.depth > 0 and row.anchor is None:
            self._mixer.count_unmixed()
        likeliest = top_tokens(row.draft_row, self.config.beams, row.draft_normaliser).tokens
        return likeliest[np.isfinite(row.draft_row[likeliest])]

    def _accepted(self, row: MixedRow, beam: Beam | None = None) -> MixedRow:
        """The row with nothing in it but what the grammar accepts next, at the beginning or in a beam.

        Raises:
            UsageError: it accepts no token.
        """
        if not self._grammar:
            return row
        if beam is not None:
            return row.among(self._sampler(beam).allowed(row.draft_row))
        sampler = self._new_sampler(0)
        try:
            return row.among(sampler.allowed(row.draft_row))
        finally:
            sampler.close()

    def extend(self, anchor_prompts: Sequence[Sequence[int]], *, steps: int | None = None) -> Iterator[Event]:
        """Phase 2: the mixed start of each beam goes on, each token the argmax of its mixture.

        `anchor_prompts` are those of each anchor, then those of their twins, if they have any. With `steps`
        beams are mixed again where they stand, for at least so many tokens, with the whole alpha.

        Raises:
            ContextFull: an anchor holds no more; where beams are mixed again, it was not made to read more.
        """
        self.anchors.read_prompts(anchor_prompts)
        if steps is not None:
            for beam in self.active:
                again = Start(weight_of(self.config, steps), Prefix(self.config, steps))
                self._starts_of[beam.index] = again
        while mixing := self._mixing():
            if steps is not None:
                self.anchors.require_room(mixing)
            yield from self._extend(mixing)

    def _mixing(self) -> list[Beam]:
        """The beams whose next token is mixed."""
        return [beam for beam in self.active if self._starts_of[beam.index].prefix.goes_on]

    def _extend(self, mixing: Sequence[Beam]) -> Iterator[Event]:
        """One mixed token more for each of these beams."""
        self.draft.extend({beam.sequence: beam.tokens[-1:] for beam in mixing})
        asked = [beam for beam in mixing if not is_unfinished(beam.raw)]
        self.anchors.follow(asked)
        for beam in mixing:
            self._safety.change(self.draft, beam.sequence, len(beam.tokens))
            start, draft_row = self._starts_of[beam.index], self.draft.logits(beam.sequence)
            said = self.anchors.rows(beam, draft_row) if beam in asked else []
            row = self._accepted(self._mixed(draft_row, said, start.weight, start.prefix.count), beam)
            self._note(start.prefix, row)
            if row.anchor is None:
                self._mixer.count_unmixed()
            yield from self._take(beam, row.best, row)

    def _take(self, beam: Beam, token: int, row: MixedRow) -> Iterator[Event]:
        """Append a token chosen in phase 1 or 2."""
        p_draft = self._mixer.draft_probability(row, token)
        _note_probabilities(beam, token, row, p_draft)
        if self.config.depth > 0:
            anchors = self.anchors.vocabularies
            step = traced(beam, token, row, p_draft, draft=self.draft.vocabulary, anchors=anchors)
            if step.steered and beam.steered_at is None:
                beam.steered_at = beam.stream.position
            yield step
        if beam.sampler is not None:
            beam.sampler.accept(token)
        yield from self._append(beam, token, mixed=row.is_mixed)

    # --- phase 3

    def complete(self, until: int | None = None) -> Iterator[Event]:
        """Phase 3: the draft alone samples on, to each beam's end or until it holds `until` tokens."""
        limit = self.max_tokens if until is None else min(until, self.max_tokens)
        while active := [beam for beam in self.active if len(beam.tokens) < limit]:
            self.draft.extend({beam.sequence: beam.tokens[-1:] for beam in active})
            for beam in active:
                self._safety.change(self.draft, beam.sequence, len(beam.tokens))
                yield from self._append(beam, self._sampler(beam).sample(beam.sequence), mixed=False)

    def _sampler(self, beam: Beam) -> Sampler:
        if beam.sampler is None:
            beam.sampler = self._new_sampler(beam.index)
            for token in beam.tokens:
                beam.sampler.accept(token)
        return beam.sampler

    def _new_sampler(self, index: int) -> Sampler:
        settings = SamplerSettings.of(self.config, self.max_tokens, index)
        return self.draft.sampler(replace(settings, grammar=self._grammar))

    def _append(self, beam: Beam, token: int, *, mixed: bool) -> Iterator[Event]:
        vocabulary = self.draft.vocabulary
        if token in vocabulary.end_tokens and not self.config.ignore_eos:
            return beam.end("stop")
        return beam.append(token, vocabulary.piece(token), mixed=mixed, longest=self.max_tokens)

    def rewind(self, beam: Beam, length: int, prompt_tokens: int) -> None:
        """Put a beam back to where it had `length` tokens, one at least; it is not at its end any more.

        Raises:
            ModelError, ContextFull, Cancelled: as the draft's `truncate`.
        """
        self.draft.truncate(beam.sequence, prompt_tokens + length - 1)  # the last one is decoded next
        beam.cut(length, self.draft.vocabulary.piece, self._stream())

    def drop(self, beams: Sequence[Beam]) -> None:
        """Take beams out of the batch and free their cells."""
        for beam in beams:
            beam.finish = beam.finish or "cancelled"
            for lm in (self.draft, *(lm for anchor in self.anchors.all for lm in anchor.lms)):
                lm.truncate(beam.sequence, 0)

    def close(self) -> None:
        """Free the samplers."""
        for beam in self.beams:
            beam.close()

    def _stream(self) -> TextStream:
        return TextStream(self._stop_strings, self._strip_leading_space)


def _note_probabilities(beam: Beam, token: int, row: MixedRow, p_draft: float) -> None:
    """Keep what the choice may go by later: how likely each model, and the mixture, finds the token."""
    p_mixed, p_anchor = row.mixed_probabilities(token)
    beam.prefix_logprobs.append(float(np.log(max(p_draft, _LEAST))))
    if row.is_mixed:
        beam.mixture_logprobs.append(float(np.log(max(p_mixed, _LEAST))))
        beam.anchor_logprobs.append(float(np.log(max(p_anchor, _LEAST_LANDED))))
    if beam.p_first is None:
        beam.p_first = p_mixed if row.is_mixed else p_draft
