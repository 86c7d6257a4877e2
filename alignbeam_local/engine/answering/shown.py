"""What of an answer is shown: what stands, what is taken back, and what is said beside it."""

from collections.abc import Iterator, Sequence

from ...events import AnswerText, BeamText, Event, Notice, Withdrawn
from ...search.beam import Beam
from ...search.selection import Selection


class Shown:
    """The characters that are shown.

    Attributes:
        text: they.
        streams: new characters of the one beam that is left are shown at once.
        stands: and no verdict will take them back.
    """

    def __init__(self, *, streams: bool) -> None:
        self.text = ""
        self.streams = streams
        self.stands = False

    def as_they_grow(self, events: Iterator[Event]) -> Iterator[Event]:
        """Where only one beam can be the answer and no verdict is to come, its text is shown at once."""
        for event in events:
            yield event
            if isinstance(event, BeamText) and self.streams:
                self.text += event.text
                yield AnswerText(event.text, stands=self.stands)

    def passed(self, beam: Beam, until: int | None = None) -> Iterator[Event]:
        """What a verdict has let through and is not shown yet, up to so many characters."""
        if text := beam.text[len(self.text) : until]:
            self.text += text
            yield AnswerText(text)

    def take_back(self, to: str = "") -> Iterator[Event]:
        """Leave no more of it standing than this, its beginning."""
        if len(self.text) > len(to):
            self.text = to
            yield Withdrawn(to, stands=len(to))


class Notices:
    """What is said beside the answer, each once; and of what a choice doubts only what holds in the end.

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
