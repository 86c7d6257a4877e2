"""Numbers as they are typed behind a command."""


def number_in(word: str) -> int | None:
    """The whole number that a word is; None: it is none, or larger than anything here."""
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 9 else None
