"""Does this build of llama.cpp run on this machine, with this file? A child process is asked first.

A crash can't be caught, and there are two kinds. llama.cpp aborts on some files that keep to the format: a
vocabulary without its byte tokens is one. And a natively built one dies in its AMX kernels on some virtual
machines (SIGSEGV at the first decode); without the extra buffer types it runs, but weights are not repacked.
"""

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Literal, NamedTuple, cast

import numpy as np
import psutil

from ..cancellation import Cancellation, known_signals
from ..errors import AlignBeamError, ModelError, rebuild_hint
from ..llama import library as backend
from ..llama.context import LlamaLM
from ..llama.gpus import supports_gpu
from ..llama.weights import LlamaWeights
from ..lm.devices import ON_PROCESSOR, Offload
from ..models.hashes import model_sha256
from ..paths import cache_dir, write_atomic
from ..prompt.formats import prompt_format
from .machine import has_gpu, processor

NOTICE = (
    "this build of llama.cpp crashes here with its fastest kernels (AMX), so they are left out and decoding "
    "is slower; rebuild llama-cpp-python with CFLAGS and CXXFLAGS='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'"
)
NO_OFFLOAD = (
    "there is a GPU here, and this build of llama.cpp does not use it: "
    "see 'GPU offload' in docs/install.md (this is said once)"
)
Mode = Literal["repacked", "plain", "vocabulary"]

_CRASHES = known_signals("SIGSEGV", "SIGILL", "SIGBUS", "SIGABRT", "SIGFPE", "SIGTRAP")
_WINDOWS_EXCEPTION = 0xC0000000  # the bits of an exit code there that say: died of an exception
_DIVERGED = (
    "An adapter whose training diverged does that: leave it out (--lora none), or train it anew with a lower "
    "learning rate. If it is an older one, copy or pull it again."
)
_ORDERLY = 3  # what the child exits with after an error of our own, told on its stdout
_POLL_SECONDS, _LEAST_BYTES_PER_SECOND = 0.1, 10_000_000
_LEAST_SECONDS = 600  # a busy machine may need minutes to start the child at all; Ctrl-C ends it before
_CHILD_SLACK_BYTES = 4 << 30
#: Every byte that UTF-8 can hold, so that a tokeniser falls back on every byte token that it may need.
_EVERY_BYTE = "".join(
    map(chr, [*range(1, 0x180), *range(0x180, 0x800, 0x40), *range(0x800, 0xD800, 0x1000), 0xE000, 0xF000])
) + "".join(map(chr, range(0x10000, 0x110000, 0x40000)))


def weights_may_be_repacked(
    model: Path, *, offload: Offload = ON_PROCESSOR, cancellation: Cancellation | None = None
) -> bool:
    """Load the file and decode in a child process; asked once per file, build and machine, then remembered.

    Returns:
        Whether it may be loaded with repacked weights (`use_extra_bufts`).

    Raises:
        ModelError: it crashes either way, hangs or fails.
        Cancelled: the user stopped it.
    """

    def find_out() -> bool:
        if _death(model, "repacked", offload, cancellation) is None:
            return True
        if (death := _death(model, "plain", offload, cancellation)) is None:
            return False
        raise _crashed(model, death)

    # By devices, not by layers: how many fit changes from day to day.
    where = f"on {offload.devices}" if offload.layers else "0 layers"
    return _once(model, where, find_out)


class TriedAdapter(NamedTuple):
    """An adapter to try out with its model; `sha256` is its file's."""

    path: Path
    sha256: str
    scale: float


def require_adapters(
    model: Path,
    adapters: Sequence[TriedAdapter],
    *,
    offload: Offload = ON_PROCESSOR,
    cancellation: Cancellation | None = None,
) -> None:
    """Load the file with these adapters and decode in a child process; remembered as the file itself is.

    Raises:
        ModelError: it crashes, hangs or fails with them, or by itself.
        Cancelled: the user stopped it.
    """
    repacked = weights_may_be_repacked(model, offload=offload, cancellation=cancellation)

    def find_out() -> bool:
        mode: Mode = "repacked" if repacked else "plain"
        if death := _death(model, mode, offload, cancellation, adapters):
            names = " and ".join(str(adapter.path) for adapter in adapters)
            raise ModelError(
                f"llama.cpp crashes with {model} and {names}: {death}",
                "The adapter may be damaged: copy it again, or leave it out: --lora none.",
            )
        return True

    where = f"on {offload.devices}" if offload.layers else "0 layers"
    _once(model, "|".join([where, *(f"lora {one.sha256} x {one.scale!r}" for one in adapters)]), find_out)


def require_vocabulary(model: Path) -> None:
    """Try a file in a child process of which only the vocabulary is wanted.

    Raises:
        ModelError: see `weights_may_be_repacked`.
    """

    def find_out() -> bool:
        if death := _death(model, "vocabulary", ON_PROCESSOR, None):
            raise _crashed(model, death)
        return True

    _once(model, "vocabulary", find_out)


def machine_key() -> str:
    """What the answers depend on besides the file: llama.cpp's build, its features here, the processor."""
    text = "|".join([backend.build(), backend.system_info(), platform.machine(), processor()])
    return sha256(text.encode()).hexdigest()


def says_no_offload() -> bool:
    """Whether the user is to be told that this build leaves the GPU here unused; once a build and machine."""
    key = f"{machine_key()}|no offload"
    if not has_gpu() or key in _known():
        return False
    _remember(key, True)
    return True


