"""Asks a judge model several things behind one long prefix, in as few decodes as fit."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .judge_labels import LabelTokens
from .lm import LanguageModel, common_prefix

PREFIX, REQUEST, FIRST = 0, 1, 2


class Prompt(NamedTuple):
    """What the judge reads, and the labels of which one should come next."""

    ids: Sequence[int]
    labels: LabelTokens


class Asker:
    """A judge model's cache: sequence 0 holds what is the same in every request, 1 what is the same in one.

    The prompts of a request are forked from sequence 1, so that only their ends are decoded, in one batch.
    """

    def __init__(self, lm: LanguageModel, prefix: Sequence[int]) -> None:
        """`lm` needs three sequences or more, and is this object's own."""
        self._lm = lm
        self._prefix = list(prefix)

    def ask(self, prompts: Sequence[Prompt]) -> list[list[float]]:
        """The labels' log-likelihoods after each prompt; none where a logit is not finite.

        Raises:
            ContextFull, Cancelled, ModelError: as the model's `extend`.
        """
        if not prompts:
            return []
        self.hold_prefix()
        shared = self._hold_request([prompt.ids for prompt in prompts])
        return [found for group in self._groups(prompts, shared) for found in self._ask_group(group, shared)]

    def hold_prefix(self) -> None:
        """Prefill the prefix, unless it is held."""
        if list(self._lm.tokens(PREFIX)) != self._prefix:
            self._clear(REQUEST)
            self._lm.set_tokens({PREFIX: self._prefix})
            self._lm.checkpoint(PREFIX)

    def room(self, request: int) -> int:
        """Cells left for one prompt's end behind a request of so many tokens, its prefix included."""
        if self._copies:
            return self._lm.num_cells - len(self._prefix) - 2 * request
        return self._lm.num_cells - max(request, len(self._prefix))

    @property
    def _copies(self) -> bool:
        return self._lm.kv_strategy == "state"

    def _hold_request(self, prompts: Sequence[Sequence[int]]) -> int:
        """Make sequence 1 hold what all the prompts begin with; returns how many tokens that is."""
        lm, first = self._lm, prompts[0]
        shared = min(min(common_prefix(first, ids), len(ids) - 1) for ids in prompts)
        lm.fork(PREFIX, [REQUEST])
        if list(first[:shared]) != self._prefix:
            lm.set_tokens({REQUEST: first[:shared]})
        return shared

    def _groups(self, prompts: Sequence[Prompt], shared: int) -> Iterator[list[Prompt]]:
        """As many prompts at a time as there are sequences and cells for."""
        lm, group, free = self._lm, list[Prompt](), 0
        for prompt in prompts:
            cost = len(prompt.ids) if self._copies else len(prompt.ids) - shared
            if group and (cost > free or len(group) == lm.num_sequences - FIRST):
                yield group
                group = []
            if not group:
                free = self.room(shared) + (shared if self._copies else 0)
            group.append(prompt)
            free -= cost
        yield group

    def _ask_group(self, group: Sequence[Prompt], shared: int) -> list[list[float]]:
        lm, sequences = self._lm, range(FIRST, FIRST + len(group))
        try:
            lm.fork(REQUEST, sequences)
            lm.extend(
                {sequence: prompt.ids[shared:] for sequence, prompt in zip(sequences, group, strict=True)}
            )
            rows = [lm.logits(sequence).copy() for sequence in sequences]
            return [
                prompt.labels.log_likelihoods(lm, sequence, row)
                for sequence, prompt, row in zip(sequences, group, rows, strict=True)
            ]
        finally:
            self._clear(FIRST)

    def _clear(self, start: int) -> None:
        for sequence in range(start, self._lm.num_sequences):
            self._lm.truncate(sequence, 0)
