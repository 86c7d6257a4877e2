"""One pass of `alignbeam filter` over its records."""

import sys
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import typer

from alignbeam_local.config import KNOBS
from alignbeam_local.errors import AlignBeamError, Cancelled, ServerGone, TimedOut, UsageError
from alignbeam_local.reading import decoded
from alignbeam_local.result_json import RESULT_FIELDS
from alignbeam_local.settings import SourcedConfig, near_knob

from .. import playing, session
from ..console.terminal import is_terminal, say
from ..inputs import count_records, is_blank, parse_row, row_knobs, row_messages
from ..kept import Kept
from ..options import Options
from ..views.answer_view import silent_view
from ..views.view import View
from .output import JsonOutput, Output, TextOutput
from .tally import Tally
from .template import Template
from .time_limit import TimeLimit

if TYPE_CHECKING:
    from alignbeam_local.config import Config
    from alignbeam_local.engine.engine import Engine
    from alignbeam_local.events import Event
    from alignbeam_local.prompt.message import Message
    from alignbeam_local.result import Result


@dataclass
class Record:
    """A record that is not written yet; `asked` is None where there is nothing to answer."""

    number: int
    row: dict[str, Any] = field(default_factory=dict)
    asked: "tuple[list[Message], Config] | None" = None
    outcome: "Result | AlignBeamError | None" = None


@dataclass(frozen=True)
class Form:
    """How records are read, asked and written."""

    null: bool
    jsonl: bool
    template: Template | None
    timeout: float | None

    def __post_init__(self) -> None:
        if self.null and self.jsonl:
            raise UsageError("--null and --jsonl are two formats", "Give one of them.")

    @property
    def separator(self) -> bytes:
        return b"\0" if self.null else b"\n"


