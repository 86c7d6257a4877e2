"""Two models on the same answers: the first answers, the second is led along, token by token, in batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple

from ..errors import ModelError
from ..lm.language_model import LanguageModel
from ..lm.vocabulary import Vocabulary
from ..prompt.encoding import encode
from ..prompt.formats import PromptFormat
from ..prompt.message import Message
from .differences import AnswerDifference, Vector

#: How a model reads a request: by its chat template; as it is (the paper's base model); or as the authors'
#: published code writes it for a base model.
PromptForm = Literal["template", "raw", "dialogue"]
_DIALOGUE = "User: {}\n\nAssistant: "


class Reader(NamedTuple):
    """A model whose sequences are free, and how it reads a request."""

    lm: LanguageModel
    encode: Callable[[str], list[int]]


class ForcedAnswer(NamedTuple):
    """An answer of the first model, and how the second differs on it: a mean (V,); without one, None."""

    prompt: str
    tokens: tuple[int, ...]
    text: str
    difference: Vector | None


@dataclass
class _Going:
    """An answer in the making, in a sequence of its own in both models."""

    prompt: str
    difference: AnswerDifference | None
    tokens: list[int] = field(default_factory=list)
    is_done: bool = False


def encoder(form: PromptForm, layout: PromptFormat, vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    """How a model reads a request in this form."""
    if form == "template":
        return lambda text: layout.encode([Message("user", text)], vocabulary)
    if form == "raw":
        return lambda text: encode([text], vocabulary)
    return lambda text: encode([_DIALOGUE.format(text)], vocabulary)


def require_one_vocabulary(safe: Vocabulary, base: Vocabulary) -> None:
    """Raises: ModelError: a token of one model is not the other's."""
    if safe is not base and safe.fingerprint != base.fingerprint:
        raise ModelError(
            "the two models do not share a vocabulary",
            "Take two of one family, or one file with and without an adapter or its template.",
        )


def forced_answers(
    safe: Reader, base: Reader | None, prompts: Sequence[str], *, max_tokens: int
) -> Iterator[ForcedAnswer]:
    """Greedy answers of the first model, as many at once as it has sequences.

    The position at which an answer ends is not counted; an answer that ends at once has no tokens.

    Raises:
        ContextFull, Cancelled, ModelError: as the models' `extend`.
    """
    waiting = iter(prompts)
    size = min(lm.num_sequences for lm, _ in filter(None, (safe, base)))
    while group := list(islice(waiting, size)):
        yield from _answers(safe, base, group, max_tokens)


def _answers(
    safe: Reader, base: Reader | None, prompts: Sequence[str], max_tokens: int
) -> Iterator[ForcedAnswer]:
    readers = [safe, base] if base else [safe]
    for reader in readers:
        reader.lm.set_tokens({n: reader.encode(prompt) for n, prompt in enumerate(prompts)})
    going = {
        n: _Going(prompt, AnswerDifference(safe.lm.vocabulary.size) if base else None)
        for n, prompt in enumerate(prompts)
    }
    while tails := _stepped(safe, base, going, max_tokens):
        for reader in readers:
            reader.lm.extend(tails)
    for reader in readers:
        for sequence in going:
            reader.lm.truncate(sequence, 0)
    for one in going.values():
        text = safe.lm.vocabulary.pieces(one.tokens).decode("utf-8", "replace")
        mean = one.difference.mean if one.difference else None
        yield ForcedAnswer(one.prompt, tuple(one.tokens), text, mean)


def _stepped(
    safe: Reader, base: Reader | None, going: dict[int, _Going], max_tokens: int
) -> dict[int, list[int]]:
    """Take the next token of each answer that goes on; what is to be decoded for the one after it."""
    tails = {}
    for sequence, one in going.items():
        if one.is_done:
            continue
        row = safe.lm.logits(sequence)
        token = int(row.argmax())
        if token in safe.lm.vocabulary.end_tokens:
            one.is_done = True
            continue
        if base and one.difference:
            one.difference.add(row, base.lm.logits(sequence))
        one.tokens.append(token)
        one.is_done = len(one.tokens) == max_tokens
        if not one.is_done:
            tails[sequence] = [token]
    return tails
