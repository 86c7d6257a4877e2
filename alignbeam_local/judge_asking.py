"""Asks a judge model about a request and its answers, behind constant prefixes, in as few decodes as fit."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .judge_labels import LabelTokens
from .lm import LanguageModel, common_prefix

ANSWER_PREFIX, REQUEST_PREFIX, REQUEST, FIRST = 0, 1, 2, 3
#: A decode of its own costs as much as so many more tokens in another one.
_WORTH_A_DECODE = 8


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


class Asker:
    """A judge model's cache: sequences 0 and 1 hold what is the same in every request, 2 what is in this one.

    The questions about answers are forked from sequence 2, the one about the request alone from sequence 1,
    so that only their ends are decoded, in one batch.
    """

    def __init__(
        self, lm: LanguageModel, answer_prefix: Sequence[int], request_prefix: Sequence[int]
    ) -> None:
        """`lm` needs three sequences or more and is this object's own; `request_prefix` may be empty.

        With three there is none for the request: answers then read it each for itself.
        """
        self._lm = lm
        self._first = min(FIRST, lm.num_sequences - 1)
        self._prefixes = {ANSWER_PREFIX: list(answer_prefix), REQUEST_PREFIX: list(request_prefix)}

    def ask(self, answers: Sequence[Prompt], request: Prompt | None) -> list[list[float]]:
        """The labels' log-likelihoods after each prompt, the request last; none if a logit is not finite.

        Raises:
            ContextFull, Cancelled, ModelError: as the model's `extend`.
        """
        self.hold_prefixes()
        source, shared = self._hold_request([prompt.ids for prompt in answers])
        tails = [_Tail(source, shared, prompt) for prompt in answers]
        if request is not None:
            known = common_prefix(self._prefixes[REQUEST_PREFIX], request.ids)
            tails.append(_Tail(REQUEST_PREFIX, known, request))
        return [found for group in self._groups(tails, shared) for found in self._ask_group(group)]

    def hold_prefixes(self) -> None:
        """Prefill the prefixes that are not held."""
        lm = self._lm
        missing = {s: ids for s, ids in self._prefixes.items() if ids and list(lm.tokens(s)) != ids}
        if not missing:
            return
        self._clear(REQUEST)
        lm.set_tokens(missing)
        for sequence in missing:
            lm.checkpoint(sequence)

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
            known = self._prefixes[ANSWER_PREFIX]
            return ANSWER_PREFIX, min(common_prefix(known, ids) for ids in prompts)
        shared = min(min(common_prefix(prompts[0], ids), len(ids) - 1) for ids in prompts)
        beginning = prompts[0][:shared]
        held = {s: common_prefix(lm.tokens(s), beginning) for s in (ANSWER_PREFIX, REQUEST)}
        source = max(held, key=lambda sequence: held[sequence])
        if (len(prompts) - 1) * (shared - held[source]) < _WORTH_A_DECODE:
            lm.truncate(REQUEST, held[REQUEST] if source == REQUEST else 0)
            return source, held[source]
        if source != REQUEST:
            lm.fork(source, [REQUEST])
        lm.set_tokens({REQUEST: beginning})
        return REQUEST, shared

    def _groups(self, tails: Sequence[_Tail], shared: int) -> Iterator[list[_Tail]]:
        """As many at a time as there are sequences and cells for."""
        group, used = list[_Tail](), 0
        free = self.room(shared) + (shared if self._copies else 0)
        for tail in tails:
            cost = len(tail.prompt.ids if self._copies else tail.ids)
            if group and (used + cost > free or len(group) == self._lm.num_sequences - self._first):
                yield group
                group, used = [], 0
            group.append(tail)
            used += cost
        yield group

    def _ask_group(self, group: Sequence[_Tail]) -> list[list[float]]:
        lm, tails = self._lm, dict(enumerate(group, self._first))
        try:
            for sequence, tail in tails.items():
                lm.fork(tail.source, [sequence])
                lm.truncate(sequence, tail.length)
            lm.extend({sequence: tail.ids for sequence, tail in tails.items()})
            rows = {sequence: lm.logits(sequence).copy() for sequence in tails}
            return [
                tail.prompt.labels.log_likelihoods(lm, sequence, rows[sequence])
                for sequence, tail in tails.items()
            ]
        finally:
            self._clear(self._first)

    def _clear(self, start: int) -> None:
        for sequence in range(start, self._lm.num_sequences):
            self._lm.truncate(sequence, 0)
