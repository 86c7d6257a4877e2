"""Does this build of llama.cpp run on this machine? A child process is asked: a crash can't be caught.

A natively built llama.cpp dies in its AMX kernels on some virtual machines (SIGSEGV at the first decode).
Without the extra buffer types it runs, but also without repacked weights.
"""

import json
import platform
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from . import llama_lm
from .errors import ModelError
from .paths import cache_dir, write_atomic

NOTICE = (
    "this build of llama.cpp crashes here with its fastest kernels (AMX), so they are left out and decoding "
    "is slower; rebuild llama-cpp-python with CFLAGS and CXXFLAGS='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'"
)
_CRASHES = {signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE}


def extra_buffers_work(model: Path) -> bool:
    """Whether weights may be repacked (`use_extra_bufts`); asked once per build and machine, then remembered.

    Raises:
        ModelError: decoding crashes either way.
    """
    known = _remembered()
    key = machine_key()
    if key not in known:
        known[key] = _probe(model)
        write_atomic(_file(), json.dumps(known, indent=1))
    return known[key]


def machine_key() -> str:
    """What the answer depends on: llama.cpp's build, its features here, the processor."""
    text = "|".join([llama_lm.build(), llama_lm.system_info(), platform.machine(), _processor()])
    return sha256(text.encode()).hexdigest()


def _probe(model: Path) -> bool:
    if _survives(model, extra_buffers=True):
        return True
    if _survives(model, extra_buffers=False):
        return False
    raise ModelError(
        f"llama.cpp crashes on this machine when it decodes with {model.name}",
        "Reinstall llama-cpp-python, built on this machine: pip install --force-reinstall --no-binary "
        "llama-cpp-python llama-cpp-python",
    )


def _survives(model: Path, *, extra_buffers: bool) -> bool:
    """Whether a child process decodes; one that fails in an orderly way has not crashed."""
    command = [sys.executable, "-m", "alignbeam_local.probe", str(model), str(int(extra_buffers))]
    # Out of reach of this terminal's Ctrl-C, which must not be remembered as a crash.
    child = subprocess.run(command, capture_output=True, check=False, start_new_session=True)
    return -child.returncode not in _CRASHES


def _remembered() -> dict[str, bool]:
    try:
        known = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in known.items() if isinstance(v, bool)} if isinstance(known, dict) else {}


def _file() -> Path:
    return cache_dir() / "probe.json"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), platform.processor())


def decode_once(model: Path, *, extra_buffers: bool) -> None:
    """What the child does: a prefill and a step, in which the kernels in question run."""
    weights = llama_lm.LlamaWeights(model, use_extra_bufts=extra_buffers)
    lm = llama_lm.LlamaLM(weights, sha256="", num_sequences=1, num_cells=128, threads=2)
    lm.extend({0: [token % weights.vocabulary.size for token in range(1, 65)]})
    lm.extend({0: [1]})
    lm.close()
    weights.close()


if __name__ == "__main__":
    decode_once(Path(sys.argv[1]), extra_buffers=sys.argv[2] == "1")
