"""The safety tokens S of STR and PACT: from a file, or those that rejections begin with."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import UsageError
from ..lm.vocabulary import Vocabulary
from ..prompt.answers import answer_ids
from ..prompt.formats import PromptFormat
from ..reading import read_text

REJECTIONS = Path(__file__).parent / "data" / "rejections.txt"
#: K, and how far into a rejection tokens are taken.
MOST_TOKENS, OPENING = 50, 16
_SENTENCE_ENDS = (b".", b"!", b"?", b"\n", "。".encode(), "！".encode())
_FORM = 'A JSON object with "tokens": a list of {"id", "text", "d"}, the largest d first.'


@dataclass(frozen=True)
class TokenSet:
    """S, and d(v) of each of its tokens; equal ones where nobody measured them."""

    ids: tuple[int, ...]
    differences: tuple[float, ...]


class _Token(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    id: int = Field(ge=0)
    text: str
    d: float = Field(allow_inf_nan=False)


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    tokens: tuple[_Token, ...] = Field(min_length=1)


def read_tokens(path: Path, vocabulary: Vocabulary) -> TokenSet:
    """The first K tokens of a file.

    Raises:
        UsageError: it can't be read, is of another form, names a token twice, is of another vocabulary, or
            no d(v) in it is above 0.
    """
    try:
        tokens = _File.model_validate(json.loads(read_text(path, _FORM))).tokens[:MOST_TOKENS]
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}", _FORM) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}", _FORM) from None
    _require_vocabulary(path, tokens, vocabulary)
    if len({token.id for token in tokens}) < len(tokens):
        raise UsageError(f"{path} names a token twice", _FORM)
    if max(token.d for token in tokens) <= 0:
        raise UsageError(f"{path}: no d is above 0, so no token is a safety token", "Find them again.")
    return TokenSet(tuple(token.id for token in tokens), tuple(token.d for token in tokens))


def read_rejections(path: Path = REJECTIONS) -> list[str]:
    """Rejections, one a line. Raises: UsageError: the file can't be read, or holds fewer than two."""
    lines = [line for line in read_text(path, "Give a text file.").split("\n") if line.strip()]
    if len(lines) < 2:
        raise UsageError(f"{path} holds fewer than two rejections", "Give one a line.")
    return lines


def salient_tokens(texts: Iterable[str], layout: PromptFormat, vocabulary: Vocabulary) -> TokenSet:
    """The tokens that stand in the first sentence of at least two rejections; those of most texts first.

    Only pieces with a letter count, and only the first 16 tokens of a text.

    Raises:
        UsageError: there is none.
    """
    counts: Counter[int] = Counter()
    for text in texts:
        counts.update(set(_opening(answer_ids(text, layout, vocabulary)[:-1], vocabulary)))
    shared = sorted((-count, token) for token, count in counts.items() if count > 1)
    ids = tuple(token for _, token in shared if _has_letter(vocabulary.piece(token)))[:MOST_TOKENS]
    if not ids:
        raise UsageError("the rejections share no word", "Give several that begin alike.")
    return TokenSet(ids, (1.0,) * len(ids))


def _opening(ids: Sequence[int], vocabulary: Vocabulary) -> Iterable[int]:
    for token in ids[:OPENING]:
        yield token
        if any(end in vocabulary.piece(token) for end in _SENTENCE_ENDS):
            return


def _has_letter(piece: bytes) -> bool:
    return any(letter.isalpha() for letter in piece.decode("utf-8", "ignore"))


def _require_vocabulary(path: Path, tokens: Iterable[_Token], vocabulary: Vocabulary) -> None:
    for token in tokens:
        piece = vocabulary.piece(token.id) if token.id < vocabulary.size else b""
        if piece.decode("utf-8", "replace") != token.text:
            raise UsageError(
                f"{path}: token {token.id} is {token.text!r} there and {piece.decode('utf-8', 'replace')!r} "
                "in this model",
                "Take tokens that were found with the same vocabulary.",
            )
