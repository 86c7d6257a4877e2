"""The loop of a chat: what is typed is asked, or done, until the user leaves."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from alignbeam_local.errors import AlignBeamError, Cancelled

from ..console.terminal import say, unechoed
from ..line.input import LineReader
from .chat import Chat
from .commands import run_command


def run(chat: Chat, reader: LineReader) -> None:
    """Until the user leaves."""
    chat.reader = reader
    while (message := _next_message(chat)) is not None:
        with _ctrl_c_ignored(), unechoed():
            if not _take(chat, message):
                break
    with _ctrl_c_ignored():
        chat.put_down()


def _next_message(chat: Chat) -> str | None:
    while True:
        try:
            return chat.reader.next_message()
        except AlignBeamError as error:
            chat.fail(error)


def _take(chat: Chat, message: str) -> bool:
    """Do what was typed; False leaves. No error of ours ends the chat."""
    try:
        if message.startswith("/"):
            return run_command(chat, message.strip())
        if message.strip():
            chat.ask(message.strip())
    except Cancelled as stopped:
        say(stopped.message)
    except AlignBeamError as error:
        chat.fail(error)
    return True


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Between answers and prompts Ctrl-C, pressed once too often, must not end the chat."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    previous = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
