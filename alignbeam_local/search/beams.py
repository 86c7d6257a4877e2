"""The three phases (paper, section 3): start K beams, extend them mixed, complete them by the draft alone.

In both models sequence 0 holds the prompt and sequence 1 + i beam i; every step of all beams is one decode
a model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from ..config import Config
from ..events import BeamText, BridgeResult, Event, Step, TopToken, Winner
from ..lm.language_model import LanguageModel, Logits, Sampler, SamplerSettings
from ..lm.prompt_cache import PROMPT
from ..lm.vocabulary import Vocabulary, is_unfinished
from ..prompt.text_stream import TextStream
from .bridge import Bridge
from .mixing import Mixture, Probabilities, TopTokens, log_normaliser, mix, probabilities, top_tokens

_TRACE_TOP = 5


@dataclass
class Beam:
    """One answer in the making. `tokens` excludes the end token; the last one may not be decoded yet."""

    index: int
    stream: TextStream
    tokens: list[int] = field(default_factory=list)
    raw: bytes = b""
    mixed: int = 0
    prefix_logprobs: list[float] = field(default_factory=list)
    steered_at: int | None = (
        None  # where, in characters, the first token begins that the draft alone would not take
    )
    finish: Literal["stop", "length", "cancelled"] | None = None
    sampler: Sampler | None = None

    @property
    def sequence(self) -> int:
        return 1 + self.index

    @property
    def text(self) -> str:
        return self.stream.text

    @property
    def logprob(self) -> float:
        """Mean log-probability that the draft alone gave the mixed prefix."""
        return float(np.mean(self.prefix_logprobs)) if self.prefix_logprobs else 0.0


class MixedRow(NamedTuple):
    """One position of one beam, mixed: what each model wanted and the mixture of both."""

    mixture: Mixture
    anchor: TopTokens | None  # None: the anchor was not asked
    landed: Probabilities  # (M,) the anchor's probability that landed on each token of the mixture
    draft_row: Logits
    draft_normaliser: float
    anchor_choice: int = -1  # the draft token that the anchor's likeliest landed on; -1: none


class BridgeCount:
    """Counts what crossed, for the result."""

    def __init__(self) -> None:
        self.steps = self.unmixed = self.tokens = self.single = 0
        self._covered = 0.0

    def add(self, row: MixedRow, single: int) -> None:
        assert row.anchor is not None
        self.steps += 1
        self.tokens += len(row.anchor.tokens)
        self.single += single
        self._covered += row.mixture.covered_mass

    @property
    def result(self) -> BridgeResult:
        covered = self._covered / self.steps if self.steps else None
        fallback = self.tokens - self.single
        return BridgeResult(self.steps, self.unmixed, self.tokens, self.single, fallback, covered)


class BeamSearch:
    """K beams over a draft and, where tokens are mixed, an anchor and the bridge between them."""

    def __init__(
        self,
        draft: LanguageModel,
        anchor: LanguageModel | None,
        bridge: Bridge | None,
        config: Config,
        *,
        max_tokens: int,
        stop_strings: Sequence[str] = (),
        strip_leading_space: bool = False,
    ) -> None:
        """`max_tokens` is the longest answer that fits, at most the knob of that name."""
        self.draft = draft
        self.anchor = anchor
        self.bridge = bridge
        self.config = config
        self.max_tokens = max_tokens
        self.beams: list[Beam] = []
        self.count = BridgeCount()
        self._stop_strings = stop_strings
        self._strip_leading_space = strip_leading_space

    @property
    def active(self) -> list[Beam]:
        return [beam for beam in self.beams if beam.finish is None]

    # --- phases 1 and 2

    def start(self, draft_row: Logits, anchor_row: Logits | None) -> Iterator[Event]:
        """Phase 1: the K most probable tokens of the mixture after the prompts start the beams."""
        row = self._mix(draft_row, anchor_row)
        if row.anchor is None or not len(row.mixture.tokens):
            self.count.unmixed += self.config.depth > 0
            top = top_tokens(draft_row, self.config.beams, row.draft_normaliser)
            starts = top.tokens
        else:
            starts = row.mixture.tokens[: self.config.beams]
        self.beams = [Beam(i, self._stream()) for i in range(len(starts))]
        self.draft.fork(PROMPT, [beam.sequence for beam in self.beams])
        if self.anchor is not None and self.config.mixed_depth > 1:
            self.anchor.fork(PROMPT, [beam.sequence for beam in self.beams])
        for beam, token in zip(self.beams, starts, strict=True):
            yield from self._take(beam, int(token), row)

    def extend(self, anchor_prompt: Sequence[int]) -> Iterator[Event]:
        """Phase 2: N - 1 more tokens a beam, each the argmax of its mixture."""
        for _ in range(1, self.config.mixed_depth):
            if not self.active:
                return
            self._decode_pending()
            asked = self._follow(anchor_prompt)
            for beam in self.active:
                anchor_row = self.anchor.logits(beam.sequence) if self.anchor and beam in asked else None
                row = self._mix(self.draft.logits(beam.sequence), anchor_row)
                self.count.unmixed += not len(row.mixture.tokens)
                yield from self._take(beam, self._best(row), row)

    def _decode_pending(self) -> None:
        self.draft.extend({beam.sequence: beam.tokens[-1:] for beam in self.active})

    def _follow(self, anchor_prompt: Sequence[int]) -> list[Beam]:
        """Let the anchor read each beam's text so far; beams inside a character can't be read."""
        assert self.anchor is not None
        encode = self.anchor.vocabulary.encode
        asked = [beam for beam in self.active if not is_unfinished(beam.raw)]
        targets = {beam.sequence: [*anchor_prompt, *encode(_readable(beam.raw))] for beam in asked}
        if targets:
            self.anchor.set_tokens(targets)
        return asked

    def _best(self, row: MixedRow) -> int:
        return int(row.mixture.tokens[0]) if len(row.mixture.tokens) else int(row.draft_row.argmax())

    def _mix(self, draft_row: Logits, anchor_row: Logits | None) -> MixedRow:
        draft_normaliser = log_normaliser(draft_row)
        nothing = Mixture(np.empty(0, np.int64), np.empty(0), 0.0)
        if anchor_row is None:
            return MixedRow(nothing, None, np.empty(0), draft_row, draft_normaliser)
        assert self.bridge is not None
        width = self.config.bridge_width
        anchor = top_tokens(anchor_row, width, log_normaliser(anchor_row))
        crossing = self.bridge.cross(anchor.tokens)
        targets = crossing.first if self.config.variant == "first" else crossing.single
        mixture = mix(
            anchor,
            crossing,
            self._draft_probabilities(draft_row, targets, draft_normaliser),
            alpha=self.config.alpha,
            variant=self.config.variant,
            draft_mass=self.config.draft_mass,
            draft_top=top_tokens(draft_row, width, draft_normaliser)
            if self.config.variant == "exact"
            else None,
        )
        landed = (targets[None, :] == mixture.tokens[:, None]) @ anchor.probabilities
        row = MixedRow(mixture, anchor, landed, draft_row, draft_normaliser, int(targets[0]))
        self.count.add(row, int((crossing.single >= 0).sum()))
        return row

    def _draft_probabilities(
        self, row: Logits, tokens: np.ndarray[tuple[int], np.dtype[np.int64]], normaliser: float
    ) -> Probabilities:
        """P_d of some tokens; behind a bridge the turn's end stands for all of the draft's ends."""
        values = probabilities(row, tokens, normaliser)
        if self.bridge is not None and self.bridge.turn_end is not None:
            ends = probabilities(row, self.bridge.draft_end_tokens, normaliser).sum()
            values[tokens == self.bridge.turn_end] = ends
        return values

    def _take(self, beam: Beam, token: int, row: MixedRow) -> Iterator[Event]:
        """Append a token chosen in phase 1 or 2."""
        draft_choice = int(row.draft_row.argmax())
        mixed = bool(len(row.mixture.tokens))
        p_draft = self._p_draft(row, token)
        beam.prefix_logprobs.append(float(np.log(max(p_draft, 1e-300))))
        forked = beam.index > 0 and not beam.tokens
        if mixed and token != draft_choice and beam.steered_at is None and not forked:
            beam.steered_at = beam.stream.position
        if self.config.depth > 0:
            yield self._step(beam, token, row, draft_choice, p_draft)
        yield from self._append(beam, token, mixed)

    def _p_draft(self, row: MixedRow, token: int) -> float:
        tokens = np.array([token], np.int64)
        return float(self._draft_probabilities(row.draft_row, tokens, row.draft_normaliser)[0])

    def _step(self, beam: Beam, token: int, row: MixedRow, draft_choice: int, p_draft: float) -> Step:
        mixture, vocabulary = row.mixture, self.draft.vocabulary
        slot = np.flatnonzero(mixture.tokens == token)
        anchor_token = int(row.anchor.tokens[0]) if row.anchor is not None else None
        return Step(
            position=len(beam.tokens),
            beam=beam.index,
            token=token,
            draft_token=draft_choice,
            anchor_token=anchor_token,
            piece=_shown(vocabulary, token),
            draft_piece=_shown(vocabulary, draft_choice),
            anchor_piece=self._anchor_piece(anchor_token),
            won_by=_winner(token, draft_choice, row.anchor_choice),
            p_mixed=float(mixture.probabilities[slot[0]]) if len(slot) else 0.0,
            p_draft=p_draft,
            p_anchor=float(row.landed[slot[0]]) if len(slot) else 0.0,
            covered_mass=mixture.covered_mass,
            top=tuple(
                TopToken(int(t), _shown(vocabulary, int(t)), float(p))
                for t, p in zip(mixture.tokens[:_TRACE_TOP], mixture.probabilities, strict=False)
            ),
        )

    def _anchor_piece(self, token: int | None) -> str | None:
        return None if self.anchor is None or token is None else _shown(self.anchor.vocabulary, token)

    # --- phase 3

    def complete(self, until: int | None = None) -> Iterator[Event]:
        """Phase 3: the draft alone samples on, to each beam's end or until it holds `until` tokens."""
        limit = self.max_tokens if until is None else min(until, self.max_tokens)
        while active := [beam for beam in self.active if len(beam.tokens) < limit]:
            self.draft.extend({beam.sequence: beam.tokens[-1:] for beam in active})
            for beam in active:
                yield from self._append(beam, self._sampler(beam).sample(beam.sequence), mixed=False)

    def _sampler(self, beam: Beam) -> Sampler:
        if beam.sampler is None:
            beam.sampler = self.draft.sampler(SamplerSettings.of(self.config, self.max_tokens, beam.index))
            for token in beam.tokens:
                beam.sampler.accept(token)
        return beam.sampler

    def _append(self, beam: Beam, token: int, mixed: bool) -> Iterator[Event]:
        if token in self.draft.vocabulary.end_tokens and not self.config.ignore_eos:
            yield from self._finish(beam, "stop")
            return
        piece = self.draft.vocabulary.piece(token)
        beam.tokens.append(token)
        beam.mixed += mixed
        beam.raw += piece
        if text := beam.stream.push(piece):
            yield BeamText(beam.index, text, mixed)
        if beam.stream.stopped:
            beam.finish = "stop"
        elif len(beam.tokens) >= self.max_tokens:
            yield from self._finish(beam, "length")

    def _finish(self, beam: Beam, reason: Literal["stop", "length", "cancelled"]) -> Iterator[Event]:
        beam.finish = reason
        if text := beam.stream.finish():
            yield BeamText(beam.index, text, mixed=False)

    def drop(self, beams: Sequence[Beam]) -> None:
        """Take beams out of the batch and free their cells."""
        for beam in beams:
            beam.finish = beam.finish or "cancelled"
            self.draft.truncate(beam.sequence, 0)
            if self.anchor is not None:
                self.anchor.truncate(beam.sequence, 0)

    def close(self) -> None:
        """Free the samplers."""
        for beam in self.beams:
            if beam.sampler is not None:
                beam.sampler.close()
                beam.sampler = None

    def _stream(self) -> TextStream:
        return TextStream(self._stop_strings, self._strip_leading_space)


def _winner(token: int, draft_choice: int, anchor_choice: int) -> Winner:
    if token == draft_choice:
        return "both" if token == anchor_choice else "draft"
    return "anchor" if token == anchor_choice else "neither"


def _readable(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _shown(vocabulary: Vocabulary, token: int) -> str:
    return vocabulary.piece(token).decode("utf-8", "replace")
