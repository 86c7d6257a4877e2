"""Shows the events of an answer as they happen; Ctrl-C stops the model, not the program."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from alignbeam_local.errors import Cancelled
from alignbeam_local.events import Done, Event, Phase
from alignbeam_local.last_words import note_doing
from alignbeam_local.result import Result

from .console.suspending import listeners
from .views.view import View

if TYPE_CHECKING:
    from alignbeam_local.engine.engine import Engine
    from alignbeam_local.prompt.message import Message


def play(engine: "Engine", events: Iterator[Event], view: View) -> Result | None:
    """Show events to their end; Ctrl-C stops the model, not the program.

    Raises:
        Cancelled: the user stopped it before there was a result.
    """
    result = None
    with closing(view), _ended(events), engine.cancellation.on_interrupt(listeners()):
        try:
            for event in events:
                if isinstance(event, Phase):
                    note_doing(event.name)
                view.show(event)
                if isinstance(event, Done):
                    result = event.result
        except BaseException as error:
            _take_back(events, view, error)
            raise
        if result is None:
            engine.cancellation.check()
    return result


def _take_back(events: Iterator[Event], view: View, error: BaseException) -> None:
    """Let a stream that was left half-way say what of it does not stand, and show that."""
    if isinstance(events, Generator):
        with suppress(BaseException):  # the first error is the one to tell
            view.show(events.throw(error))


def answer(engine: "Engine", messages: Sequence["Message"], view: View) -> Result:
    """Show one answer in the making, and return it."""
    result = play(engine, engine.stream(messages), view)
    assert result is not None, "a stream ends in Done"
    return result


@contextmanager
def _ended(events: Iterator[Event]) -> Iterator[None]:
    """A stream left half-way must let go of the models before they are closed."""
    try:
        yield
    finally:
        if isinstance(events, Generator):
            events.close()


def stop_if_cancelled(result: Result) -> None:
    """Raises: Cancelled: the user stopped this answer."""
    if result.finish_reason == "cancelled":
        raise Cancelled("cancelled")
