"""Every error a user can meet: what went wrong, what to do about it, and the exit code."""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar

#: Every exit code of the process, and what it tells a script.
EXIT_CODES = {
    0: "an answer, or whatever was asked for",
    1: "an error; a `filter`, or a `chat` in a pipe, in which a line failed; a `doctor` that found a problem",
    2: "usage: a flag, a knob or an input that is not valid",
    3: "model: a file that is missing, damaged or of the wrong kind; a pair or a machine that it does not "
    "fit; a hopeless bridge",
    4: "refused or blocked, only with `--fail-on-refusal`",
    5: "a server of `--rpc`: not there, of another protocol, or lost while it was at work",
    129: "the terminal closed (SIGHUP)",
    130: "Ctrl-C",
    141: "the reader of stdout closed it",
    143: "SIGTERM",
}


class AlignBeamError(Exception):
    """A failure with a message for the user, a hint what to do, and the exit code of the process."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(AlignBeamError):
    """A knob, a flag or an input that cannot be: nothing was loaded or generated."""

    exit_code = 2
    kind = "usage"


class ModelError(AlignBeamError):
    """A model file that is missing, damaged, of the wrong kind, or does not fit this pair or machine."""

    exit_code = 3
    kind = "model"


class ContextFull(AlignBeamError):
    """The conversation does not fit the model's context."""

    kind = "context"


class InternalError(AlignBeamError):
    """A fault of this program: nothing that a user did."""

    kind = "internal"


class TimedOut(AlignBeamError):
    """The answer was not ready in the time that it was given; nothing of it is shown."""

    kind = "timeout"


class ServerGone(AlignBeamError):
    """The server that held the models ended, or does not answer; asked again, they are loaded here."""

    kind = "server_gone"


class RpcError(AlignBeamError):
    """An RPC server of llama.cpp that can't be used, or was lost: whatever was in the making is lost too."""

    exit_code = 5
    kind = "rpc"


class Cancelled(AlignBeamError):
    """The user stopped the step; caches are as they were before it."""

    exit_code = 130
    kind = "cancelled"


#: Those that another process may have met.
_TOLD = (UsageError, ModelError, ContextFull, TimedOut, Cancelled, InternalError, RpcError, ServerGone)


def error_of(kind: str, message: str, hint: str) -> AlignBeamError:
    """An error as another process told it; of a kind that none of them has a plain one."""
    kinds = {each.kind: each for each in _TOLD}
    return kinds.get(kind, AlignBeamError)(message, hint)


def as_ours(error: BaseException) -> AlignBeamError:
    """An error of ours as it is; of a fault only its kind: its message may hold what a user wrote."""
    if isinstance(error, AlignBeamError):
        return error
    return InternalError(f"internal error: {type(error).__name__}")


def reason_of(error: OSError | ValueError) -> str:
    """Why a file or a host can't be used, without numbers and paths where the system says it in words."""
    return getattr(error, "strerror", None) or str(error)


def did_you_mean(
    name: str, known: Iterable[str], otherwise: str, *, num: int = 1, cutoff: float = 0.6
) -> str:
    """A hint for an unknown name: those that it begins, or that are spelt nearly so; else what to do."""
    names = list(known)
    begun = [other for other in names if name and other.startswith(name)]
    close = begun[:num] or get_close_matches(name, names, num, cutoff)
    return f"Did you mean {' or '.join(close)}?" if close else otherwise


def rebuild_hint(cmake: str = "") -> str:
    """How to compile llama.cpp on this machine, in the version that is installed, if one is.

    `cmake` is what its build is to be told.
    """
    package, settings = "llama-cpp-python", f'CMAKE_ARGS="{cmake}" ' if cmake else ""
    try:
        wanted = f"{package}=={version(package)}"
    except PackageNotFoundError:
        wanted = package
    return (
        f"build it on this machine: {settings}pip install --force-reinstall --no-deps --no-cache-dir "
        f"--no-binary {package} {wanted}"
    )
