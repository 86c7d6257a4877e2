"""What `filter` writes for one prompt: a line of text, or an object."""

from typing import IO, Any, Protocol

from alignbeam_local.errors import AlignBeamError
from alignbeam_local.result import Result
from alignbeam_local.result_json import error_object, json_line

from ..console.terminal import for_stream, say_error


class Output(Protocol):
    """One record for every prompt, flushed."""

    def result(self, row: dict[str, Any], result: Result) -> None: ...

    def failure(self, number: int, error: AlignBeamError, identity: Any) -> None: ...

    def blank(self) -> None: ...


class TextOutput:
    """The answer's text, ended by a newline or a NUL, which it can't hold then."""

    def __init__(self, out: IO[str], *, null: bool) -> None:
        self._out = out
        self._null = null

    def result(self, row: dict[str, Any], result: Result) -> None:
        self._write(result.text)

    def failure(self, number: int, error: AlignBeamError, identity: Any) -> None:
        self.blank()
        say_error(f"line {number}: {error.message}", error.hint)

    def blank(self) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        if self._null:
            text, end = text.replace("\0", ""), "\0"
        else:
            text, end = text.replace("\r\n", " ").replace("\n", " ").replace("\r", " "), "\n"
        print(for_stream(text, self._out), end=end, file=self._out, flush=True)


class JsonOutput:
    """The result under its own names, the row's other fields kept; or the error."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def result(self, row: dict[str, Any], result: Result) -> None:
        self._write(json_line({**row, **result.as_dict()}))

    def failure(self, number: int, error: AlignBeamError, identity: Any) -> None:
        self._write(json_line({"id": identity, "line": number, "error": error_object(error)}))

    def blank(self) -> None:
        self._write("")

    def _write(self, line: str) -> None:
        print(for_stream(line, self._out), file=self._out, flush=True)
