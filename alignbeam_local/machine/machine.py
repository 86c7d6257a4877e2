"""Where figures were measured, and what it took of memory."""

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

_GPU_DEVICES = ("/dev/nvidia0", "/dev/kfd")


@dataclass(frozen=True)
class Machine:
    """What figures depend on besides the program."""

    processor: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    load: float  # of the last minute, when it began: others at work make figures worthless


def this_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(
        processor(),
        psutil.cpu_count(logical=False) or 1,
        psutil.virtual_memory().total,
        platform.platform(),
        platform.python_version(),
        psutil.getloadavg()[0],
    )


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def has_gpu() -> bool:
    """Whether the system knows a GPU, whatever llama.cpp was built for."""
    return any(map(os.path.exists, _GPU_DEVICES))


def peak_memory() -> int:
    """The most that this process has had in memory so far, in bytes."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return _peak_memory_elsewhere()
    [kilobytes] = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(kilobytes)


def _peak_memory_elsewhere() -> int:
    """Where there is no /proc: macOS counts bytes, other Unixes KiB, Windows has a call of its own."""
    try:
        import resource
    except ImportError:
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
