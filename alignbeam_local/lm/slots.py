"""One context shared by several answers: each has a range of its sequences, and all decode in one batch.

To the code of an answer its slot is a `LanguageModel` like any other. That code runs in a greenlet: what it
asks to decode is put down, and it sleeps until the context has decoded for all slots that asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from greenlet import getcurrent, greenlet

from ..errors import AlignBeamError, ContextFull
from .language_model import (
    Hidden,
    LanguageModel,
    Logits,
    Sampler,
    SamplerSettings,
    SequenceState,
    common_prefix,
)
from .vocabulary import Vocabulary

Ids = Mapping[int, Sequence[int]]


class _Request(NamedTuple):
    """What a slot wants decoded: new ids by the context's sequences, or all that these shall hold.

    `reads`: it wants the hidden states too; such requests say all.
    """

    slot: "Slot"
    ids: Ids
    is_whole: bool
    reads: bool
    asker: greenlet


class SharedContext:
    """A model's context, the slots on it, and what they wait for."""

    def __init__(self, lm: LanguageModel, num_slots: int, *, has_rows: bool = True) -> None:
        """The sequences of `lm` are split evenly; what they hold is the slots' from now on.

        `has_rows`: it makes logits. One that was opened to read makes none.
        """
        self.lm = lm
        self._has_rows = has_rows
        #: Prompts are read in pieces of so many tokens, between which the others go on; None: whole.
        self.piece_tokens: int | None = None
        size = lm.num_sequences // num_slots
        self.slots = tuple(
            Slot(self, slot * size, size, lm.num_cells // num_slots) for slot in range(num_slots)
        )
        self._requests: list[_Request] = []

    @property
    def is_wanted(self) -> bool:
        """Whether a slot waits for a decode."""
        return bool(self._requests)

    def wait(self, slot: "Slot", ids: Ids, *, is_whole: bool, reads: bool = False) -> None:
        """Put a slot's request down and sleep until it is decoded. Raises: as `LanguageModel.extend`."""
        asker = getcurrent()
        assert asker.parent is not None, "a slot decodes within a greenlet"
        self._requests.append(_Request(slot, ids, is_whole, reads, asker))
        error = asker.parent.switch()
        if error is not None:
            raise error

    def forget(self, asker: greenlet) -> None:
        """Drop what this greenlet waits for."""
        self._requests = [request for request in self._requests if request.asker is not asker]

    def decode(self) -> None:
        """Decode for all slots that wait, in one batch, and let each go on until it waits again.

        Slots that want hidden states have a batch for themselves. An error is raised in the slots that it
        concerns, not here. Where they do not fit together each is tried by itself.
        """
        requests, self._requests = self._requests, []
        for reads in (True, False):
            if alike := [request for request in requests if request.reads == reads]:
                self._serve(alike)

    def _serve(self, requests: Sequence[_Request]) -> None:
        served = [request.slot for request in requests]
        for slot in self.slots:
            if slot not in served:
                slot.keep_rows()
        whole = [self._whole(request) for request in requests]
        failed: AlignBeamError | None = None
        try:
            self._decode(requests if not any(request.is_whole for request in requests) else whole)
        except ContextFull as error:
            if len(requests) > 1:
                for request in whole:
                    self._serve([request])
                return
            failed = error
        except AlignBeamError as error:
            failed = error
        for request in requests:
            if failed is None and self._has_rows:
                request.slot.has_rows(request.ids)
            request.asker.switch(failed)

    def _whole(self, request: _Request) -> _Request:
        """An `extend` as `set_tokens`: all that its sequences shall hold, whatever a failed decode leaves."""
        if request.is_whole:
            return request
        ids = {sequence: [*self.lm.tokens(sequence), *tail] for sequence, tail in request.ids.items()}
        return request._replace(ids=ids, is_whole=True)

    def _decode(self, requests: Sequence[_Request]) -> None:
        ids = {sequence: ids for request in requests for sequence, ids in request.ids.items()}
        if requests[0].reads:
            states = self.lm.read(ids)
            for request in requests:
                request.slot.has_hidden({sequence: states[sequence] for sequence in request.ids})
        elif requests[0].is_whole:
            self.lm.set_tokens(ids)
        else:
            self.lm.extend(ids)


class Slot:
    """`LanguageModel` on a range of a context's sequences, here counted from 0."""

    def __init__(self, shared: SharedContext, first: int, num_sequences: int, num_cells: int) -> None:
        self.num_sequences = num_sequences
        self.num_cells = num_cells
        self._shared = shared
        self._first = first
        self._live: set[int] = set()  # whose rows lie in the context
        self._kept: dict[int, Logits] = {}  # rows that lay there before it decoded for others
        self._hidden: dict[int, Hidden] = {}  # what it has read, until it is handed out

    @property
    def vocabulary(self) -> Vocabulary:
        return self._lm.vocabulary

    @property
    def num_layers(self) -> int:
        return self._lm.num_layers

    @property
    def kv_strategy(self) -> Literal["seq", "state"]:
        return self._lm.kv_strategy

    @property
    def saves(self) -> bool:
        return self._lm.saves

    @property
    def state_key(self) -> str:
        return self._lm.state_key

    @property
    def decoded_tokens(self) -> int:
        """Of all slots, as `decodes` and `compute_seconds`."""
        return self._lm.decoded_tokens

    @property
    def decodes(self) -> int:
        return self._lm.decodes

    @property
    def compute_seconds(self) -> float:
        return self._lm.compute_seconds

    @property
    def _lm(self) -> LanguageModel:
        return self._shared.lm

    # --- decoding

    def tokens(self, sequence: int) -> Sequence[int]:
        return self._lm.tokens(self._first + sequence)

    def extend(self, tails: Ids) -> None:
        self._wait(tails, is_whole=False)

    def set_tokens(self, targets: Ids) -> None:
        self._read_pieces(targets)
        self._wait(targets, is_whole=True)

    def read(self, targets: Ids) -> dict[int, Hidden]:
        self._read_pieces(targets)
        self._wait(targets, is_whole=True, reads=True)
        found, self._hidden = self._hidden, {}
        return found

    def read_at(self, layers: Iterable[int]) -> None:
        """For all slots, which then hold nothing."""
        self._lm.read_at(layers)

    def _read_pieces(self, targets: Ids) -> None:
        """All but the last piece of a long prompt."""
        piece = self._shared.piece_tokens
        if piece is None or len(targets) > 1:
            return
        ((sequence, ids),) = targets.items()
        for end in range(common_prefix(self.tokens(sequence), ids) + piece, len(ids), piece):
            self._wait({sequence: ids[:end]}, is_whole=True)

    def _wait(self, ids: Ids, *, is_whole: bool, reads: bool = False) -> None:
        self._live, self._kept = set(), {}
        own = {self._first + sequence: tokens for sequence, tokens in ids.items()}
        self._shared.wait(self, own, is_whole=is_whole, reads=reads)

    def has_hidden(self, states: Mapping[int, Hidden]) -> None:
        """These were read, by the context's sequences."""
        self._hidden = {sequence - self._first: state for sequence, state in states.items()}

    def has_rows(self, sequences: Iterable[int]) -> None:
        """The context's last batch made rows for these sequences of its."""
        self._live = {sequence - self._first for sequence in sequences}

    def keep_rows(self) -> None:
        """Copy the rows that lie in the context, which is about to decode for others."""
        self._kept |= {sequence: self.logits(sequence).copy() for sequence in self._live}
        self._live = set()

    def logits(self, sequence: int) -> Logits:
        kept = self._kept.get(sequence)
        return self._lm.logits(self._first + sequence) if kept is None else kept

    def sampler(self, settings: SamplerSettings) -> Sampler:
        return _LaneSampler(self._lm.sampler(settings), self._first)

    # --- cache

    def fork(self, source: int, targets: Iterable[int]) -> None:
        own = list(targets)
        for target in own:
            self._drop_row(target)
        self._lm.fork(self._first + source, [self._first + target for target in own])

    def truncate(self, sequence: int, length: int) -> None:
        if length >= len(self.tokens(sequence)):
            return
        self._drop_row(sequence)
        if length == 0 or self.kv_strategy == "seq":
            self._lm.truncate(self._first + sequence, length)
        else:  # a cache that can't be cut there decodes anew: only in a batch with the others
            self.set_tokens({sequence: self.tokens(sequence)[:length]})

    def checkpoint(self, sequence: int) -> None:
        self._lm.checkpoint(self._first + sequence)

    def save(self, sequence: int) -> SequenceState:
        state, kept = self._lm.save(self._first + sequence), self._kept.get(sequence)
        return state if kept is None else replace(state, logits=kept.copy())

    def restore(self, sequence: int, state: SequenceState) -> None:
        self._drop_row(sequence)
        self._lm.restore(self._first + sequence, state)
        if state.logits is not None:
            self._kept[sequence] = state.logits.copy()

    def _drop_row(self, sequence: int) -> None:
        self._live.discard(sequence)
        self._kept.pop(sequence, None)

    def close(self) -> None:
        """Nothing: the context is its owner's to close."""


class _LaneSampler:
    """A chain on the context's rows: it samples before the context decodes again, as completing does."""

    def __init__(self, sampler: Sampler, first: int) -> None:
        self._sampler = sampler
        self._first = first

    def accept(self, token: int) -> None:
        self._sampler.accept(token)

    def allowed(self, row: Logits) -> Logits:
        return self._sampler.allowed(row)

    def sample(self, sequence: int) -> int:
        return self._sampler.sample(self._first + sequence)

    def close(self) -> None:
        self._sampler.close()
