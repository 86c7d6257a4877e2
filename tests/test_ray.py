"""`--ray`: what is said where there is no cluster; and a real one on this machine, where Ray is installed."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from alignbeam_local.cli.filter.on_ray import _greet, _lacking

from alignbeam_local.cluster import extra, ray_cluster
from alignbeam_local.cluster.builds import builds
from alignbeam_local.cluster.ray_cluster import connected, require_places
from alignbeam_local.cluster.share import Opened, Share, share_of
from alignbeam_local.config import Config
from alignbeam_local.errors import AlignBeamError, ModelError, UsageError
from alignbeam_local.evaluation.runs.run_directory import RunDirectory, key_of
from alignbeam_local.machine.context_size import context_sizes
from tests.fake_pool import REGISTRY
from tests.llama_models import write_tiny
from tests.running import run, touch_models
from tests.server_world import until
from tests.test_eval_run import timeless

NEEDS_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install '.[ray]'")
PROGRAM = [sys.executable, "-c", "import sys; from alignbeam_local.cli.main import main; sys.exit(main())"]
KNOBS = ["--depth", "0", "--beams", "1", "--max-tokens", "8", "--context", "200", "--threads", "1", "--force"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "find_spec", lambda _: object())


@pytest.mark.parametrize("command", ["eval", "filter"])
def test_without_the_extra_it_is_said(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    touch_models()
    monkeypatch.setattr(extra, "find_spec", lambda _: None)
    words = {
        "eval": ["eval", "run", "--suite", "ordinary", "--out", str(tmp_path / "o")],
        "filter": ["filter"],
    }
    ran = run(*words[command], "--ray", "local", given="How?\n")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: --ray needs Ray, which is not installed\n"
        "hint: pip install 'alignbeam-local[ray]', on every machine.\n"
    )
    assert not (tmp_path / "o").exists()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", "nothing answers there: Connection refused"),
        ("no.such.host.invalid:6379", "nothing answers there"),
        ("a..b:6379", "nothing answers there: encoding with 'idna' codec failed"),
        ("10.0.0.1", "no address"),
        ("ray://10.0.0.1:10001", "no address"),
        ("10.0.0.1:port", "no address"),
        ("10.0.0.1:99999", "no address"),
        ("", "no address"),
    ],
)
def test_an_address_where_nobody_is(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message), connected(address):
        pass


@pytest.mark.usefixtures("installed")
def test_a_cluster_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: Any, **__: Any) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9\n    Python: 3.10")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UsageError, match=r"Version mismatch.*Ray: 2\.9") as caught, connected("auto"):
        pass
    assert "same versions of Python and Ray" in caught.value.hint
    assert signal.getsignal(signal.SIGTERM) is handler
    assert sys.stdout.writable()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--timeout", "3"), "--ray and --timeout"),
        (("--trace",), "--ray and --trace"),
        (("--parallel", "2"), "--ray and --parallel"),
    ],
)
def test_what_workers_can_not_do(words: tuple[str, ...], message: str) -> None:
    touch_models()
    ran = run("filter", "--ray", "local", *words, given="How?\n")
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


@pytest.mark.parametrize(
    ("compared", "line", "lacking"),
    [
        ({"beams": 1}, {"beams": 3}, "the judge"),
        ({"beams": 1, "depth": 0}, {"depth": 6, "on_unsafe": "refuse"}, "the anchor and judge"),
        ({}, {"safety_tokens": "boost", "safety_file": "t"}, "safety tokens"),
        ({"safety_tokens": "boost", "safety_file": "t"}, {"safety_file": "u"}, "safety tokens"),
        ({}, {"beams": 1}, ""),
        ({}, {"alpha": 0.9, "threshold": 2.0}, ""),
    ],
)
def test_a_line_needs_nothing_by_which_workers_were_not_compared(
    compared: dict[str, Any], line: dict[str, Any], lacking: str
) -> None:
    config = Config.of({"draft": "d", "anchor": "a", "judge": "j", **compared})
    assert _lacking(config.with_values(line), config) == lacking


def test_workers_without_a_cluster_are_an_error() -> None:
    assert "there are none" in run("filter", "--workers", "2", given="How?\n").err


def test_a_worker_takes_what_its_models_need(tmp_path: Path) -> None:
    file = str(write_tiny(tmp_path / "a.gguf", "llama"))
    config = Config.of({"draft": file, "depth": 0, "beams": 1, "context": 4096})
    one = Opened(config, {"draft": (file, context_sizes(config)["draft"])})
    twice = Opened(config, {"draft": (file, context_sizes(config)["draft"].times(2))})
    alone = share_of([one], REGISTRY, 2, has_gpus=False)
    assert (alone.cpus, alone.gpus) == (2, 0)
    assert share_of([one, twice], REGISTRY, 2, has_gpus=True).memory > alone.memory
    assert share_of([one], REGISTRY, 2, has_gpus=True).gpus == 1
    on_processor = Opened(config.with_values({"gpu_layers": 0}), one.models)
    assert share_of([on_processor], REGISTRY, 2, has_gpus=True).gpus == 0


def test_no_node_with_room_is_said() -> None:
    require_places(1, Share(1, 1, 0))
    with pytest.raises(
        AlignBeamError, match=r"no machine of the cluster has 4 CPUs and 2\.0 GiB of memory, 1 GPU"
    ):
        require_places(0, Share(4, 2 << 30, 1))


def test_ray_is_not_loaded_before_it_is_asked_for() -> None:
    modules = "alignbeam_local.cluster.ray_crew, alignbeam_local.cli.crew"
    code = f"import sys, {modules}; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert ray_cluster.LOCAL == "local"


def test_a_worker_whose_judge_is_known_otherwise_is_refused() -> None:
    """What `on_unsafe = auto` blocks hangs on the judge's record."""
    about = {**builds(), "roles": {"judge": {"sha256": "1", "calibration": "a"}}}
    _greet({"judge": {"sha256": "1", "calibration": "a"}}, about)
    with pytest.raises(ModelError, match="its judge or what is known of it differ"):
        _greet({"judge": {"sha256": "1", "calibration": "b"}}, about)
    with pytest.raises(UsageError, match="this program"):
        _greet({}, {**about, "version": "9"})


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Ray keeps its files in a folder of its own, whose path is short: there are sockets in it."""
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        yield {**os.environ, "HOME": str(tmp_path), "RAY_TMPDIR": folder}


@NEEDS_RAY
def test_a_run_on_a_cluster_of_this_machine_that_is_killed_into_and_stopped(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    suite, model = tmp_path / "s.jsonl", write_tiny(tmp_path / "a.gguf", "llama")
    rows = [{"prompt": f"Say {number}", "label": "benign"} for number in range(600)]
    suite.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = ["eval", "run", "--suite", str(suite), "--method", "draft", "--draft", str(model), *KNOBS]
    assert (
        subprocess.run([*PROGRAM, *words, "--out", tmp_path / "one"], env=environment, check=False).returncode
        == 0
    )
    spread = [*PROGRAM, *words, "--ray", "local", "--out", str(tmp_path / "two")]
    samples = tmp_path / "two" / "samples.jsonl"
    with subprocess.Popen(spread, env=environment, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: samples.exists() and samples.read_bytes().count(b"\n") > 5, 60)
        for child in psutil.Process(process.pid).children(recursive=True):
            if "RayHost" in " ".join(child.cmdline()):
                child.kill()
                break
        killed = samples.read_bytes().count(b"\n")
        until(lambda: samples.read_bytes().count(b"\n") > killed + 20, 60)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "a worker is gone" in said
    assert "partial: draft on s" in said
    assert "Traceback" not in said
    assert subprocess.run(spread, env=environment, check=False).returncode == 0
    one, two = (timeless(RunDirectory(tmp_path / name).samples()) for name in ("one", "two"))
    assert sorted(two, key=key_of) == sorted(one, key=key_of)
    assert len(RunDirectory(tmp_path / "two").manifest()["workers"]) == 2, (
        "each cluster has a node of its own"
    )


@NEEDS_RAY
def test_filter_on_a_cluster_of_this_machine_writes_what_it_writes_alone(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    model = write_tiny(tmp_path / "a.gguf", "llama")
    given = "".join(f"Say {number}\n" if number % 5 else "\n" for number in range(20))
    words = [*PROGRAM, "filter", "--draft", str(model), *KNOBS]
    ran = [
        subprocess.run(
            [*words, *more], env=environment, input=given, capture_output=True, text=True, check=False
        )
        for more in ([], ["--ray", "local"])
    ]
    assert [one.returncode for one in ran] == [0, 0]
    assert ran[1].stdout == ran[0].stdout
    assert ran[1].stdout.count("\n") == 20
