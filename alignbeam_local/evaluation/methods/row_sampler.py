"""Draws tokens from rows that no model computed as they are: the design's chain, in numpy."""

import numpy as np
import numpy.typing as npt

from ...config import Config
from ...errors import UsageError
from ...lm.grammar import grammar_of
from ...search.mixing import log_normaliser

Row = npt.NDArray[np.float32]  # (n_vocab,) logits or log-probabilities; -inf is never drawn


class RowSampler:
    """Penalty, top_k, top_p, min_p, temperature, draw, in this order; greedy at temperature 0.

    Seeded by the knob.
    """

    def __init__(self, config: Config) -> None:
        """Raises: UsageError: there is a grammar, which these methods cannot keep to."""
        if grammar_of(config):
            raise UsageError("this method cannot keep to a grammar", "Leave it out, or compare without.")
        self._config = config
        self._random = np.random.default_rng(config.seed)
        self._seen: set[int] = set()

    def accept(self, token: int) -> None:
        """Tell it of a token of the answer: the penalty is on these."""
        self._seen.add(token)

    def sample(self, row: Row) -> int:
        """A token of a row.

        Raises:
            ModelError: the row holds no finite entry.
        """
        row = self._penalised(row)
        normaliser = log_normaliser(row)
        if self._config.temperature == 0:
            return int(row.argmax())
        kept = self._kept(row, normaliser)
        cooled = row[kept] / np.float32(self._config.temperature)
        mass = np.cumsum(np.exp(cooled - log_normaliser(cooled)), dtype=np.float64)
        return int(kept[np.searchsorted(mass, self._random.random() * mass[-1], side="right")])

    def _kept(self, row: Row, normaliser: float) -> npt.NDArray[np.int64]:
        """The tokens that may be drawn."""
        config = self._config
        if config.top_p == 1 and not config.top_k and not config.min_p:
            return np.arange(len(row))
        order = np.argsort(-row, kind="stable")
        if config.top_k:
            order = order[: config.top_k]
            normaliser = log_normaliser(row[order])
        if config.top_p < 1:
            mass = np.cumsum(np.exp(row[order] - normaliser), dtype=np.float64)
            order = order[: int(np.searchsorted(mass, config.top_p)) + 1]
        if config.min_p:
            order = order[row[order] >= row[order[0]] + np.log(config.min_p)]
        return order

    def _penalised(self, row: Row) -> Row:
        """llama.cpp's: positive logits are divided, others multiplied."""
        seen, penalty = sorted(self._seen), np.float32(self._config.repeat_penalty)
        changed = row.copy()
        changed[seen] = np.where(row[seen] > 0, row[seen] / penalty, row[seen] * penalty)
        return changed
