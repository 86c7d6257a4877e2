"""`alignbeam chat`: a conversation in the terminal."""

import sys
from contextlib import ExitStack
from functools import partial
from typing import Annotated

import typer

from alignbeam_local.errors import UsageError

from .. import session
from ..completion import conversation_names
from ..console.terminal import is_terminal
from ..options import Options, with_options_but


@with_options_but("parallel")
def chat(
    continued: Annotated[
        bool, typer.Option("--continue", "-c", metavar="", help="go on with the last conversation")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--session",
            metavar="NAME",
            help="go on with the conversation of this name, or begin it",
            autocompletion=conversation_names,
        ),
    ] = None,
    no_log: Annotated[
        bool, typer.Option("--no-log", metavar="", help="write nothing of this chat to disk")
    ] = False,
    keep_state: Annotated[
        bool,
        typer.Option(
            "--keep-state", metavar="", help="keep the models' state too: going on later needs no reading"
        ),
    ] = False,
    *,
    options: Options,
) -> None:
    """Talk with the draft, guarded by the anchor and the judge.

    /help lists what can be typed: change a knob, answer again, see why.
    Enter sends, Alt-Enter begins a new line, Ctrl-C stops an answer, Ctrl-D leaves.
    Lines that come from a pipe or a file are messages too; the exit code is 1 if one of them failed.

    Example: alignbeam chat --session taxes --judge-at none
    """
    from ..chat.chat import Chat
    from ..chat.completion import ChatCompleter
    from ..chat.defaults import for_chat
    from ..chat.loop import run
    from ..chat.transcript import opened
    from ..line.input import open_reader

    if no_log and (continued or name or keep_state):
        raise UsageError("--no-log keeps nothing to go on with", "Leave it out.")
    prepared = session.prepare(options, partial(for_chat, is_kept=not no_log))
    with ExitStack() as stack:
        transcript = stack.enter_context(opened(is_kept=not no_log, name=name, continued=continued))
        engine = stack.enter_context(prepared.open(warm=not keep_state))
        talk = Chat(engine, prepared, transcript, keeps_state=keep_state)
        talk.start()
        run(talk, open_reader(ChatCompleter(talk), talk.toolbar, keeps_history=not no_log))
    if talk.num_failed and not is_terminal(sys.stdin):
        raise typer.Exit(1)
