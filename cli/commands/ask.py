"""`alignbeam ask`: one prompt, one answer."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from alignbeam_local.errors import UsageError
from alignbeam_local.events import Step
from alignbeam_local.reading import whole_text
from alignbeam_local.result import Result

from .. import playing, session
from ..inputs import checked
from ..options import Options, with_options_but
from ..start.starter import tell_toy_once
from ..terminal import is_terminal
from ..views.answer_view import answer_view
from ..views.view import RecordingView
from ..waiting import STDIN, told_if_slow


@with_options_but("parallel")
def ask(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT",
            help="The question, its words joined by spaces; stdin, if piped, comes before it.",
        ),
    ] = None,
    fail_on_refusal: Annotated[
        bool, typer.Option("--fail-on-refusal", help="exit with 4 if the answer is refused or blocked")
    ] = False,
    why: Annotated[
        bool, typer.Option("--why", help="explain the answer after it, on stderr, as `/why` does in a chat")
    ] = False,
    *,
    options: Options,
) -> None:
    """Answer one prompt.

    The answer goes to stdout as soon as it is decided; on a terminal a line about it goes to stderr.
    What is piped in comes before the prompt. Nothing is kept of either.
    `--why` explains the answer on stderr: stdout is the same with it, also with `--json`.

    ```sh
    alignbeam ask "Why is the sky blue?"
    git diff | alignbeam ask "Write a commit message."
    alignbeam ask --alpha 0.8 --depth 12 --max-tokens 200 "Explain bonds."
    alignbeam ask --why "Can I mix bleach and vinegar?"
    alignbeam ask --json "Is 91 prime?" | jq -r .text
    ```
    """
    from alignbeam_local.prompt.message import Message

    prepared = session.prepare(options)
    if not (options.quiet or options.json):
        tell_toy_once(prepared.settings)
    messages = [Message("user", whole_prompt(" ".join(words or []), quiet=options.quiet))]
    with prepared.open() as engine:
        view = RecordingView(answer_view(options, sums_up=not why))
        result = playing.answer(engine, messages, view)
    playing.stop_if_cancelled(result)
    if why:
        _explain(result, view.steps)
    if fail_on_refusal and result.refusal.is_refusal:
        raise typer.Exit(session.REFUSED)


def _explain(result: Result, steps: Sequence[Step]) -> None:
    """It begins with the line that otherwise ends an answer; off a terminal nothing is wrapped."""
    from ..tables import table_console
    from ..views.why import explained

    console = table_console(sys.stderr)
    console.print(explained(result, steps, console.width))


def whole_prompt(argument: str, *, quiet: bool = False) -> str:
    """Stdin, a blank line, the argument; either may be missing.

    Raises:
        UsageError: both are, or something is not UTF-8.
    """
    parts = [_piped_text(quiet=quiet), checked(argument, "the prompt")]
    prompt = "\n\n".join(part for part in parts if part.strip())
    if not prompt:
        raise UsageError("there is no prompt", 'Give one: alignbeam ask "Why is the sky blue?"')
    return prompt


def _piped_text(*, quiet: bool) -> str:
    if is_terminal(sys.stdin):
        return ""
    with told_if_slow(STDIN, quiet=quiet):
        raw = sys.stdin.buffer.read()
    return whole_text(raw, "stdin").rstrip("\r\n")
