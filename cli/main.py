"""The command `alignbeam`: its sub-commands, and where errors become messages and exit codes."""

import os
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper
from time import monotonic
from typing import Annotated, TextIO

import typer
from typer.main import get_command

from alignbeam_local.cancellation import known_signals
from alignbeam_local.errors import AlignBeamError, Cancelled, reason_of
from alignbeam_local.paths import no_home

from .console.terminal import say_error
from .habits import habit_hint
from .inputs import checked

_USAGE, _INTERRUPTED, _PIPE_CLOSED = 2, 130, 141
_ENDING = known_signals("SIGTERM", "SIGHUP")
_BINDING = "llama-cpp-python"  # to llama.cpp, in whose versions it comes
_SHOWN = 60  # characters of what was typed, in a message
_PATIENCE_SECONDS = 2  # with what is being closed: a second signal within them changes nothing

#: Sub-command: the module and the name of its function or app.
_COMMANDS = {
    "start": "start:start",
    "ask": "ask:ask",
    "filter": "filter:filter_prompts",
    "chat": "chat:chat",
    "serve": "serve:serve",
    "bridge": "bridge:bridge",
    "bench": "bench:bench",
    "plan": "planning.plan:plan",
    "models": "models:models_app",
    "judge": "judge:judge_app",
    "heads": "heads:heads_app",
    "tokens": "prevention.tokens:tokens_app",
    "eval": "eval:eval_app",
    "train": "prevention.train:train_app",
    "logs": "logs:logs_app",
    "config": "config:config_app",
    "doctor": "doctor:doctor",
}

_EPILOG = """
`alignbeam help COMMAND` says more about each, with examples.
`alignbeam --install-completion` lets your shell complete commands, flags and names.

Every knob is a flag, a variable `ALIGNBEAM_<KNOB>`, a key of a profile or of config.toml; the first of these
that is given counts, a profile that config.toml names last. `alignbeam config show` prints each value
and its source.

Exit codes: 0, 1 error, 2 usage, 3 model, 4 refused or blocked (`--fail-on-refusal`), 130 Ctrl-C,
143 SIGTERM, 129 SIGHUP.
"""


