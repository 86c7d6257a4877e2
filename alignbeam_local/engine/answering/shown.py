"""What of an answer is shown: what stands, and what is taken back."""

from collections.abc import Iterator

from ...events import AnswerText, BeamText, Event, Withdrawn
from ...search.beam import Beam


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
