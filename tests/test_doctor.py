"""What the doctor finds, on tiny models and broken surroundings."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest
from alignbeam_local.cli import main as main_module
from alignbeam_local.cli.commands import doctor as cli_doctor
from typer.testing import CliRunner

from alignbeam_local.config import Config
from alignbeam_local.doctor import machine_checks as doctor_machine
from alignbeam_local.doctor.doctor import examine
from alignbeam_local.doctor.findings import Finding
from alignbeam_local.doctor.load import load
from alignbeam_local.llama import gpus as offload
from alignbeam_local.llama import library as backend
from alignbeam_local.llama.weights import load_vocabulary
from alignbeam_local.lm import prefix_store
from alignbeam_local.lm.devices import Gpu
from alignbeam_local.machine import machine, probe
from alignbeam_local.models.hashes import file_sha256
from alignbeam_local.paths import cache_dir, config_dir, data_dir, models_dir, write_atomic
from tests.llama_models import write_tiny
from tests.test_safety_tokens import token_file
from tests.test_steering import HEAD

#: One beam, nothing mixed, nothing judged: the draft alone.
ALONE = {"depth": 0, "beams": 1}


@pytest.fixture(autouse=True)
def tried_out(llama_cpp_asked_once: None, probed_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No child processes but where a test wants them."""
    monkeypatch.setattr(probe, "weights_may_be_repacked", lambda *_, **__: True)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.gguf", "llama")


def examined(**flags: Any) -> dict[str, Finding]:
    """The findings by topic."""
    return {finding.topic: finding for finding in examine(flags, {})}


def test_everything_is_looked_at(tiny: Path) -> None:
    found = examined(draft=str(tiny), **ALONE)
    assert list(found) == [
        *("python", "llama.cpp", "config", "data", "cache", "models", "prefixes", "logs", "settings"),
        *("gpu", "cores", "load", "draft", "kernels", "memory"),
    ]
    assert {finding.level for finding in found.values()} <= {"ok", "warning"}
    assert "runs, no published sha256 to compare with" in found["draft"].message
    assert set(found["memory"].details["needed"]["draft"]) == {"weights", "cache", "logits", "compute"}


def test_each_of_several_anchors_is_looked_at(tmp_path: Path, tiny: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(tiny.read_bytes())
    flags = {"draft": str(tiny), "anchor": [str(tiny), str(other)], "beams": 1, "anchor_row": "gated"}
    found = examine({**flags, "force": True}, {})
    told = {finding.topic: finding for finding in found}
    assert {"draft", "anchor", "anchor2", "memory"} <= told.keys()
    needed = told["memory"].details["needed"]
    assert list(needed) == ["draft", "anchor", "anchor2", "anchor_twin", "anchor2_twin"]
    weights = [bool(need["weights"]) for need in needed.values()]
    assert weights == [True, False, True, False, False], "a file is loaded once, whatever it plays"


def test_every_problem_comes_with_what_to_do(tiny: Path) -> None:
    found = examined(draft="no-such.gguf", anchor=str(tiny), judge="qwen2.5-coder-0.5b-instruct")
    assert [found[role].level for role in ("draft", "anchor", "judge")] == ["problem"] * 3
    assert "no such file" in found["draft"].message
    assert "no chat template" in found["anchor"].message
    assert "is not here yet" in found["judge"].message
    assert "models pull" in found["judge"].hint
    assert all(finding.hint for finding in found.values() if finding.level == "problem")


def test_a_role_without_a_model() -> None:
    write_atomic(config_dir() / "models.toml", '[profiles.empty]\nabout = "none"\n')
    found = examined(profile="empty", draft="x.gguf")
    assert found["draft"].level == "problem"


def test_a_llama_cpp_that_hangs_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = tmp_path / "python"
    hangs.write_text("#!/bin/sh\nexec sleep 20\n")
    hangs.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(hangs))
    monkeypatch.setattr(doctor_machine, "_IMPORT_SECONDS", 0.5, raising=False)
    start = monotonic()
    found = doctor_machine.llama_cpp()
    assert monotonic() - start < 10
    assert (found.level, found.message) == (
        "problem",
        "it can't be loaded: no result after 0.5 s",
    )
    assert "pip install" in found.hint


def test_settings_that_cannot_be_do_not_stop_the_rest() -> None:
    found = examined(context=7)
    assert found["settings"].level == "problem"
    assert found["models"].level == "ok"
    write_atomic(config_dir() / "models.toml", "[models")
    assert examined()["settings"].level == "problem"


def test_a_known_model_with_other_bytes(tiny: Path) -> None:
    models_dir().mkdir(parents=True)
    tiny.rename(models_dir() / "smollm2-135m-instruct.gguf")
    found = examined(**ALONE)["draft"]
    assert found.level == "problem"
    assert "is not the file that 'smollm2-135m-instruct' names" in found.message


