"""`alignbeam start`: a few questions, a check, a chat."""

import os
import shlex
import sys
from typing import Annotated

import typer

from alignbeam_local.errors import UsageError

from ..console.terminal import is_terminal, say
from ..start.choice import Choice, ask_for_pull, check, choose, save


def start(
    offline: Annotated[bool, typer.Option("--offline", help="fetch nothing from the network")] = False,
) -> None:
    """Ask which model and which anchor, fetch what is missing, check the pair, and chat.

    Nothing is written but what is fetched, and a profile if you give it a name.
    Ctrl-C and Ctrl-D leave.

    ```sh
    alignbeam start
    ```
    """
    from alignbeam_local.models.registry import Registry

    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise UsageError(
            "start asks questions, and there is no terminal to answer on",
            "Use `alignbeam ask PROMPT`, or `alignbeam chat --draft MODEL --profile recommended`.",
        )
    registry = Registry.load()
    try:
        choice = choose(registry)
        ask_for_pull(choice, registry, offline=offline)
        check(choice, registry, os.environ)
        choice = save(choice, registry)
    except EOFError:
        raise typer.Exit from None
    _chat(choice, offline=offline)


def _chat(choice: Choice, *, offline: bool) -> None:
    """Go on as the command that does the same the next time."""
    from typer.main import get_command

    from ..main import make_app

    say(f"the next time: alignbeam {shlex.join(choice.chat)}")
    args = [*choice.chat, *(["--offline"] if offline else [])]
    code = get_command(make_app("chat")).main(args=args, prog_name="alignbeam", standalone_mode=False)
    raise typer.Exit(code if isinstance(code, int) else 0)