class Ended(BaseException):
    """A signal ends the program: raised where it is, so that models are freed and files put in order."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def make_app(first_word: str = "") -> typer.Typer:
    """Every sub-command, or only the one that is called: the others are not even imported."""
    app = typer.Typer(
        name="alignbeam",
        epilog=_EPILOG,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="markdown",
    )
    app.callback()(_top)
    for name in _wanted(first_word):
        module, _, attribute = _COMMANDS[name].partition(":")
        command = getattr(import_module(f".commands.{module}", __package__), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _wanted(first_word: str) -> Iterable[str]:
    if first_word == "--version":
        return ()
    return [first_word] if first_word in _COMMANDS else _COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code; nothing that can go wrong ends in a traceback."""
    args = _arguments(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    try:
        with _ended_by_signals():
            _require_text(args, os.environ)
            command = get_command(make_app(_first_word(args)))
            code = command.main(args=args, prog_name="alignbeam", standalone_mode=False)
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BaseException as error:
        return _report(error, args)


def _arguments(argv: Sequence[str]) -> list[str]:
    """Nothing asks for help, and so does `help COMMAND`."""
    if argv and argv[0] != "help":
        return list(argv)
    return [*argv[1:], "--help"]


def _require_text(args: Sequence[str], environ: Mapping[str, str]) -> None:
    """Bytes that are no UTF-8 are refused before anything is done, in paths too: all is kept as text.

    Raises:
        UsageError: an argument, or a variable of this program's, that holds such bytes.
    """
    for number, argument in enumerate(args, 1):
        checked(argument, f"argument {number}, {argument[:_SHOWN]!r},")
    for name in filter(_is_own, environ):
        checked(environ[name], f"environment {name}")


def _is_own(variable: str) -> bool:
    return variable.startswith("ALIGNBEAM_")


def _first_word(args: Sequence[str]) -> str:
    """The sub-command that is called, or that the shell completes the arguments of."""
    if "_ALIGNBEAM_COMPLETE" not in os.environ:
        return args[0]
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return next(iter(line.split()[1:]), "")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP raise `Ended`; what is ignored (nohup) stays so.

    A callback of llama.cpp swallows what is raised in it, and Python prints that: the end raises it again.
    """
    previous = {number: signal.getsignal(number) for number in _ENDING}
    caught = [number for number in _ENDING if previous[number] is not signal.SIG_IGN]
    received: list[tuple[int, float]] = []

    def end(number: int, _: object) -> None:
        if not received or monotonic() - received[-1][1] > _PATIENCE_SECONDS:
            received.append((number, monotonic()))
            raise Ended(number)

    hook = sys.unraisablehook
    sys.unraisablehook = lambda what: None if isinstance(what.exc_value, Ended) else hook(what)
    for number in caught:
        signal.signal(number, end)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number in caught:  # what is left to do takes no time: a further signal is too late
            signal.signal(number, signal.SIG_IGN if received else previous[number])
        if received:
            raise Ended(received[0][0])


def _report(error: BaseException, args: Sequence[str]) -> int:
    """Say what went wrong with what was typed, and choose the exit code."""
    if ended := _ended(error):
        _forget_output()
        return ended.exit_code
    code = 1
    match error:
        case Cancelled() | KeyboardInterrupt() | typer.Abort():
            code = _INTERRUPTED
        case AlignBeamError():
            say_error(error.message, error.hint)
            code = error.exit_code
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            help_hint = f"Try: {context.command_path} --help" if context else ""
            say_error(error.format_message(), habit_hint(args) or help_hint)
            code = _USAGE
        case _ if _is_broken_pipe(error):
            _forget_output()
            code = _PIPE_CLOSED
        case OSError():
            _report_system(error)
        case RuntimeError() if "home directory" in str(error):  # of Path.home(), in a library
            return _report(no_home(), args)
        case Exception():
            _report_internal(error)
        case _:
            raise error
    return code


def _ended(error: BaseException | None) -> Ended | None:
    """The signal behind an error: what it interrupts may fail in its own way, on a terminal that is gone."""
    while error is not None and not isinstance(error, Ended):
        error = error.__context__
    return error


def _is_broken_pipe(error: BaseException) -> bool:
    """Typer turns a broken pipe inside a command into a SystemExit."""
    return isinstance(error.__context__ if isinstance(error, SystemExit) else error, BrokenPipeError)


def _report_system(error: OSError) -> None:
    reason = reason_of(error)
    if error.filename is None and isinstance(error, FileNotFoundError) and not _is_somewhere():
        say_error("the current folder was removed", "Go to another one (cd), and try again.")
    elif error.filename is None:
        say_error(reason)
    else:
        say_error(
            f"{error.filename}: {reason}", "Check the path, its permissions and the free space on its disk."
        )


def _is_somewhere() -> bool:
    """Whether the current folder is there: where it is not, no relative path leads anywhere."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _report_internal(error: Exception) -> None:
    if os.environ.get("ALIGNBEAM_DEBUG"):
        traceback.print_exception(error)
    say_error(f"internal: {type(error).__name__}: {error}", "Set ALIGNBEAM_DEBUG=1 to see where.")


def _forget_output() -> None:
    """Die as quietly as other filters do; what is still buffered must not fail at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def _prepare_streams() -> None:
    """Text of any language can be written; closed standard streams read and write nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif mode == "r" and isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # whoever reads says that it is no text
        elif isinstance(stream, TextIOWrapper):
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="replace")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"alignbeam {_installed('alignbeam-local')}, {_BINDING} {_installed(_BINDING)}")
        raise typer.Exit


def _installed(package: str) -> str:
    """A package's version from its metadata: the library itself may be what cannot be loaded."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="print the versions and leave"),
    ] = False,
) -> None:
    """Lend a local specialist model the safety of a small aligned one, at inference time.

    New here? `alignbeam start` asks which model, checks it, and leads to a chat.
    """
