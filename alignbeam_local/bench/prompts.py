"""Prompts of a wanted length, no two alike, so that no cache helps where it would not in use."""

from ..lm.vocabulary import Vocabulary

_TEXT = (
    "tell me how people in a small town could plan the next year so that there is work and food for all "
    "of them and the old mill by the river can stay open while the young learn what they like to do"
)


def prompt_of(num_tokens: int, number: int, vocabulary: Vocabulary) -> str:
    """A text of at most so many tokens, and hardly fewer; `number` makes it another one."""
    known, words = _TEXT.split(), [f"Case {number}:"]
    while vocabulary.num_tokens(" ".join(words)) < num_tokens:
        words.append(known[(len(words) - 1) % len(known)])
    while len(words) > 1 and vocabulary.num_tokens(" ".join(words)) > num_tokens:
        words.pop()
    return " ".join(words)
