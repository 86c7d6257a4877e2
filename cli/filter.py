"""`alignbeam filter`: many prompts from stdin, one answer each, in order."""

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignbeam_local.errors import AlignBeamError, Cancelled, UsageError
from alignbeam_local.settings import Settings, near_knob

from . import session
from .filter_output import JsonOutput, Output, TextOutput
from .inputs import decoded, parse_row, records, row_knobs, row_messages
from .options import Options, with_options
from .terminal import is_terminal, say
from .view import silent_view

if TYPE_CHECKING:
    from alignbeam_local.engine import Engine

_BLANK = re.compile(rb"\s*")


@with_options
def filter_prompts(
    null: Annotated[bool, typer.Option("--null", "-0", help="NUL ends a prompt and an answer")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="one JSON object a line, in and out")] = False,
    fail_on_refusal: Annotated[
        bool, typer.Option("--fail-on-refusal", help="exit with 4 if an answer is refused or blocked")
    ] = False,
    *,
    options: Options,
) -> None:
    """Answer many prompts: one line of stdin each, one line of stdout each, in order, as soon as it is ready.

    An answer's newlines become spaces; --null and --jsonl keep them. A blank line stays blank.
    A line that can't be answered gives an empty line and a message on stderr; the run goes on, and ends
    with 1. With --jsonl an object has `prompt` (or `messages`), any knob and any other field; it comes back
    with the result's fields, or as {"id", "error"}. Blank lines are left out there.

    Example: printf 'one\\ntwo\\n' | alignbeam filter --max-tokens 60
    """
    if null and jsonl:
        raise UsageError("--null and --jsonl are two formats", "Give one of them.")
    prepared = session.prepare(options)
    with prepared.open() as engine:
        said: set[str] = set()
        session.play(engine, engine.load(), silent_view(options, said))
        if is_terminal(sys.stdin):
            say("Prompts, one a line; Ctrl-D ends.")
        separator = b"\0" if null else b"\n"
        run = Run(engine, prepared.settings, options, said, null=null, jsonl=jsonl)
        for number, raw in enumerate(records(sys.stdin.buffer, separator), 1):
            run.answer(number, raw)
    run.finish(fail_on_refusal=fail_on_refusal)


class Run:
    """One pass over stdin."""

    def __init__(
        self,
        engine: "Engine",
        settings: Settings,
        options: Options,
        said: set[str],
        *,
        null: bool,
        jsonl: bool,
    ) -> None:
        self._engine = engine
        self._said = said
        self._settings = settings
        self._options = options
        self._jsonl = jsonl
        as_json = jsonl or options.json
        self._output: Output = JsonOutput(sys.stdout) if as_json else TextOutput(sys.stdout, null=null)
        self._trace_to = sys.stdout if as_json else sys.stderr
        self._warned: set[str] = set()
        self._num_answers = self._num_failed = self._num_refused = 0

    def answer(self, number: int, raw: bytes) -> None:
        """Answer one record, or say why not.

        Raises:
            Cancelled: the user stopped the run.
        """
        if _BLANK.fullmatch(raw):
            if not self._jsonl:
                self._output.blank()
            return
        self._num_answers += 1
        row: dict[str, Any] = {}
        try:
            row = self._row(raw)
            self._answer_row(number, row)
        except Cancelled:
            raise
        except AlignBeamError as error:
            self._num_failed += 1
            self._output.failure(number, error, row.get("id"))

    def finish(self, *, fail_on_refusal: bool) -> None:
        """Raises: AlignBeamError: some prompts failed. Exit: 4, if asked for."""
        if self._num_failed:
            raise AlignBeamError(f"{self._num_failed} of {self._num_answers} prompts failed")
        if fail_on_refusal and self._num_refused:
            raise typer.Exit(session.REFUSED)

    def _row(self, raw: bytes) -> dict[str, Any]:
        return parse_row(raw) if self._jsonl else {"prompt": decoded(raw, "the line").removesuffix("\r")}

    def _answer_row(self, number: int, row: dict[str, Any]) -> None:
        messages, knobs = row_messages(row), row_knobs(row)
        session.refuse_loading_knobs(knobs)
        self._warn_of_near_knobs(row)
        config = self._settings.override(knobs, f"line {number}").config
        view = silent_view(self._options, self._said, self._trace_to, prefix=f"prompt {number}: ")
        result = session.answer(self._engine, messages, view, config)
        session.stop_if_cancelled(result)
        self._num_refused += session.is_refused(result)
        self._output.result(row, result)

    def _warn_of_near_knobs(self, row: dict[str, Any]) -> None:
        """A row may hold any field, so a misspelt knob is no error; it must not pass silently either."""
        for name in set(row) - self._warned:
            if knob := near_knob(name):
                self._warned.add(name)
                say(f"warning: field '{name}' is not a knob and changes nothing; did you mean {knob}?")
