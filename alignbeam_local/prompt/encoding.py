"""Texts and special tokens as ids: contents never become control tokens."""

import re
from collections.abc import Iterable, Iterator

from ..lm.vocabulary import Vocabulary
from .placeholders import Part

# Some GGUF files hold turn markers as user-defined tokens, which llama.cpp finds in any text.
_MARKER = re.compile(r"<[|｜][^<>]*[|｜]>|</?think>")
_BLANKS = " \t\n\v\f\r"


def special_pattern(vocabulary: Vocabulary) -> re.Pattern[str]:
    """Matches what spells a control or end token, the longest first, or looks like a turn marker."""
    spelt = {vocabulary.text(token) for token in vocabulary.control_tokens | vocabulary.end_tokens} - {""}
    words = sorted(spelt, key=lambda word: (-len(word), word))
    return re.compile("|".join([*map(re.escape, words), _MARKER.pattern]))


def runs(parts: Iterable[Part], special: re.Pattern[str], vocabulary: Vocabulary) -> Iterator[str | int]:
    """Special tokens of the template, and the plain text between them, contents and the template's joined.

    Joined, because a tokeniser merges across their border (' Hello', '?\\n\\n') and models are used to it.
    """
    text = ""
    for part in parts:
        for item in [part.text] if part.is_content else _own_items(part.text, special, vocabulary):
            if isinstance(item, str):
                text += item
                continue
            if text:
                yield text
            yield item
            text = ""
    if text:
        yield text


def _own_items(text: str, special: re.Pattern[str], vocabulary: Vocabulary) -> Iterator[str | int]:
    """A template's own text as plain strings and the special tokens it spells."""
    position = 0
    for match in special.finditer(text):
        ids = vocabulary.encode_template(match[0])
        if len(ids) != 1 or match.start() < position:
            continue
        yield text[position : match.start()]
        yield ids[0]
        position = match.end()
        if vocabulary.encode_template(match[0] + "\n") == ids:  # Phi-3's markers swallow blanks
            position += len(text[position:]) - len(text[position:].lstrip(_BLANKS))
    yield text[position:]


def encode(runs: Iterable[str | int], vocabulary: Vocabulary) -> list[int]:
    """Ids of plain texts and special tokens; each text begins as llama.cpp would begin it there."""
    prefix = " " if vocabulary.adds_space_prefix else ""
    ids: list[int] = []
    for run in runs:
        ids += [run] if isinstance(run, int) else encode_plain(prefix + run, vocabulary)
    return _with_one_bos(ids, vocabulary)


def encode_plain(text: str, vocabulary: Vocabulary) -> list[int]:
    """Ids of text, none of them special: where one comes out all the same the text is cut through it."""
    ids = vocabulary.encode(text)
    if not any(_is_special(token, vocabulary) for token in ids):
        return ids
    middle = len(text) // 2
    return encode_plain(text[:middle], vocabulary) + encode_plain(text[middle:], vocabulary) if middle else []


def _is_special(token: int, vocabulary: Vocabulary) -> bool:
    if token in vocabulary.control_tokens or token in vocabulary.end_tokens:
        return True
    piece = vocabulary.piece(token)
    return piece.startswith(b"<") and _MARKER.fullmatch(piece.decode("utf-8", "replace")) is not None


def _with_one_bos(ids: list[int], vocabulary: Vocabulary) -> list[int]:
    """Templates may write BOS, and llama.cpp may want it: once is right."""
    bos = vocabulary.bos
    if bos is None or not vocabulary.add_bos:
        return ids
    told = next((index for index, token in enumerate(ids) if token != bos), len(ids))
    return [bos, *ids[told:]]
