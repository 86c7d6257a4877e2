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
from .beam import Beam
from .bridge import Bridge
from .mixer import MixedRow, Mixer
from .mixing import Ids, top_tokens
from .position.adacd import STEPS, contrasted
from .position.alpha import Weight, weight_of
from .position.prefix import SURE, Prefix
from .position.refusing import refusing_mass
from .refusals import is_refusal
from .safety_tokens import UNCHANGED, SafetyTokens
from .trace import traced

#: In place of a probability of 0, whose logarithm is no number.
_LEAST = 1e-300
#: The same where a token is none of the anchor's likeliest: its own probability is not known.
_LEAST_LANDED = 1e-9


class BridgedAnchor(NamedTuple):
    """A model that lends its first tokens, and the bridge that carries them to the draft.

    `header` is what stands between a question and its answer; `twin` is the same model, told to refuse.
    """

    lm: LanguageModel
    bridge: Bridge
    role: str = "anchor"
    weight: float = 1.0
    header: Sequence[int] = ()
    twin: LanguageModel | None = None

    @property
    def lms(self) -> tuple[LanguageModel, ...]:
        """Its own, then its twin's."""
        return (self.lm,) if self.twin is None else (self.lm, self.twin)


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
    ) -> None:
        """`anchors` are none where nothing is mixed; `max_tokens` is the longest answer that fits.

        A `grammar` (GBNF) says which tokens may come, mixed ones too. What `safety` does to the draft's rows
        is done before anything is mixed or drawn.
        """
        self.draft = draft
        self.anchors = tuple(anchors)
        self.config = config
        self.max_tokens = max_tokens
        self.beams: list[Beam] = []
        self._mixer = Mixer([a.bridge for a in anchors], config, [a.weight for a in anchors])
        self.count = self._mixer.count
        self._refuses: list[float] = []  # each anchor's row after the prompt, where there are several
        self._used = list(range(len(anchors)))
        self._starts_of: dict[int, Start] = {}
        self._anew: dict[
            int, int
        ] = {}  # beams whose anchors read their header once more, behind so many bytes
        self._probed: set[int] = set()
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
        each = zip(self.anchors, self._refuses, self._mixer.counts, strict=False)
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
        rows = self._choose_among(_contrasted(len(self.anchors), anchor_rows)) if anchor_rows else []
        row = self._accepted(self._mixer.mix(self._safety.changed(draft_row), rows, begun.weight))
        self._note(begun.prefix, row)
        starts = self._starts(row)
        self.beams = [Beam(i, self._stream()) for i in range(len(starts))]
        self._starts_of = {beam.index: begun.fork() for beam in self.beams}
        sequences = [beam.sequence for beam in self.beams]
        self.draft.fork(PROMPT, sequences)
        if self.config.mixed_depth > 1:
            for lm in (lm for anchor in self._followed for lm in anchor.lms):
                lm.fork(PROMPT, sequences)
        for beam, token in zip(self.beams, starts, strict=True):
            yield from self._take(beam, int(token), row)

    @property
    def _followed(self) -> list[BridgedAnchor]:
        return [self.anchors[number] for number in self._used]

    def _choose_among(self, rows: Sequence[Logits]) -> list[Logits]:
        """The rows after the prompt that count: of the strictest anchor only its own."""
        if len(rows) > 1:
            each = zip(rows, self.anchors, strict=True)
            self._refuses = [refusing_mass(row, anchor.lm.vocabulary) for row, anchor in each]
            if self.config.anchors == "strictest":
                strictest = int(np.argmax(self._refuses))
                self._mixer.use_only(strictest)
                self._used = [strictest]
        return [rows[number] for number in self._used]

    def _note(self, prefix: Prefix, row: MixedRow) -> None:
        if self.config.prefix == "adaptive" and row.anchor is not None:
            prefix.note(row.draft_choice, row.anchor_choice, row.anchor_mass)
        else:
            prefix.note_plain()

    def _starts(self, row: MixedRow) -> Ids:
        if row.is_mixed:
            return row.mixture.tokens[: self.config.beams]
        self.count.unmixed += self.config.depth > 0 and row.anchor is None
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
        beams are mixed again where they stand, for at least so many tokens.
        """
        for beam in self.active if steps is not None else ():
            self._anew.pop(beam.index, None)
            self._starts_of[beam.index] = Start(weight_of(self.config), Prefix(self.config, steps))
        prompts = _by_anchor(self.anchors, anchor_prompts)
        while mixing := self._mixing(prompts):
            yield from self._extend(mixing, prompts)

    def _mixing(self, prompts: "Prompts") -> list[Beam]:
        """The beams whose next token is mixed."""
        if self.config.is_probed:
            self._probe(prompts)
        return [beam for beam in self.active if self._starts_of[beam.index].prefix.goes_on]

    def _extend(self, mixing: Sequence[Beam], prompts: "Prompts") -> Iterator[Event]:
        """One mixed token more for each of these beams."""
        self.draft.extend({beam.sequence: beam.tokens[-1:] for beam in mixing})
        asked = [beam for beam in mixing if not is_unfinished(beam.raw)]
        self._follow(asked, prompts)
        for beam in mixing:
            self._safety.change(self.draft, beam.sequence, len(beam.tokens))
            start, rows = self._starts_of[beam.index], self._rows(beam) if beam in asked else []
            draft_row = self.draft.logits(beam.sequence)
            row = self._mixer.mix(draft_row, rows, start.weight, start.prefix.count)
            row = self._accepted(row, beam)
            self._note(start.prefix, row)
            self.count.unmixed += row.anchor is None
            yield from self._take(beam, row.best, row)

    def _follow(self, asked: Sequence[Beam], prompts: "Prompts") -> None:
        """Let the anchors read each beam's text so far; beams inside a character can't be read."""
        for number in self._used:
            for which, (lm, prompt) in enumerate(zip(self.anchors[number].lms, prompts[number], strict=True)):
                read = [beam for beam in asked if not which or len(beam.tokens) < STEPS]
                if targets := {b.sequence: self._read_by(self.anchors[number], prompt, b) for b in read}:
                    lm.set_tokens(targets)

    def _read_by(self, anchor: BridgedAnchor, prompt: Sequence[int], beam: Beam) -> list[int]:
        encode, anew = anchor.lm.vocabulary.encode, self._anew.get(beam.index)
        if anew is None:
            return [*prompt, *encode(_readable(beam.raw))]
        before, since = _readable(beam.raw[:anew]), _readable(beam.raw[anew:])
        return [*prompt, *encode(before), *anchor.header, *encode(since)]

    def _rows(self, beam: Beam) -> list[Logits]:
        """What counts of the anchors' rows behind a beam."""
        own = [anchor.lm.logits(beam.sequence) for anchor in self._followed]
        twins = [anchor.twin for anchor in self._followed if anchor.twin and len(beam.tokens) < STEPS]
        return _contrasted(len(own), [*own, *(twin.logits(beam.sequence) for twin in twins)])

    def _probe(self, prompts: "Prompts") -> None:
        """Let beams whose start has ended go on where an anchor, its turn begun anew, would refuse.

        ADA (arXiv 2510.18081). Each beam is asked once, and none that refuses already.
        """
        ended = [
            beam
            for beam in self.active
            if self._starts_of[beam.index].prefix.ends_early
            and beam.index not in self._probed
            and not (is_unfinished(beam.raw) or is_refusal(beam.text))
        ]
        self._probed |= {beam.index for beam in ended}
        worst = dict.fromkeys((beam.index for beam in ended), 0.0)
        for anchor, prompt in ((self.anchors[n], prompts[n][0]) for n in self._used if ended):
            targets = {b.sequence: [*self._read_by(anchor, prompt, b), *anchor.header] for b in ended}
            anchor.lm.set_tokens(targets)
            for beam in ended:
                mass = refusing_mass(anchor.lm.logits(beam.sequence), anchor.lm.vocabulary)
                worst[beam.index] = max(worst[beam.index], mass)
        for beam in ended:
            if worst[beam.index] >= SURE:
                self._anew[beam.index] = len(beam.raw)
                self._starts_of[beam.index].prefix.lengthen(self.config.depth)

    def _take(self, beam: Beam, token: int, row: MixedRow) -> Iterator[Event]:
        """Append a token chosen in phase 1 or 2."""
        p_draft = self._mixer.draft_probability(row, token)
        _note_probabilities(beam, token, row, p_draft)
        if self.config.depth > 0:
            anchors = [(anchor.role, anchor.lm.vocabulary) for anchor in self._followed]
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

    def drop(self, beams: Sequence[Beam]) -> None:
        """Take beams out of the batch and free their cells."""
        for beam in beams:
            beam.finish = beam.finish or "cancelled"
            for lm in (self.draft, *(lm for anchor in self.anchors for lm in anchor.lms)):
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


#: By anchor the ids of its prompt, then of its twin's.
Prompts = Sequence[Sequence[Sequence[int]]]


def _by_anchor(anchors: Sequence[BridgedAnchor], prompts: Sequence[Sequence[int]]) -> Prompts:
    return [prompts[number :: len(anchors)] for number in range(len(anchors))]


def _contrasted(count: int, rows: Sequence[Logits]) -> list[Logits]:
    """One row for each of so many anchors: its own, held against its twin's if it has one."""
    own, told = rows[:count], rows[count:]
    return [contrasted(*pair) for pair in zip(own, told, strict=True)] if told else list(own)


def _readable(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
