"""What a person or a program sees of the events of an answer."""

from typing import IO, Any, Protocol

from alignbeam_local.events import (
    AnswerText,
    Done,
    Event,
    Notice,
    RequestRead,
    SteeredBack,
    Step,
    WindowRead,
    Withdrawn,
)
from alignbeam_local.result_json import Traced, json_line, traced_object

from ..console.terminal import for_stream, is_terminal, say


class View(Protocol):
    """Shows the events of one answer."""

    def show(self, event: Event) -> None: ...

    def close(self) -> None:
        """Leave the terminal as it was."""


def told_withdrawn(event: Withdrawn, what: str) -> str:
    """What is said of a withdrawal: of `what` was shown all, or what stood at its end."""
    if event.stands:
        return f"withdrawn: the end of {what} did not stand; this is left, and goes on otherwise"
    return f"withdrawn: {what} did not stand"


class PlainView:
    """The answer's text: as it is decided on a terminal, elsewhere after the last verdict on it."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._live = is_terminal(out)
        self._line_is_open = False

    def show(self, event: Event) -> None:
        match event:
            case AnswerText() if self._live:
                self._write(event.text)
            case Withdrawn() if self._live:
                self._end_line()
                self._write(f"[{told_withdrawn(event, 'the answer above')}]\n{event.text}")
            case Done() if self._live:
                self._end_line()
            case Done() if event.result.finish_reason != "cancelled":
                self._write(event.result.text)
                self._end_line()

    def close(self) -> None:
        self._end_line()

    def _write(self, text: str) -> None:
        if text:
            self._out.write(for_stream(text, self._out))
            self._out.flush()
            self._line_is_open = not text.endswith("\n")

    def _end_line(self) -> None:
        if self._line_is_open:
            self._write("\n")


class JsonView:
    """One object at the end, the mixed steps before it where they are asked for."""

    def __init__(self, out: IO[str], *, trace: bool) -> None:
        self._out = out
        self._trace = trace

    def show(self, event: Event) -> None:
        match event:
            case RequestRead() | Step() | WindowRead() | SteeredBack() if self._trace:
                self._print(traced_object(event))
            case Done() if event.result.finish_reason != "cancelled":
                self._print(event.result.as_dict())

    def _print(self, value: dict[str, Any]) -> None:
        print(for_stream(json_line(value), self._out), file=self._out, flush=True)

    def close(self) -> None: ...


class TraceView:
    """What was read, mixed and put back as JSON lines, before what another view makes of them."""

    def __init__(self, inner: View, out: IO[str]) -> None:
        self._inner = inner
        self._out = out

    def show(self, event: Event) -> None:
        if isinstance(event, Traced):
            print(for_stream(json_line(traced_object(event)), self._out), file=self._out, flush=True)
        self._inner.show(event)

    def close(self) -> None:
        self._inner.close()


class RecordingView:
    """Keeps the mixed steps, beside what another view shows."""

    def __init__(self, inner: View) -> None:
        self.steps: list[Step] = []
        self._inner = inner

    def show(self, event: Event) -> None:
        if isinstance(event, Step):
            self.steps.append(event)
        elif isinstance(event, SteeredBack):
            self.steps[:] = event.standing(self.steps)
        self._inner.show(event)

    def close(self) -> None:
        self._inner.close()


class SilentView:
    """Nothing: the caller prints the result itself."""

    def show(self, event: Event) -> None: ...

    def close(self) -> None: ...


class NoticeView:
    """Notices on stderr, beside what another view shows: a script must see them too. Each is said once."""

    def __init__(self, inner: View, said: set[str]) -> None:
        self._inner = inner
        self._said = said

    def show(self, event: Event) -> None:
        if isinstance(event, Notice) and event.message not in self._said:
            self._said.add(event.message)
            say(f"note: {event.message}")
        self._inner.show(event)

    def close(self) -> None:
        self._inner.close()
