"""`alignbeam ask`: one prompt, one answer."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignbeam_local.errors import UsageError
from alignbeam_local.events import Step
from alignbeam_local.paths import user_path, write_named
from alignbeam_local.reading import whole_text
from alignbeam_local.result import Result

from .. import playing, session
from ..console.terminal import is_terminal, say
from ..console.waiting import STDIN, told_if_slow
from ..filter.template import read_template
from ..inputs import checked
from ..kept import opened_log
from ..options import Options, TemplateFlag, with_options_but
from ..quoted_file import quoted_file
from ..start.starter import tell_toy_once
from ..views.answer_view import answer_view
from ..views.view import RecordingView

if TYPE_CHECKING:
    from alignbeam_local.heads.answer_head import JudgeRecord


@with_options_but("parallel")
def ask(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT",
            help="The question, its words joined by spaces; stdin, if piped, comes before it.",
        ),
    ] = None,
    *,
    fail_on_refusal: Annotated[
        bool, typer.Option("--fail-on-refusal", help="exit with 4 if the answer is refused or blocked")
    ] = False,
    why: Annotated[
        bool, typer.Option("--why", help="explain the answer after it, on stderr, as `/why` does in a chat")
    ] = False,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="a file whose text comes before the prompt; repeatable"
        ),
    ] = None,
    template: TemplateFlag = None,
    plain: Annotated[
        bool,
        typer.Option("--plain", metavar="", help="on a terminal, the text as it is: no Markdown is drawn"),
    ] = False,
    log: Annotated[
        bool, typer.Option("--log", metavar="", help="keep question and answer, as a chat does")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            parser=user_path,
            metavar="PATH",
            help="also write a page with the answer, its mixed tokens and all beams, to open or to send",
        ),
    ] = None,
    options: Options,
) -> None:
    """Answer one prompt.

    The answer goes to stdout as soon as it is decided; on a terminal its Markdown is drawn, and a line
    about it goes to stderr. With `--judge-at` what the first verdict lets through is shown while it grows.
    What is piped in comes before the prompt; `--template` puts all of it in place of its `{prompt}`.
    Nothing is kept of either, unless `--log` is given.
    `--why` explains the answer on stderr: stdout is the same with it, also with `--json`.
    `--html` writes the same as a page: one file that needs no network, with prompt and beams in it.
    It loads the models itself: a running server does not tell how well its judge is measured.

    ```sh
    alignbeam ask "Why is the sky blue?"
    git diff | alignbeam ask "Write a commit message."
    alignbeam ask -f main.py -f test.log "Why does the test fail?"
    git diff | alignbeam ask --role reviewer --template review
    alignbeam ask --alpha 0.8 --depth 12 --max-tokens 200 "Explain bonds."
    alignbeam ask --why "How do I pick a lock?"
    alignbeam ask --html answer.html "How is a beta blocker started?"
    alignbeam ask --json "Is 91 prime?" | jq -r .text
    ```
    """
    from alignbeam_local.prompt.message import Message

    if html and html.is_dir():
        raise UsageError(f"{html} is a folder", "Name a file: --html answer.html")
    around = None if template is None else read_template(template, any_field=False)
    prepared = session.prepare(options)
    if not (options.quiet or options.json):
        tell_toy_once(prepared.settings)
    prompt = whole_prompt(" ".join(words or []), files or [], quiet=options.quiet)
    if around:
        prompt = around.fill({"prompt": prompt})
    is_form = bool(prepared.settings.config.grammar or prepared.settings.config.json_schema)
    shown = answer_view(options, draws_markdown=not plain and not is_form, sums_up=not why)
    view = RecordingView(shown)
    with opened_log(is_wanted=log) as kept, prepared.open(warm=html is None) as engine:
        result = playing.answer(engine, [Message("user", prompt)], view)
        playing.stop_if_cancelled(result)
        kept.add(prompt, result)
        record = engine.judge_record
    if html:
        write_named(html, page_of(prompt, result, view.steps, record))
        if not options.quiet:
            say(f"written: {html}")
    if why:
        _explain(result, view.steps)
    if fail_on_refusal and result.refusal.is_refusal:
        raise typer.Exit(session.REFUSED)


def page_of(prompt: str, result: Result, steps: Sequence[Step], record: "JudgeRecord | None") -> str:
    """The page of one answer; `record` is what is known of its judge."""
    from alignbeam_local.server.page.page import saved_page
    from alignbeam_local.server.page.saved_answer import saved_answer

    return saved_page(saved_answer(prompt, result, steps, record)).decode()


def _explain(result: Result, steps: Sequence[Step]) -> None:
    """It begins with the line that otherwise ends an answer; off a terminal nothing is wrapped."""
    from ..console.tables import table_console
    from ..views.why import explained

    console = table_console(sys.stderr)
    console.print(explained(result, steps, console.width))


def whole_prompt(argument: str, files: Sequence[str] = (), *, quiet: bool = False) -> str:
    """The files, stdin, the argument, blank lines between; any may be missing.

    Raises:
        UsageError: all are, a file can't be read, or something is not UTF-8.
    """
    given = [quoted_file(name) for name in files]
    parts = [*given, _piped_text(quiet=quiet), checked(argument, "the prompt")]
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