class FilterRun:
    """One pass over stdin."""

    def __init__(
        self,
        engine: "Engine",
        settings: SourcedConfig,
        options: Options,
        form: Form,
        said: set[str],
        *,
        kept: Kept,
        out: IO[str] | None = None,
    ) -> None:
        """`said` holds the notices that the user has read already; `kept` takes what is answered.

        `out` takes the answers, if not stdout as it is now.
        """
        out = out or sys.stdout
        self._kept = kept
        self._engine = engine
        self._settings = settings
        self._options = options
        self._form = form
        self._said = said
        as_json = form.jsonl or options.json
        self._output: Output = JsonOutput(out) if as_json else TextOutput(out, null=form.null)
        self._trace_to = out if as_json else sys.stderr
        self._warned: set[str] = set()
        self._tally = Tally()
        self._num_not_kept = 0
        self.progress = self._open_progress()

    def answer(self, number: int, raw: bytes) -> None:
        """Answer one record, or say why not.

        Raises:
            Cancelled: the user stopped the run.
        """
        record = Record(number)
        self.read(record, raw)
        try:
            if record.asked:
                record.outcome = self._answered_or_asked_again(*record.asked, number)
        except Cancelled:
            raise
        except AlignBeamError as error:
            record.outcome = error
        self.write(number, record.row, record.outcome)
        if self._engine.cancellation.is_interrupted:  # a record that fails at once decodes nothing
            raise Cancelled("cancelled")

    def write(self, number: int, row: dict[str, Any], outcome: "Result | AlignBeamError | None") -> None:
        """Write what became of a record; None: it was blank."""
        if outcome is None:
            if not self._form.jsonl:
                self._output.blank()
        elif isinstance(outcome, AlignBeamError):
            self._tally.count_failure()
            self._output.failure(number, outcome, row.get("id"))
        else:
            self._tally.count(outcome)
            self._output.result(row, outcome)
            self._keep(self._question(row), outcome)

    def _keep(self, question: str, result: "Result") -> None:
        """The answer is written: that it can't be kept too ends nothing, and is told once."""
        try:
            self._kept.add(question, result)
        except AlignBeamError as error:
            if not self._num_not_kept:
                say(f"note: answers are not kept: {error.message}")
            self._num_not_kept += 1

    def _question(self, row: dict[str, Any]) -> str:
        """What a row asked: of several messages the last."""
        return self._messages(row)[-1].content

    def finish(self, *, fail_on_refusal: bool) -> None:
        """Raises: AlignBeamError: some prompts failed. Exit: 4, if asked for."""
        tally = self._tally
        if self.progress:
            say(f"{tally.done} prompts: {tally}")
        if tally.failed:
            raise AlignBeamError(f"{tally.failed} of {tally.done} prompts failed")
        if self._num_not_kept:
            raise AlignBeamError(f"{self._num_not_kept} of {tally.done} answers were not kept in the log")
        if fail_on_refusal and tally.refused + tally.blocked:
            raise typer.Exit(session.REFUSED)

    def read(self, record: Record, raw: bytes) -> None:
        """What a record asks; one that can't be read or asked has the error as its outcome."""
        if is_blank(raw):
            return
        try:
            record.row = self._row(raw)
            record.asked = self._asked(record.number, record.row)
        except AlignBeamError as error:
            record.outcome = error

    def _row(self, raw: bytes) -> dict[str, Any]:
        """The fields of a record. Raises: UsageError: it can't be read."""
        if self._form.jsonl:
            return parse_row(raw)
        return {"prompt": decoded(raw, "the line").removesuffix("\r")}

    def _asked(self, number: int, row: dict[str, Any]) -> "tuple[list[Message], Config]":
        """What a row asks, and with which knobs. Raises: UsageError: it can't be asked."""
        messages = self._messages(row)
        knobs = row_knobs(row)
        session.refuse_loading_knobs(knobs)
        self._warn_of_fields(row)
        return messages, self._settings.override(knobs, f"line {number}").config

    def _messages(self, row: dict[str, Any]) -> "list[Message]":
        template = self._form.template
        return row_messages({"prompt": template.fill(row)} if template else row)

    def _answered_or_asked_again(self, messages: "list[Message]", config: "Config", number: int) -> "Result":
        """Nothing is written of an answer whose server is gone: it is asked again. Raises: as `_answered`."""
        try:
            return self._answered(messages, config, self.view(number))
        except ServerGone:
            return self._answered(messages, config, self.view(number))

    def _answered(self, messages: "list[Message]", config: "Config", view: View) -> "Result":
        """Raises: TimedOut: it took too long; what there was of it is not shown. Cancelled."""
        engine = self._engine
        limit = TimeLimit(engine.cancellation, self._form.timeout)

        def events() -> "Generator[Event, None, None]":
            yield from engine.load(config)  # a row's knobs may need a judge: that is no part of the answer
            yield from limit.over(engine.stream(messages, config))

        try:
            result = playing.play(engine, events(), view)
            assert result is not None, "a stream ends in Done"
            playing.stop_if_cancelled(result)
        except Cancelled:
            if not limit.expired or self._engine.cancellation.is_interrupted:
                raise
            raise self.timed_out() from None
        return result

    def timed_out(self) -> TimedOut:
        """The error of an answer that took too long."""
        return TimedOut(f"no answer in {self._form.timeout:g} seconds", "Raise --timeout, or ask for less.")

    def _open_progress(self) -> View | None:
        """A line on a terminal, where no trace runs over it."""
        if self._options.quiet or self._options.trace or not is_terminal(sys.stderr):
            return None
        from .progress import ProgressView

        return ProgressView(self._tally, count_records(sys.stdin.buffer, self._form.separator), self._said)

    def view(self, number: int) -> View:
        """What shows the making of an answer."""
        return self.progress or silent_view(
            self._options, self._said, self._trace_to, prefix=f"prompt {number}: "
        )

    def _warn_of_fields(self, row: dict[str, Any]) -> None:
        """A row may hold any field; one that is lost or changes nothing must not pass silently."""
        for name in sorted(set(row) - {*KNOBS} - self._warned):
            if name in RESULT_FIELDS:
                warning = "has the name of a field of the result, which overwrites it; rename it"
            elif knob := near_knob(name):
                warning = f"is not a knob and changes nothing; did you mean {knob}?"
            else:
                continue
            self._warned.add(name)
            say(f"warning: field '{name}' {warning}")
