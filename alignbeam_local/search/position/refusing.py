"""How much of a row begins a refusal: its probability on the first tokens of refusals."""

from functools import lru_cache

import numpy as np

from ...lm.language_model import Logits
from ...lm.vocabulary import Vocabulary
from ..mixing import Ids, log_normaliser, probabilities

#: How aligned models begin to refuse, in the languages that most of them are asked in.
OPENINGS = (
    *("I'm sorry", "I am sorry", "I’m sorry", "I cannot", "I can't", "I can’t", "I won't", "I must decline"),
    *("Sorry", "Unfortunately", "I apologize", "My apologies"),
    *("Lo siento", "Je suis désolé", "Désolé", "Es tut mir leid", "Mi dispiace", "Desculpe"),
    *("对不起", "很抱歉", "抱歉", "申し訳"),
)


@lru_cache(maxsize=16)
def first_tokens(vocabulary: Vocabulary) -> Ids:
    """(R,) the tokens that refusals begin with, behind a space or not."""
    first = {vocabulary.encode(space + text)[0] for text in OPENINGS for space in ("", " ")}
    return np.array(sorted(token for token in first if vocabulary.piece(token).strip()), np.int64)


def refusing_mass(row: Logits, vocabulary: Vocabulary) -> float:
    """The probability, from 0 to 1, that an answer begun with this row (V,) begins as refusals do.

    Raises:
        ModelError: the row holds no numbers.
    """
    return float(probabilities(row, first_tokens(vocabulary), log_normaliser(row)).sum())