def _once(model: Path, what: str, find_out: Callable[[], bool]) -> bool:
    """What is known of this very file, or is found out now; an error is not remembered."""
    key = f"{machine_key()}|{model_sha256(model)}|{what}"
    known = _known()
    if key not in known:
        found = find_out()
        _remember(key, found)
        return found
    return known[key]


def _remember(key: str, found: bool) -> None:
    with suppress(OSError):  # a memory that cannot be written costs time only
        write_atomic(_file(), json.dumps(_known() | {key: found}, indent=1))


def _known() -> dict[str, bool]:
    try:
        known = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {k: v for k, v in known.items() if isinstance(v, bool)} if isinstance(known, dict) else {}


def _file() -> Path:
    return cache_dir() / "probe.json"


# --- the parent's side


def _crashed(model: Path, death: str) -> ModelError:
    return ModelError(
        f"llama.cpp crashes with {model}: {death}",
        "The file may be damaged: copy or pull it again. If llama.cpp crashes with every model, "
        f"{rebuild_hint()}",
    )


def _death(
    model: Path,
    mode: Mode,
    offload: Offload,
    cancellation: Cancellation | None,
    adapters: Sequence[TriedAdapter] = (),
) -> str | None:
    """What a child process that tries it dies of; None if it lives.

    Raises:
        ModelError: no crash: it fails in an orderly way, hangs, or takes all memory.
        Cancelled: the user stopped it.
    """
    code, out, err = _run_child(model, mode, offload, cancellation or Cancellation(), adapters)
    if code == 0:
        return None
    last_line = next((line.strip() for line in reversed(err.splitlines()) if line.strip()), "")
    if code == _ORDERLY:
        raise ModelError(*json.loads(out))
    if -code in known_signals("SIGKILL"):
        raise ModelError(
            f"loading {model} was stopped by the system: it took too much memory",
            "Close other programs, or take a smaller file.",
        )
    if -code in _CRASHES:
        return last_line or signal.Signals(-code).name
    if code > 0 and code & _WINDOWS_EXCEPTION == _WINDOWS_EXCEPTION:
        return last_line or f"exception {code:#x}"
    raise ModelError(f"{model} could not be tried out (exit code {code}): {last_line}")


def _run_child(
    model: Path,
    mode: Mode,
    offload: Offload,
    cancellation: Cancellation,
    adapters: Sequence[TriedAdapter] = (),
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; the child never outlives this call."""
    # -P: the current directory is no place to import from.
    command = [sys.executable, "-P", "-m", __name__, str(model), mode, json.dumps(offload)]
    command += [word for one in adapters for word in (str(one.path), one.sha256, repr(one.scale))]
    seconds = _LEAST_SECONDS + model.stat().st_size / _LEAST_BYTES_PER_SECOND
    until = monotonic() + seconds
    # Out of reach of this terminal's Ctrl-C, which must not be taken for a crash.
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        start_new_session=True,
        text=True,
        errors="replace",
    )
    try:
        while True:
            try:
                out, err = child.communicate(timeout=_POLL_SECONDS)
                return child.returncode, out, err
            except subprocess.TimeoutExpired:
                cancellation.check()
                if monotonic() > until:
                    raise ModelError(
                        f"llama.cpp did not finish with {model} in {seconds:.0f} s",
                        "The file may be damaged: copy or pull it again.",
                    ) from None
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


# --- the child's side


def try_out(model: Path, mode: Mode, offload: Offload, adapters: Sequence[TriedAdapter] = ()) -> None:
    """What an answer asks of the file: every piece, its template, text of all bytes, a prefill and a step.

    Raises:
        ModelError: llama.cpp refuses the file, or what it computes are no numbers.
    """
    only_vocabulary = mode == "vocabulary"
    weights = LlamaWeights(
        model, offload=offload, use_extra_bufts=mode == "repacked", vocab_only=only_vocabulary
    )
    vocabulary = weights.vocabulary
    _ = vocabulary.fingerprint
    with suppress(ModelError):  # models.toml may name another one
        prompt_format(weights.info.chat_template, vocabulary)
    vocabulary.encode(_EVERY_BYTE)
    vocabulary.encode_template(_EVERY_BYTE)
    if not only_vocabulary:
        loaded = [weights.adapter(*adapter) for adapter in adapters]
        lm = LlamaLM(weights, sha256="", num_sequences=1, num_cells=128, threads=2, adapters=loaded)
        for tokens in (range(1, 65), [1]):
            lm.extend({0: [token % vocabulary.size for token in tokens]})
            if not np.isfinite(lm.logits(0)).all():
                names = " and ".join(map(str, [model, *(adapter.path for adapter in adapters)]))
                hint = _DIVERGED if adapters else "Copy or pull it again."
                raise ModelError(f"the weights of {names} give results that are not numbers", hint)
        lm.close()
    weights.close()


def _limit_resources(model: Path) -> None:
    """No core file; and no more memory than there is, as far as a GPU's address space does not hide it."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not supports_gpu():
        most = psutil.virtual_memory().available + model.stat().st_size + _CHILD_SLACK_BYTES
        with suppress(OSError, ValueError):  # a lower limit is in force already
            resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _main(path: str, mode: str, offload: str, *adapters: str) -> int:
    _limit_resources(Path(path))
    tried = [
        TriedAdapter(Path(file), sha256, float(scale))
        for file, sha256, scale in zip(adapters[::3], adapters[1::3], adapters[2::3], strict=True)
    ]
    try:
        try_out(Path(path), cast(Mode, mode), Offload(*json.loads(offload)), tried)
    except AlignBeamError as error:
        print(json.dumps([error.message, error.hint]))
        return _ORDERLY
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
