"""Which machine a run was made on: what its figures depend on, nothing that names its owner."""

import platform
from pathlib import Path

from ..llama_lm import default_threads, supports_gpu


def machine() -> dict[str, str | int | bool]:
    """Processor, physical cores, operating system, Python."""
    return {
        "processor": _processor(),
        "cores": default_threads(),
        "gpu": supports_gpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
