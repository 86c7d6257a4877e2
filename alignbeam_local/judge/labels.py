"""How likely each of a judge's labels comes next."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..lm.language_model import LanguageModel, Logits
from ..lm.vocabulary import Vocabulary

Spelling = tuple[int, ...]


@dataclass(frozen=True)
class LabelTokens:
    """The tokens that stand for each label: its first where that tells the labels apart, else all of them."""

    spellings: tuple[tuple[Spelling, ...], ...]

    @classmethod
    def of(cls, labels: Mapping[str, float], vocabulary: Vocabulary) -> "LabelTokens":
        """With a leading space a label counts too, where that is one token."""
        plain = [tuple(vocabulary.encode(label)) for label in labels]
        if len({ids[0] for ids in plain}) == len(plain):
            plain = [ids[:1] for ids in plain]
        spaced = [tuple(vocabulary.encode(f" {label}")) for label in labels]
        alternatives = [(ids,) if len(ids) == 1 else () for ids in spaced]
        return cls(tuple((ids, *more) for ids, more in zip(plain, alternatives, strict=True)))

    def log_likelihoods(self, lm: LanguageModel, sequence: int, row: Logits) -> list[float]:
        """One per label, after what the sequence holds; empty if a logit is not finite.

        Args:
            row: (n_vocab,) a copy of the sequence's logits. Labels of several tokens cost a decode each.
        """
        if not np.isfinite(row).all():
            return []
        first = log_softmax(row)
        return [
            float(np.logaddexp.reduce([self._likelihood(ids, first, lm, sequence) for ids in spellings]))
            for spellings in self.spellings
        ]

    @staticmethod
    def _likelihood(ids: Spelling, first: npt.NDArray[np.float64], lm: LanguageModel, sequence: int) -> float:
        total, length = float(first[ids[0]]), len(lm.tokens(sequence))
        for said, token in pairwise(ids):
            lm.extend({sequence: [said]})
            total += float(log_softmax(lm.logits(sequence))[token])
        if len(ids) > 1:
            lm.truncate(sequence, length)
        return total


def log_softmax(row: Logits) -> npt.NDArray[np.float64]:
    """(n_vocab,) log-probabilities."""
    shifted = row.astype(np.float64) - float(row.max())
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))
