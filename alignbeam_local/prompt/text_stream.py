"""Bytes of generated tokens into text that may be shown: whole characters, before any stop string."""

import codecs
from collections.abc import Sequence


def whole_characters(raw: bytes) -> str:
    """Text that may have been cut anywhere, without the character that the cut went through."""
    return TextStream().push(raw)


class TextStream:
    """Decodes UTF-8 as it arrives; holds back what may still become a stop string."""

    def __init__(self, stop_strings: Sequence[str] = (), strip_leading_space: bool = False) -> None:
        self.text = ""
        self.stopped = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop_strings = tuple(stop_strings)
        self._strip = strip_leading_space
        self._held = ""

    @property
    def position(self) -> int:
        """How many characters have come, those held back included."""
        return len(self.text) + len(self._held)

    def push(self, raw: bytes) -> str:
        """The characters that these bytes decide; none once a stop string was met."""
        return self._release(self._decoder.decode(raw), final=False)

    def finish(self) -> str:
        """What was held back, at the end of the generation; an unfinished character is no text."""
        return self._release("", final=True)

    def _release(self, text: str, final: bool) -> str:
        if self.stopped:
            return ""
        text = self._strip_first(self._held + text)
        for stop in self._stop_strings:
            head, found, _ = text.partition(stop)
            if found:
                self.stopped, text = True, head
        keep = 0 if final or self.stopped else self._stop_prefix(text)
        shown, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self.text += shown
        return shown

    def _strip_first(self, text: str) -> str:
        if self._strip and text and not self.text:
            self._strip = False
            return text.removeprefix(" ")
        return text

    def _stop_prefix(self, text: str) -> int:
        """The length of the longest end of the text that begins a stop string."""
        lengths = (
            size
            for stop in self._stop_strings
            for size in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:size])
        )
        return max(lengths, default=0)
