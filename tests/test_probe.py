"""The probe remembers by file, chooses, and makes a crash, a hang or a failure of the child a message."""

import json
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.errors import Cancelled, ModelError
from alignbeam_local.llama.weights import load_vocabulary
from alignbeam_local.lm.devices import Offload
from alignbeam_local.machine import probe
from alignbeam_local.paths import cache_dir
from tests.llama_models import write_tiny


class Child:
    """Stands for the child process: how it ends in each mode, and its runs."""

    def __init__(self, repacked: int, plain: int = 0, out: str = "", err: str = "") -> None:
        self.codes = {"repacked": repacked, "plain": plain, "vocabulary": repacked}
        self.ended = out, err
        self.runs: list[str] = []

    def __call__(self, model: Path, mode: str, *_: object) -> tuple[int, str, str]:
        self.runs.append(mode)
        return self.codes[mode], *self.ended


def use(monkeypatch: pytest.MonkeyPatch, child: Child) -> Child:
    monkeypatch.setattr(probe, "_run_child", child)
    monkeypatch.setattr(probe, "machine_key", lambda: "this machine")
    return child


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    return path


may_be_repacked = probe.weights_may_be_repacked


def test_a_crash_leaves_weights_as_they_are_and_is_remembered(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    child = use(monkeypatch, Child(-signal.SIGSEGV))
    assert not may_be_repacked(model)
    assert not may_be_repacked(model)
    assert child.runs == ["repacked", "plain"], "asked once per file, build and machine"


def test_another_machine_another_file_and_another_device_are_asked_again(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    child = use(monkeypatch, Child(0))
    assert may_be_repacked(model)
    monkeypatch.setattr(probe, "machine_key", lambda: "another")
    assert may_be_repacked(model)
    model.write_bytes(b"other weights")
    assert may_be_repacked(model)
    assert may_be_repacked(model, offload=Offload(2, (1,)))
    probe.require_vocabulary(model)
    assert child.runs == ["repacked"] * 4 + ["vocabulary"]
    copy = model.with_name("copy.gguf")
    copy.write_bytes(model.read_bytes())
    assert may_be_repacked(copy)
    assert len(child.runs) == 5, "a copy is the same file"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-signal.SIGABRT, r"crashes with .*model\.gguf: GGML_ASSERT\(x\) failed"),
        (-signal.SIGKILL, "too much memory"),
        (-signal.SIGTERM, r"could not be tried out \(exit code -15\): GGML_ASSERT"),
        (1, r"could not be tried out \(exit code 1\): GGML_ASSERT"),
    ],
)
def test_a_child_that_ends_badly_is_an_error_that_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch, model: Path, code: int, message: str
) -> None:
    child = use(monkeypatch, Child(code, code, err="one\nGGML_ASSERT(x) failed\n\n"))
    for _ in range(2):
        with pytest.raises(ModelError, match=message):
            may_be_repacked(model)
        with pytest.raises(ModelError, match=message):
            probe.require_vocabulary(model)
    runs = ["repacked", "plain"] if -code in probe._CRASHES else ["repacked"]
    assert child.runs == [*runs, "vocabulary"] * 2


def test_an_orderly_failure_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    use(monkeypatch, Child(3, out=json.dumps(["could not load it", "unknown architecture"])))
    with pytest.raises(ModelError, match="could not load it") as caught:
        may_be_repacked(model)
    assert caught.value.hint == "unknown architecture"


@pytest.mark.parametrize("memory", ["{", "[]", '{"a": 1}', "[" * 100_000, "\udcff"])
def test_a_damaged_memory_is_asked_again(monkeypatch: pytest.MonkeyPatch, model: Path, memory: str) -> None:
    child = use(monkeypatch, Child(0))
    may_be_repacked(model)
    (cache_dir() / "probe.json").write_bytes(memory.encode(errors="surrogateescape"))
    assert may_be_repacked(model)
    assert may_be_repacked(model)
    assert child.runs == ["repacked"] * 2


def test_a_memory_that_cannot_be_written_costs_time_only(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    child = use(monkeypatch, Child(0))
    monkeypatch.setattr(probe, "write_atomic", _no_room)
    assert may_be_repacked(model)
    assert may_be_repacked(model)
    assert len(child.runs) == 2


def _no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")


# --- real children


def child_runs(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: real([sys.executable, "-c", code], **options)
    )


def test_a_child_that_really_dies_is_seen(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    child_runs(monkeypatch, "import os; print('so it ends', file=os.sys.stderr, flush=True); os.abort()")
    with pytest.raises(ModelError, match=r"crashes with .*: so it ends"):
        may_be_repacked(model)


def test_a_child_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    child_runs(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(probe, "_LEAST_SECONDS", 0.1)
    started = time.monotonic()
    with pytest.raises(ModelError, match="did not finish"):
        may_be_repacked(model)
    assert time.monotonic() - started < 50


def test_ctrl_c_ends_the_child(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    child_runs(monkeypatch, "import time; time.sleep(60)")
    cancellation = Cancellation()
    cancellation.set()
    with pytest.raises(Cancelled):
        may_be_repacked(model, cancellation=cancellation)


def test_the_child_imports_nothing_from_where_it_is_started(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(99)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="could not load"):
        may_be_repacked(model)


def test_whole_models_and_vocabularies_live(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    assert isinstance(may_be_repacked(path), bool)
    probe.require_vocabulary(path)


def duplicate_pieces(whole: bytes) -> bytes:
    return whole.replace(b"<0x41>", b"<0x42>")


def no_byte_token(whole: bytes) -> bytes:
    return whole.replace(b"<0xC3>", b"<nope>")


def unknown_architecture(whole: bytes) -> bytes:
    return whole.replace(b"llama", b"lxama")


def no_numbers(whole: bytes) -> bytes:
    return whole[:-512] + b"\xff" * 512


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (duplicate_pieces, "crashes with .*GGML_ASSERT"),
        (no_byte_token, "crashes with .*unordered_map::at|crashes with .*map::at"),
        (unknown_architecture, "could not load"),
        (no_numbers, "give results that are not numbers"),
    ],
)
def test_files_that_keep_to_the_format_and_are_bad_all_the_same(
    tmp_path: Path, damage: Any, message: str
) -> None:
    path = write_tiny(tmp_path / "bad.gguf", "llama")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=message) as caught:
        may_be_repacked(path)
    assert caught.value.exit_code == 3


def test_a_model_without_an_end_token_gets_llama_cpps_default(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "endless.gguf", "llama")
    path.write_bytes(path.read_bytes().replace(b"eos_token_id", b"xxx_token_id").replace(b"</s>", b"<ss>"))
    assert isinstance(may_be_repacked(path), bool)
    vocabulary, _ = load_vocabulary(path)
    assert vocabulary.text(vocabulary.turn_end(uses_template=True) or 0) == "<ss>"


def test_a_template_without_end_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny(tmp_path / "endless.gguf", "llama")
    loop = b"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    name = b"tokenizer.chat_template"
    loop = loop.ljust(256 - len(name) - 8 - 4 - 8)  # the tensors stay aligned
    field = struct.pack("<Q", len(name)) + name + struct.pack("<IQ", 8, len(loop)) + loop
    whole = path.read_bytes()
    (count,) = struct.unpack_from("<Q", whole, 16)
    path.write_bytes(whole[:16] + struct.pack("<Q", count + 1) + field + whole[24:])
    monkeypatch.setattr(probe, "_LEAST_SECONDS", 1.5)
    with pytest.raises(ModelError, match="did not finish"):
        may_be_repacked(path)
