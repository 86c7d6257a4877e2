"""What answers depend on besides models and knobs: this program, llama.cpp, the machine."""

import platform

from .. import __version__
from ..errors import UsageError
from ..llama.gpus import supports_gpu
from ..llama.library import build, default_threads
from ..machine.machine import processor
from .crew import Json

#: What must be the same on every machine.
_SAME = {"version": "this program", "llama_cpp": "llama.cpp"}


def builds() -> Json:
    """The versions of this program and of llama.cpp, and the machine."""
    return {"version": __version__, "llama_cpp": build(), "machine": machine()}


def machine() -> Json:
    """What figures depend on; nothing that names the machine's owner."""
    return {
        "processor": processor(),
        "cores": default_threads(),
        "gpu": supports_gpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def require_same_builds(about: Json) -> None:
    """Raises: UsageError: another machine has other builds than this one."""
    here = builds()
    for name, what in _SAME.items():
        if about.get(name) != here[name]:
            raise UsageError(
                f"it has {what} {about.get(name)}, here it is {here[name]}",
                "Install the same versions on all machines.",
            )
