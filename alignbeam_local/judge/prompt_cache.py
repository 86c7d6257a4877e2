"""Asks a judge model about a request and its answers, behind constant prefixes, in as few decodes as fit."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..lm.language_model import LanguageModel, SequenceState, common_prefix
from ..lm.prefix_store import PrefixStore
from ..lm.sequences import ANSWER_PREFIX, FIRST_ANSWER, REQUEST, REQUEST_PREFIX
from .labels import LabelTokens

#: A decode of its own costs as much as so many more tokens in another one.
_WORTH_A_DECODE = 8
#: Tokens of the prefixes that are read at a time: as many as a context decodes at once, so that the batches,
#: and with them all scores, are the same whether reading was interrupted or not.
_PIECE = 512


class Prompt(NamedTuple):
    """What the judge reads, and the labels of which one should come next."""

    ids: Sequence[int]
    labels: LabelTokens


class _Tail(NamedTuple):
    """The end of a prompt, behind what a sequence holds."""

    source: int
    length: int
    prompt: Prompt

    @property
    def ids(self) -> Sequence[int]:
        return self.prompt.ids[self.length :]


class JudgeCache:
    """A judge model's cache: sequence 0 holds what every question about an answer begins with, 2 the request.

    What every question about a request begins with is kept outside and put into sequence 1 for that question
    alone: attention runs over all cells in use, so it would make every answer's tokens dearer. Only where the
    model saves no states it stays there.
    The questions about answers are forked from what shares most with them, and decoded in one batch. They
    stay until the next questions: an answer that goes on is then read from where it ended.
    """

    def __init__(
        self,
        lm: LanguageModel,
        answer_prefix: Sequence[int],
        request_prefix: Sequence[int],
        store: PrefixStore | None = None,
    ) -> None:
        """`lm` needs three sequences or more and is this object's own; `request_prefix` may be empty.

        With three there is none for the request: answers then read it each for itself.
        `store` is where prefixes that were read are kept.
        """
        self._lm = lm
        self._first = min(FIRST_ANSWER, lm.num_sequences - 1)
        self._prefixes = {ANSWER_PREFIX: list(answer_prefix), REQUEST_PREFIX: list(request_prefix)}
        self._store = store
        self._request_state: SequenceState | None = None
        self._num_read = 0  # tokens of the prefixes, before all are

    def ask_about_requests(self, requests: Sequence[Prompt]) -> list[list[float]]:
        """The labels' log-likelihoods after each prompt; none if a logit is not finite. Raises: as `ask`."""
        for _ in self.read_prefixes():
            pass
        return [self._ask_about_request(request) for request in requests]

    def ask(self, answers: Sequence[Prompt]) -> list[list[float]]:
        """The labels' log-likelihoods after each prompt about an answer; none if a logit is not finite.

        Raises:
            ContextFull, Cancelled, ModelError: as the model's `extend`.
        """
        for _ in self.read_prefixes():
            pass
        source, shared = self._hold_request([prompt.ids for prompt in answers])
        tails = [_Tail(source, shared, prompt) for prompt in answers]
        free = self.room(shared) + (shared if self._copies else 0)
        return self._ask_in_groups(tails, self._first, free)

    def ask_beside(self, answers: Sequence[Prompt]) -> list[list[float]]:
        """As `ask`; what `ask` was last asked about stays held, if all of these fit beside it.

        Raises: as `ask`.
        """
        if not answers:
            return []
        prefix = self._prefixes[ANSWER_PREFIX]
        tails = [_Tail(ANSWER_PREFIX, common_prefix(prefix, prompt.ids), prompt) for prompt in answers]
        first, free = self._room_beside()
        if self._copies or len(tails) > self._lm.num_sequences - first or sum(map(self._cells, tails)) > free:
            self._clear(REQUEST)
            first, free = self._room_beside()
        return self._ask_in_groups(tails, first, free)

    def _room_beside(self) -> tuple[int, int]:
        """The first sequence behind all that hold something, and the cells that these leave."""
        lm, prefix = self._lm, len(self._prefixes[ANSWER_PREFIX])
        held = [sequence for sequence in range(REQUEST, lm.num_sequences) if lm.tokens(sequence)]
        used = sum(len(lm.tokens(sequence)) - prefix for sequence in held)
        return max([self._first, *(sequence + 1 for sequence in held)]), self.room(prefix) - used

    def read_prefixes(self) -> Iterator[tuple[int, int]]:
        """Prefill the prefixes piece by piece, if they are not held, and keep what was read.

        Whoever was interrupted goes on with the next piece; in any other case all is read anew from an empty
        context. So what is kept is always what the same batches made.

        Yields:
            Before the first piece and after each, how many tokens are read, and how many there are.
        """
        if self.holds_prefixes:
            return
        rows = [(sequence, token) for sequence, ids in self._wanted.items() for token in ids]
        if not self._is_part_read(rows):
            self._clear(ANSWER_PREFIX)
            self._num_read = 0
        yield self._num_read, len(rows)
        while self._num_read < len(rows):
            piece = rows[self._num_read : self._num_read + _PIECE]
            self._lm.extend(_by_sequence(piece))
            self._num_read += len(piece)
            yield self._num_read, len(rows)
        if self._store:
            self._store.keep(self._lm, self._wanted)
        self._set_aside()

    def _is_part_read(self, rows: Sequence[tuple[int, int]]) -> bool:
        """Whether just the tokens counted are held."""
        expected = _by_sequence(rows[: self._num_read])
        return all(
            list(self._lm.tokens(sequence)) == expected.get(sequence, [])
            for sequence in range(self._lm.num_sequences)
        )

    def restore_prefixes(self) -> bool:
        """Hold the prefixes without reading them, if they were kept; whether they are held now."""
        if not self.holds_prefixes and self._store:
            self._clear(ANSWER_PREFIX)
            if self._store.restore(self._lm, self._wanted):
                self._set_aside()
        return self.holds_prefixes

    def save(self) -> list[SequenceState]:
        """What is held of the prefixes; nothing where no states are saved. Raises: ModelError: it failed."""
        if not self._lm.saves:
            return []
        held = [self._lm.save(ANSWER_PREFIX)] if self._lm.tokens(ANSWER_PREFIX) else []
        return [*held, self._request_state] if self._request_state else held

    def load(self, states: Sequence[SequenceState]) -> None:
        """Hold what was saved and is a prefix here; the rest is read when it is needed.

        Raises:
            ContextFull, ModelError: it does not fit; nothing is held then.
        """
        for state in states:
            if state.key != self._lm.state_key:
                continue
            if list(state.tokens) == self._prefixes[ANSWER_PREFIX]:
                self._lm.restore(ANSWER_PREFIX, state)
                self._lm.checkpoint(ANSWER_PREFIX)
            elif list(state.tokens) == self._prefixes[REQUEST_PREFIX]:
                self._request_state = state

    @property
    def _wanted(self) -> dict[int, list[int]]:
        return {sequence: ids for sequence, ids in self._prefixes.items() if ids}

    @property
    def holds_prefixes(self) -> bool:
        """Whether nothing of them is left to read."""
        held = {ANSWER_PREFIX: self._lm.tokens(ANSWER_PREFIX)}
        held[REQUEST_PREFIX] = self._request_state.tokens if self._request_state else ()
        if not self._lm.saves:
            held[REQUEST_PREFIX] = self._lm.tokens(REQUEST_PREFIX)
        return all(list(held[sequence]) == ids for sequence, ids in self._wanted.items())

    def _set_aside(self) -> None:
        """Both prefixes are held: what requests are asked behind leaves the cache, where it can come back."""
        self._lm.checkpoint(ANSWER_PREFIX)
        if self._prefixes[REQUEST_PREFIX] and self._lm.saves:
            self._request_state = self._lm.save(REQUEST_PREFIX)
            self._lm.truncate(REQUEST_PREFIX, 0)

    def _ask_about_request(self, request: Prompt) -> list[float]:
        """The answers to what was asked before are dropped: these cells are where the prefix was read."""
        lm, state = self._lm, self._request_state
        assert state is not None or not lm.saves, "a request is asked about behind a prefix"
        self._clear(REQUEST_PREFIX if state else REQUEST)
        try:
            if state:
                lm.restore(REQUEST_PREFIX, state)
            lm.set_tokens({REQUEST_PREFIX: request.ids})
            row = lm.logits(REQUEST_PREFIX).copy()
            return request.labels.log_likelihoods(lm, REQUEST_PREFIX, row)
        finally:
            lm.truncate(REQUEST_PREFIX, 0 if state else len(self._prefixes[REQUEST_PREFIX]))

    def forget_request(self) -> None:
        """Drop all but the prefixes."""
        self._clear(REQUEST)

    def room(self, request: int) -> int:
        """Cells left for one answer's end behind a request of so many tokens, its prefix included."""
        prefixes = sum(map(len, self._prefixes.values()))
        if self._copies:
            return self._lm.num_cells - prefixes - 2 * request
        return self._lm.num_cells - prefixes - max(request - len(self._prefixes[ANSWER_PREFIX]), 0)

    @property
    def _copies(self) -> bool:
        return self._lm.kv_strategy == "state"

    def _hold_request(self, prompts: Sequence[Sequence[int]]) -> tuple[int, int]:
        """Where the prompts' common beginning is held, and how much of it: decoded first where that pays."""
        lm = self._lm
        if self._first == REQUEST:
            self._clear(REQUEST)
            known = self._prefixes[ANSWER_PREFIX]
            return ANSWER_PREFIX, min(common_prefix(known, ids) for ids in prompts)
        shared = min(min(common_prefix(prompts[0], ids), len(ids) - 1) for ids in prompts)
        beginning = prompts[0][:shared]
        source, held = self._warmest(beginning)
        if source not in (ANSWER_PREFIX, REQUEST):
            lm.fork(source, [REQUEST])
            source = REQUEST
        self._clear(FIRST_ANSWER)
        lm.truncate(REQUEST, held if source == REQUEST else 0)
        if (len(prompts) - 1) * (shared - held) < _WORTH_A_DECODE:
            return source, held
        if source != REQUEST:
            lm.fork(source, [REQUEST])
        lm.set_tokens({REQUEST: beginning})
        return REQUEST, shared

    def _warmest(self, beginning: Sequence[int]) -> tuple[int, int]:
        """The sequence that shares most with this, and how much; a cache that can't be cut forks no ends."""
        usable = (ANSWER_PREFIX, REQUEST) if self._copies else range(self._lm.num_sequences)
        held = {sequence: common_prefix(self._lm.tokens(sequence), beginning) for sequence in usable}
        source = max(held, key=lambda sequence: held[sequence])
        return source, held[source]

    def _cells(self, tail: _Tail) -> int:
        return len(tail.prompt.ids if self._copies else tail.ids)

    def _ask_in_groups(self, tails: Sequence[_Tail], first: int, free: int) -> list[list[float]]:
        return [
            found for group in self._groups(tails, first, free) for found in self._ask_group(group, first)
        ]

    def _groups(self, tails: Sequence[_Tail], first: int, free: int) -> Iterator[list[_Tail]]:
        """As many at a time as there are sequences from the first one on, and free cells for."""
        group, used = list[_Tail](), 0
        for tail in tails:
            cost = self._cells(tail)
            if group and (used + cost > free or len(group) == self._lm.num_sequences - first):
                yield group
                group, used = [], 0
            group.append(tail)
            used += cost
        yield group

    def _ask_group(self, group: Sequence[_Tail], first: int) -> list[list[float]]:
        lm, tails = self._lm, dict(enumerate(group, first))
        self._clear(first)
        for sequence, tail in tails.items():
            lm.fork(tail.source, [sequence])
            lm.truncate(sequence, tail.length)
        lm.extend({sequence: tail.ids for sequence, tail in tails.items()})
        rows = {sequence: lm.logits(sequence).copy() for sequence in tails}
        return [
            tail.prompt.labels.log_likelihoods(lm, sequence, rows[sequence])
            for sequence, tail in tails.items()
        ]

    def _clear(self, start: int) -> None:
        for sequence in range(start, self._lm.num_sequences):
            self._lm.truncate(sequence, 0)


def _by_sequence(rows: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    """The tokens of each sequence, of pairs of a sequence and a token."""
    found = dict[int, list[int]]()
    for sequence, token in rows:
        found.setdefault(sequence, []).append(token)
    return found
