"""Exchanges of a conversation as a person reads them again: each a few lines, the rest cut off."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from alignbeam_local.conversation.stored import StoredExchange

from ..console.terminal import printable

#: Characters of a question, and of an answer, before they are cut.
_QUESTION, _ANSWER = 200, 300
#: Exchanges that are shown of a conversation which is gone on with.
LAST = 2


def read_again(exchanges: Sequence[StoredExchange], *, is_whole: bool = False) -> Text:
    """Questions behind the prompt's sign, bold; answers below them."""
    return Text("\n").join(line for one in exchanges for line in _lines(one, is_whole))


def _lines(one: StoredExchange, is_whole: bool) -> Iterator[Text]:
    question, answer = printable(one.question), printable(one.answer)
    if not is_whole:
        question, answer = _cut(question, _QUESTION), _cut(answer, _ANSWER)
    yield Text(f">>> {question}", style="bold")
    yield Text(answer or "(empty)")


def _cut(text: str, most: int) -> str:
    """In one line, at the end of a word."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rsplit(' ', 1)[0]} …"
