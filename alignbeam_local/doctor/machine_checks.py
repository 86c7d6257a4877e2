"""Is this machine set up? Python, llama.cpp, cores, directories, and the hub if the user wants it asked."""

import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from ..config import Config
from ..conversation.log_file import default_path, look_at
from ..errors import AlignBeamError, reason_of, rebuild_hint
from ..lm import prefix_store
from ..machine.machine import has_gpu
from ..models.hashes import known_hash
from ..models.hub_client import endpoint, network_hint
from ..models.pull import is_offline
from ..paths import cache_dir, config_dir, data_dir, models_dir
from .findings import Finding, problem

_NETWORK_SECONDS = 5
_IMPORT_SECONDS: float = 120  # a second or two where it works; a busy machine is slow
_OTHERS = 0o077


def python() -> Finding:
    """The interpreter."""
    version = platform.python_version()
    return Finding("python", "ok", f"{version}, {sys.executable}", details={"version": version})


def llama_cpp() -> Finding:
    """Its build, and whether it uses what the processor can; imported in a child process first."""
    if reason := _failed_import():
        return Finding("llama.cpp", "problem", f"it can't be loaded: {reason}", f"To fix it {rebuild_hint()}")
    from ..llama import library as backend

    parts = [part.rpartition(":")[2].strip() for part in backend.system_info().split("|")]
    features = [part.removesuffix(" = 1") for part in parts if part.endswith(" = 1")]
    message = f"{backend.build()}, {' '.join(features)}"
    details = {"build": backend.build(), "features": features}
    if "avx2" in _processor_flags() and "AVX2" not in features:
        return Finding(
            "llama.cpp",
            "warning",
            f"{message}: this processor has AVX2, which this build does not use",
            f"To fix it {rebuild_hint()}",
            details,
        )
    return Finding("llama.cpp", "ok", message, details=details)


def _failed_import() -> str:
    """Why a child process can't import llama.cpp; empty if it can."""
    command = [sys.executable, "-P", "-c", "import alignbeam_local.llama.context"]
    try:
        child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no result after {_IMPORT_SECONDS:g} s"
    if not child.returncode:
        return ""
    died = signal.Signals(-child.returncode).name if child.returncode < 0 else ""
    return died or (child.stderr.strip().splitlines() or ["?"])[-1]


def gpu() -> Finding:
    """Whether layers can be placed on one; that it works is for the models to show."""
    from ..llama import gpus as offload
    from ..machine.memory import gib

    gpus = offload.gpus()
    details = {"gpus": [gpu._asdict() for gpu in gpus]}
    if gpus:
        free = (f"{gpu.name}, {gib(gpu.free)} of {gib(gpu.total)} free" for gpu in gpus)
        return Finding("gpu", "ok", "; ".join(free), details=details)
    if has_gpu():
        message = "there is one, but this llama.cpp does not use it: everything runs on the processor"
        return Finding("gpu", "warning", message, "See 'GPU offload' in docs/install.md.", details)
    return Finding("gpu", "ok", "none: everything runs on the processor", details=details)


def cores(config: Config) -> Finding:
    """The threads that a decode takes, against the processors that this process may use."""
    from ..llama.library import default_threads, usable_processors

    threads, usable = config.threads or default_threads(), usable_processors()
    details = {"physical": default_threads(), "usable": usable, "threads": threads}
    message = f"{default_threads()} cores, {usable} processors for this process, {threads} threads"
    if threads > usable:
        return Finding(
            "cores",
            "warning",
            f"{message}: more threads than processors slow each other down",
            f"--threads {usable}",
            details,
        )
    return Finding("cores", "ok", message, details=details)


def directories() -> Iterator[Finding]:
    """Each can be written (only a pull writes models), and is not for others to read (models may be)."""
    yield _directory("config", config_dir, private=True, needed=False)
    yield _directory("data", data_dir, private=True, needed=True)
    yield _directory("cache", cache_dir, private=True, needed=True)
    yield _directory("models", models_dir, private=False, needed=False)


def kept_prefixes() -> Finding:
    """What processes leave to later ones, so that these need not read it again."""
    try:
        place = prefix_store.folder()
        sizes = [path.stat().st_size for path in prefix_store.kept_files()]
    except AlignBeamError as error:
        return problem("prefixes", error)
    except OSError as error:
        message = f"{place} can't be read: {error.strerror}"
        return Finding("prefixes", "warning", message, "Delete it: it is only a cache.")
    message = f"{len(sizes)} kept, {sum(sizes) / 1e6:.0f} MB in {place}" if sizes else "none kept yet"
    details = {"path": str(place), "files": len(sizes), "bytes": sum(sizes)}
    return Finding("prefixes", "ok", message, details=details)


def conversations() -> Finding:
    """What chats kept can be read; a file that is damaged keeps nothing more."""
    try:
        path = default_path()
        if not os.path.lexists(path):
            return Finding("logs", "ok", "no conversation kept yet", details={"path": str(path)})
        count = look_at(path)
    except AlignBeamError as error:
        return problem("logs", error)
    details = {"path": str(path), "conversations": count}
    return Finding("logs", "ok", f"{count} kept in {path}", details=details)


def trusted_hashes() -> Iterator[Finding]:
    """Damage in the record of earlier pulls: nothing is pulled or verified with it."""
    try:
        known_hash("")
    except AlignBeamError as error:
        yield problem("hashes", error)


def _directory(topic: str, place: Callable[[], Path], *, private: bool, needed: bool) -> Finding:
    try:
        path = place()
    except AlignBeamError as error:
        return problem(topic, error)
    details = {"path": str(path)}
    if not os.path.lexists(path):
        parent = next(parent for parent in path.absolute().parents if os.path.exists(parent))
        if os.access(parent, os.W_OK | os.X_OK):
            return Finding(topic, "ok", f"{path} (does not exist yet)", details=details)
        return _unwritable(topic, path, f"{parent} can't be written", needed=needed)
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return _unwritable(topic, path, reason_of(error), needed=needed)
    mode = path.stat().st_mode & 0o777
    if private and os.name == "posix" and mode & _OTHERS:  # elsewhere these bits say nothing
        return Finding(
            topic, "warning", f"{path} is open to others (mode {mode:o})", f"chmod 700 {path}", details
        )
    return Finding(topic, "ok", str(path), details=details)


def _unwritable(topic: str, path: Path, reason: str, *, needed: bool) -> Finding:
    variable = f"ALIGNBEAM_{topic.upper()}_DIR"
    return Finding(
        topic,
        "problem" if needed else "warning",
        f"{path} can't be written: {reason}",
        f"Correct its permissions, or set {variable} to another directory.",
        {"path": str(path)},
    )


def hub_address() -> Iterator[Finding]:
    """What can be seen without the network: an address that is none."""
    try:
        endpoint()
    except AlignBeamError as error:
        yield Finding("hub", "warning", error.message, error.hint)


def hub() -> Finding:
    """One HEAD request, unless the environment forbids the network; any answer will do."""
    if is_offline():
        return Finding("hub", "ok", "not checked: ALIGNBEAM_OFFLINE or HF_HUB_OFFLINE is set")
    try:
        address = endpoint()
    except AlignBeamError as error:
        return Finding("hub", "warning", error.message, error.hint)
    hint = f"{network_hint()}; or fetch files elsewhere: alignbeam models import."
    try:
        urlopen(Request(address, method="HEAD"), timeout=_NETWORK_SECONDS).close()
    except HTTPError:
        pass  # it answered
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        return Finding("hub", "warning", f"{address} does not answer: {reason}", hint)
    return Finding("hub", "ok", f"{address} answers")


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
