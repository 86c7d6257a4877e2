"""Files of tokens from models: by how two of them differ on answers, or by one's own rejections."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..errors import ModelError
from ..lm.vocabulary import Vocabulary
from .differences import Ids, Vector, mean_difference, random_tokens, top_differences
from .forcing import ForcedAnswer
from .salient import salient_tokens
from .token_file import FoundToken, Source, TokenFile

#: Whether an answer declines, where only those count.
Declines = Callable[[str], bool]


class Found(NamedTuple):
    """A file of tokens, and of the answers how many were asked for and how many counted."""

    file: TokenFile
    asked: int


def by_difference(
    answers: Iterable[ForcedAnswer],
    vocabulary: Vocabulary,
    safe: Source,
    base: Source,
    *,
    count: int,
    declines: Declines | None,
) -> Found:
    """The `count` tokens with text of the largest d(v), over answers that decline, or all that have text.

    Raises:
        ModelError: no answer counts, or the two models do not differ.
    """
    means: list[Vector] = []
    asked = positions = 0
    for answer in answers:
        asked += 1
        if answer.difference is not None and answer.tokens and (declines or bool)(answer.text):
            means.append(answer.difference)
            positions += len(answer.tokens)
    if not means:
        raise _no_refusals(safe, asked)
    d = mean_difference(means)
    d[_silent(vocabulary)] = 0.0  # an answer's end is no word: boosted it would cut answers short
    top = top_differences(d, count)
    if not len(top.tokens):
        raise ModelError("the two models give the same probabilities", "Take another file or adapter.")
    tokens = _found(top.tokens, top.values, vocabulary)
    file = TokenFile(
        kind="difference",
        vocabulary=vocabulary.fingerprint,
        safe=safe,
        base=base,
        answers=len(means),
        positions=positions,
        every_answer=declines is None,
        share=min(1.0, top.share),
        tokens=tokens,
    )
    return Found(file, asked)


def by_rejections(
    answers: Iterable[ForcedAnswer],
    templates: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    safe: Source,
    *,
    count: int,
    declines: Declines,
) -> Found:
    """The `count` most salient tokens of the answers that decline, and of the templates (as tokens).

    Raises:
        ModelError: there is no rejection, or none shares a word with another.
    """
    said = list(answers)
    own = [answer.tokens for answer in said if declines(answer.text)]
    if not own and not templates:
        raise _no_refusals(safe, len(said))
    salient = salient_tokens(own, templates, vocabulary, count)
    if not salient:
        raise ModelError("no two rejections share a word", "Ask more requests: --limit.")
    pieces = [FoundToken(id=s.token, text=_text(vocabulary, s.token), d=s.times) for s in salient]
    file = TokenFile(
        kind="rejections",
        vocabulary=vocabulary.fingerprint,
        safe=safe,
        answers=len(own),
        positions=sum(map(len, own)),
        templates=len(templates),
        tokens=tuple(pieces),
    )
    return Found(file, len(said))


def control_of(file: TokenFile, vocabulary: Vocabulary, seed: int) -> TokenFile:
    """As many tokens with text, drawn at random, none of them the file's."""
    drawn = random_tokens(vocabulary.size, len(file.tokens), seed, [*file.ids, *_silent(vocabulary)])
    tokens = tuple(FoundToken(id=int(t), text=_text(vocabulary, int(t)), d=1.0) for t in drawn)
    return TokenFile(kind="random", vocabulary=file.vocabulary, safe=file.safe, tokens=tokens)


def _silent(vocabulary: Vocabulary) -> list[int]:
    """Tokens that stand for no text, ends of a turn among them."""
    return [token for token in range(vocabulary.size) if not vocabulary.piece(token)]


def _found(tokens: Ids, values: Vector, vocabulary: Vocabulary) -> tuple[FoundToken, ...]:
    return tuple(
        FoundToken(id=int(token), text=_text(vocabulary, int(token)), d=float(value))
        for token, value in zip(tokens, values, strict=True)
    )


def _text(vocabulary: Vocabulary, token: int) -> str:
    return vocabulary.piece(token).decode("utf-8", "replace")


def _no_refusals(safe: Source, asked: int) -> ModelError:
    return ModelError(
        f"{safe.name} declines none of {asked} requests: its refusals are what tokens are found from",
        "Take a model that refuses, more requests (--limit), or others (--prompts); or the words of shipped "
        "rejections: alignbeam tokens salient MODEL --from templates.",
    )
