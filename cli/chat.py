"""`alignbeam chat`: a conversation in the terminal."""

from typing import TYPE_CHECKING

from alignbeam_local.errors import AlignBeamError, Cancelled

from . import session
from .chat_commands import run_command
from .chat_input import Reader, open_reader
from .inputs import checked
from .options import Options, with_options
from .terminal import say, say_error
from .view import answer_view

if TYPE_CHECKING:
    from alignbeam_local.engine import Engine
    from alignbeam_local.prompt import Message


@with_options
def chat(*, options: Options) -> None:
    """Talk with the draft, guarded by the anchor and the judge; /help lists what can be typed.

    Ctrl-C stops an answer, Ctrl-D leaves.
    """
    prepared = session.prepare(options)
    with prepared.open() as engine:
        session.play(engine, engine.load(), answer_view(options))
        Chat(engine, prepared).run(open_reader())


class Chat:
    """The conversation so far and the knobs of the next answer."""

    def __init__(self, engine: "Engine", prepared: session.Session) -> None:
        self.settings = prepared.settings
        self.messages: list[Message] = []
        self._engine = engine
        self._options = prepared.options
        self._told_unjudged = False

    def run(self, reader: Reader) -> None:
        """Until the user leaves."""
        while (line := reader.next_line()) is not None:
            try:
                if not self._take(line.strip()):
                    return
            except Cancelled:
                say("stopped")
            except AlignBeamError as error:
                say_error(error.message, error.hint)

    def _take(self, line: str) -> bool:
        """Do what was typed; False leaves."""
        if line.startswith("/"):
            return run_command(self, line)
        if line:
            self._answer(line)
        return True

    def _answer(self, text: str) -> None:
        from alignbeam_local.prompt import Message

        self._tell_unjudged()
        messages = [*self.messages, Message("user", checked(text, "the prompt"))]
        view = answer_view(self._options)
        result = session.answer(self._engine, messages, view, self.settings.config)
        if result.finish_reason == "cancelled" and not result.text:
            raise Cancelled("cancelled")
        self.messages = [*messages, Message("assistant", result.text)]

    def _tell_unjudged(self) -> None:
        if not self.settings.config.judged and not self._told_unjudged:
            self._told_unjudged = True
            say("note: with one beam answers are not judged; /set K 3 or /set on_unsafe refuse changes that")
