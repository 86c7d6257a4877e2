"""The safety tokens S of STR and PACT: from a file of `alignbeam tokens`, or those that rejections share."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..lm.vocabulary import Vocabulary
from ..prompt.answers import answer_ids
from ..prompt.formats import PromptFormat
from ..reading import read_text
from ..tokens.salient import salient_tokens
from ..tokens.token_file import read_tokens

#: K.
MOST_TOKENS = 50


@dataclass(frozen=True)
class TokenSet:
    """S, and d(v) of each of its tokens; equal ones where nobody measured them."""

    ids: tuple[int, ...]
    differences: tuple[float, ...]


def of_file(path: Path, vocabulary: Vocabulary, model: str, *, measured: bool) -> TokenSet:
    """The first K tokens of a file.

    Args:
        model: what the model is called, for an error.
        measured: their d(v) has to be the difference of two models.

    Raises:
        UsageError: it can't be read, is no such file, or no d(v) in it is above 0.
        ModelError: it is of another vocabulary.
    """
    found = read_tokens(path)
    found.require(vocabulary, path, model)
    if measured and found.kind != "difference":
        raise UsageError(
            f"{path} holds tokens by {found.kind}: PACT weighs them by d(v), the difference of two models",
            "Find them: alignbeam tokens find.",
        )
    tokens = found.tokens[:MOST_TOKENS]
    if max(token.d for token in tokens) <= 0:
        raise UsageError(f"{path}: no d is above 0, so no token is a safety token", "Find them again.")
    return TokenSet(tuple(token.id for token in tokens), tuple(token.d for token in tokens))


def read_rejections(path: Path) -> list[str]:
    """Rejections, one a line. Raises: UsageError: the file can't be read, or holds fewer than two."""
    lines = [line for line in read_text(path, "Give a text file.").split("\n") if line.strip()]
    if len(lines) < 2:
        raise UsageError(f"{path} holds fewer than two rejections", "Give one a line.")
    return lines


def of_rejections(texts: Iterable[str], layout: PromptFormat, vocabulary: Vocabulary) -> TokenSet:
    """The tokens that the first sentences of rejections share, those of most of them first.

    Raises:
        UsageError: there is none.
    """
    answers = [answer_ids(text, layout, vocabulary)[:-1] for text in texts]
    ids = tuple(found.token for found in salient_tokens([], answers, vocabulary, MOST_TOKENS))
    if not ids:
        raise UsageError("the rejections share no word", "Give several that begin alike.")
    return TokenSet(ids, (1.0,) * len(ids))
