"""How lists of conversations look: a table for people, tab-separated lines for programs."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import itemgetter

from alignbeam_local.conversation.stored import StoredConversation, StoredExchange

from ..console.tables import Column, table, table_console
from ..console.terminal import is_terminal, printable, say

_AROUND = 30  # characters before a word that was searched
_LONG = ("question", "answer")  # the columns that are cut to the width


def print_conversations(conversations: Iterable[StoredConversation]) -> None:
    """One a line: id, name, when it was used last, turns, first question."""
    head = ("id", "name", "used", "turns", "question")
    rows = [
        (one.id, one.name or "", one.updated, str(one.num_exchanges), one.first_question or "")
        for one in conversations
    ]
    _print(head, rows, time_column=2)


def print_found(exchanges: Iterable[StoredExchange], word: str) -> None:
    """One a line: its conversation, when it was asked, the question, the answer around the word."""
    head = ("conversation", "asked", "question", "answer")
    rows = [(one.conversation, one.asked, one.question, _around(one.answer, word)) for one in exchanges]
    _print(head, rows, time_column=1)


def _print(head: Sequence[str], rows: Iterable[Sequence[str]], time_column: int) -> None:
    """Every row is one line; on a terminal it is cut to the width and times are local, and none is said."""
    rows = list(rows)
    if not is_terminal(sys.stdout):
        for row in rows:
            print("\t".join(map(_one_line, row)))
        return
    if not rows:
        say("nothing kept matches")
        return
    columns = [Column(name, 0, itemgetter(n), grows=name in _LONG) for n, name in enumerate(head)]
    console = table_console()
    console.print(table(columns, (_shown(row, time_column) for row in rows), console.width))


def _shown(row: Sequence[str], time_column: int) -> list[str]:
    cells = [*row]
    cells[time_column] = f"{datetime.fromisoformat(cells[time_column]).astimezone():%Y-%m-%d %H:%M}"
    return [_one_line(printable(cell)) for cell in cells]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _around(text: str, word: str) -> str:
    """The text, cut so that the word stands near its start."""
    at = text.casefold().find(word.casefold())
    start = max(at - _AROUND, 0)
    return f"{'...' if start else ''}{text[start:]}"