def test_verify_reads_the_bytes_themselves(tiny: Path) -> None:
    sha256 = file_sha256(tiny)
    entry = f'[models.mine]\nabout = "x"\nbytes = {tiny.stat().st_size}\nsha256 = "{sha256}"\n'
    write_atomic(config_dir() / "models.toml", entry)
    models_dir().mkdir(parents=True)
    here = tiny.rename(models_dir() / "mine.gguf")
    file_sha256(here)
    stat = here.stat()
    here.write_bytes(here.read_bytes()[:-1] + b"!")
    os.utime(here, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    flags = {"draft": "mine", **ALONE}

    def level(*, verify: bool) -> str:
        return next(f.level for f in examine(flags, {}, verify=verify) if f.topic == "draft")

    assert (level(verify=False), level(verify=True)) == ("ok", "problem")


def test_kernels_that_crash_are_a_warning(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "weights_may_be_repacked", lambda *_, **__: False)
    found = examined(draft=str(tiny), **ALONE)["kernels"]
    assert (found.level, "AMX" in found.message, "CFLAGS" in found.hint) == ("warning", True, True)


def test_models_that_do_not_fit(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = psutil.virtual_memory()._replace(available=1 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    found = examined(draft=str(tiny), **ALONE)["memory"]
    assert (found.level, "--context" in found.hint) == ("problem", True)


def test_the_file_of_safety_tokens_is_held_to_the_drafts_vocabulary(tiny: Path, tmp_path: Path) -> None:
    knobs = {**ALONE, "draft": str(tiny), "safety_tokens": "boost"}
    assert examined(**knobs)["tokens"].level == "problem", "none is named"
    file = token_file(tmp_path / "tokens.json", "U")
    assert "another vocabulary" in examined(**knobs, safety_file=str(file))["tokens"].message
    own = token_file(tmp_path / "own.json", "a", vocabulary=load_vocabulary(tiny)[0])
    assert examined(**knobs, safety_file=str(own))["tokens"].level == "ok"


def test_a_knob_that_nothing_reads_is_a_warning(tiny: Path) -> None:
    found = examined(**ALONE, draft=str(tiny), safety_file="words.json")
    assert (found["knobs"].level, "safety_file" in found["knobs"].message) == ("warning", True)


def test_a_pair_is_checked_from_its_vocabularies(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignbeam_local.doctor.model_checks.require_silent_chat", lambda *_: None)
    assert examined(draft=str(tiny), anchor=str(tiny), beams=1)["pair"].level == "ok"
    monkeypatch.setattr("alignbeam_local.pair.check.single_share", lambda _: 0.6)
    assert examined(draft=str(tiny), anchor=str(tiny), beams=1)["pair"].level == "warning"
    monkeypatch.setattr("alignbeam_local.pair.check.single_share", lambda _: 0.1)
    assert examined(draft=str(tiny), anchor=str(tiny), beams=1)["pair"].level == "problem"


@pytest.mark.parametrize("folder", ["judges", "heads"])
def test_a_damaged_record_is_found(tiny: Path, folder: str) -> None:
    write_atomic(data_dir() / folder / "mine.json", "{")
    assert examined(draft=str(tiny), **ALONE)["record"].level == "problem"


def test_whether_there_is_a_head(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignbeam_local.doctor.model_checks.require_silent_chat", lambda *_: None)
    knobs = {"draft": str(tiny), "anchor": str(tiny), "judge": str(tiny), "beams": 1}
    found = examined(**knobs)["head"]
    assert (found.level, found.hint) == ("ok", "")
    assert "there is no head for tiny: requests are not read; nothing here goes by it" in found.message
    found = examined(**{**knobs, "beams": 3})["head"]
    assert (found.level, found.hint) == ("ok", "Fit one: alignbeam heads fit tiny")
    assert "requests are not read, and the choice is the paper's" in found.message
    found = examined(**knobs, steer="by_request")["head"]
    assert found.level == "warning"
    assert found.hint == "Fit one: alignbeam heads fit tiny"
    monkeypatch.setattr("alignbeam_local.doctor.model_checks.REQUEST_HEADS.find", lambda *_: HEAD)
    found = examined(**knobs, steer="by_request")["head"]
    assert (found.level, found.message) == (
        "ok",
        "requests can be read: clear up to 0.20, harmful above 0.80",
    )


# --- the machine


def test_llama_cpp_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(code: int, errors: str = "") -> Any:
        return lambda *_, **__: subprocess.CompletedProcess([], code, "", errors)

    monkeypatch.setattr(subprocess, "run", ended(-4))
    found = examined()
    assert (found["llama.cpp"].level, "SIGILL" in found["llama.cpp"].message) == ("problem", True)
    assert "draft" not in found, "nothing that needs it is tried"
    monkeypatch.setattr(subprocess, "run", ended(1, "Traceback\nOSError: libllama.so\n\n"))
    assert examined()["llama.cpp"].message.endswith("OSError: libllama.so")


def test_a_build_that_uses_less_than_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "system_info", lambda: "CPU : SSE3 = 1 | AVX2 = 0 | ")
    monkeypatch.setattr(doctor_machine, "_processor_flags", lambda: {"avx2"})
    found = doctor_machine.llama_cpp()
    assert (found.level, found.details["features"]) == ("warning", ["SSE3"])


def test_a_gpu_that_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_GPU_DEVICES", (str(tmp_path),))
    assert doctor_machine.gpu().level == "warning"
    monkeypatch.setattr(machine, "_GPU_DEVICES", (str(tmp_path / "none"),))
    assert doctor_machine.gpu().level == "ok"
    monkeypatch.setattr(offload, "gpus", lambda: [Gpu(1, "CUDA0", 3 << 30, 4 << 30, False)])
    assert doctor_machine.gpu().message == "CUDA0, 3.0 GiB of 4.0 GiB free"


def test_more_threads_than_processors(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.setattr("alignbeam_local.llama.library.usable_processors", lambda: 1)
    found = examined(draft=str(tiny), threads=4, **ALONE)["cores"]
    assert (found.level, found.hint) == ("warning", "--threads 1")


@pytest.mark.parametrize(
    ("busy", "level", "hint"), [(0.3, "ok", ""), (3.2, "warning", "Close what runs"), (20, "warning", "wait")]
)
def test_other_programs_at_work(busy: float, level: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.getloadavg", lambda: (busy, 0.0, 0.0))
    found = load(Config.of({"threads": 8}), usable=8)
    assert found.level == level
    assert hint in found.hint
    assert f"{busy:.1f} of 8 processors were busy" in found.message


def test_directories_open_to_others_or_in_the_way() -> None:
    for path in (config_dir(), data_dir(), models_dir()):
        path.mkdir(parents=True, mode=0o700)
    data_dir().chmod(0o755)
    models_dir().chmod(0o755)
    cache_dir().write_text("a file where a directory should be")
    found = {finding.topic: finding for finding in doctor_machine.directories()}
    levels = [found[topic].level for topic in ("config", "data", "cache", "models")]
    assert levels == ["ok", "warning", "problem", "ok"]
    assert "chmod 700" in found["data"].hint
    assert "ALIGNBEAM_CACHE_DIR" in found["cache"].hint
    assert not list(data_dir().iterdir())


def test_kept_prefixes_are_counted() -> None:
    assert "none" in doctor_machine.kept_prefixes().message
    prefix_store.folder().mkdir(parents=True)
    (prefix_store.folder() / "one").write_bytes(bytes(3_000_000))
    found = doctor_machine.kept_prefixes()
    assert found.message == f"1 kept, 3 MB in {prefix_store.folder()}"
    assert found.details["bytes"] == 3_000_000


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    data_dir().mkdir(parents=True)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    found = {finding.topic: finding for finding in doctor_machine.directories()}
    assert (found["data"].level, "No space" in found["data"].message) == ("problem", True)


class Hub(http.server.BaseHTTPRequestHandler):
    asked: list[str]

    def do_HEAD(self) -> None:
        type(self).asked.append(self.path)
        self.send_response(503)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    Hub.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield Hub
    server.shutdown()
    server.server_close()


def test_the_hub_is_asked_only_if_the_user_wants_it(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    list(examine(dict(ALONE), {}))
    assert hub.asked == []
    last = list(examine(dict(ALONE), {}, network=True))[-1]
    assert (last.topic, last.level, len(hub.asked)) == ("hub", "ok", 1)
    monkeypatch.setenv("ALIGNBEAM_OFFLINE", "1")
    assert "not checked" in doctor_machine.hub().message
    assert len(hub.asked) == 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "file:///etc/hostname", "http://[", "nonsense"])
def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = doctor_machine.hub()
    assert (found.level, bool(found.hint)) == ("warning", True)


# --- the command

FOUND = [
    Finding("python", "ok", "3.11"),
    Finding("draft", "problem", "gone \x1b[31m" + "and gone " * 20, "Pull it."),
]


def run(monkeypatch: pytest.MonkeyPatch, found: list[Finding], *args: str) -> tuple[int, str]:
    monkeypatch.setattr(cli_doctor, "examine", lambda *_, **__: iter(found))
    with CliRunner().isolation() as (out, _, _):
        code = main_module.main(["doctor", *args])
        sys.stdout.flush()
        return code, out.getvalue().decode()


def test_a_problem_is_exit_code_1_and_a_warning_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    code, out = run(monkeypatch, FOUND)
    assert code == 1
    assert out.splitlines()[0] == "ok       python     3.11"
    assert out.splitlines()[2:] == ["                    Pull it.", "Problems to fix: 1."]
    code, out = run(monkeypatch, [Finding("hub", "warning", "away")])
    assert (code, out.splitlines()[-1]) == (0, "No problems found.")


def test_json_is_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    code, out = run(monkeypatch, FOUND, "--json")
    report = json.loads(out)
    assert (code, report["ok"]) == (1, False)
    assert report["findings"][1].keys() == {"topic", "level", "message", "hint", "details"}


def test_a_narrow_terminal_gets_short_lines_and_no_control_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    shown = cli_doctor._styled(FOUND[1]).plain
    assert max(map(len, shown.splitlines())) <= 60
    assert "\x1b" not in shown
