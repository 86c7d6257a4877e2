"""llama.cpp as a library: its build, its messages, its structs."""

import ctypes
import logging
import os
import sys
from functools import cache
from typing import Any

import psutil

from ..errors import ModelError
from .threads import llama_cpp

log = logging.getLogger("llama.cpp")
log.addHandler(logging.NullHandler())  # silent unless the application listens

_MOST_CELLS = 2**31 - 1
_LEVELS = {2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}


class Messages:
    """llama.cpp's messages into `logging`; the last errors are kept for our own."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.callback = llama_cpp.llama_log_callback(self._write)

    def _write(self, level: int, text: bytes, _: object) -> None:
        message = text.decode("utf-8", "replace").rstrip()
        if not message:
            return
        log.log(_LEVELS.get(level, logging.DEBUG), message)
        if level == 4:
            self.errors = [*self.errors[-4:], message]

    def take(self) -> str:
        """The errors since the last call, as one line."""
        errors, self.errors = self.errors, []
        return "; ".join(errors)


@cache
def backend() -> Messages:
    """Start llama.cpp once a process; its log callback must live as long."""
    writer = Messages()
    llama_cpp.llama_log_set(writer.callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return writer


def build() -> str:
    """llama.cpp's version and the Python package's."""
    return f"{llama_cpp.llama_version().decode()} (llama-cpp-python {llama_cpp.__version__})"


def system_info() -> str:
    """The CPU features and backends that this build of llama.cpp uses."""
    backend()
    return str(llama_cpp.llama_print_system_info().decode())


def c_library() -> ctypes.CDLL:
    """The functions of C that this process has loaded; on Windows they are in a library of their own."""
    return ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)


def require_countable(num_cells: int) -> None:
    """Raises: ModelError: so many cells of one context are beyond the numbers that llama.cpp counts with."""
    if num_cells > _MOST_CELLS:
        raise ModelError(
            f"a context of {num_cells} tokens in all is wanted, llama.cpp counts to {_MOST_CELLS}",
            "Lower --context, --max-tokens, --beams or --parallel.",
        )


def default_threads() -> int:
    """Physical cores: more threads than these slow a decode down."""
    return psutil.cpu_count(logical=False) or 1


def usable_processors() -> int:
    """Processors that this process may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_fields(params: Any, **values: Any) -> Any:
    """Set fields of a ctypes struct; a misspelt name, which ctypes would accept, is an error."""
    known = {name for name, *_ in params._fields_}
    for name, value in values.items():
        assert name in known, f"llama.cpp has no parameter {name}"
        setattr(params, name, value)
    return params
