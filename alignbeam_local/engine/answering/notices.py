"""What is said beside an answer."""

from collections.abc import Iterator, Sequence

from ...events import Event, Notice
from ...search.selection import Selection


class Notices:
    """All that is said; of what choices doubt only what holds in the end, and once.

    Attributes:
        doubt: the last selection that had another doubt than the one before it.
    """

    def __init__(self, said: Sequence[str] = ()) -> None:
        self._said = list(said)
        self.doubt = Selection(None)

    @property
    def said(self) -> tuple[str, ...]:
        """All that holds."""
        return tuple(self._said)

    def tell(self, message: str) -> Iterator[Event]:
        """Say it."""
        self._said.append(message)
        yield Notice(message)

    def doubted(self, selection: Selection, *, is_shown: bool) -> Iterator[Event]:
        """What a selection says takes the place of what the one before it said; the same is said once."""
        before = self.doubt
        if before.doubt == selection.doubt:
            return
        self.drop_doubt()
        self.doubt = selection
        if selection.notice:
            yield from self.tell(selection.notice)
        elif before.notice and is_shown:
            yield Notice("the whole answer passed the judge: the earlier note no longer applies")

    def drop_doubt(self) -> None:
        """What was said of an answer that is not shown any more no longer applies."""
        if self.doubt.notice:
            self._said.remove(self.doubt.notice)
