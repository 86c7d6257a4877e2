"""docs/deploy: four servers behind nginx, restarted one after the other; and the manifest for Kubernetes."""

import re
import shlex
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import httpx2
import pytest

from alignbeam_local.server.serving import bound
from tests.replica import Replica
from tests.server_world import asked, frames, until
from tests.test_deployment import FOLDER, PORT, long_flags, needs, text_of
from tests.test_readme import flags_of

_NUM = 4
_CLIENTS, _EACH = 12, 25  # 300 requests
_FAIL_SECONDS = 1  # for which nginx leaves a server alone: fewer than in the file, so that the test is short


def free_ports(count: int) -> list[int]:
    listening = [bound("127.0.0.1", 0) for _ in range(count)]
    ports = [one.getsockname()[1] for one in listening]
    for one in listening:
        one.close()
    return ports


def site(port: int, ports: Sequence[int]) -> str:
    """The file of docs/deploy for servers of this machine, without TLS."""
    text = text_of("replicas.conf")
    for number, own in enumerate(ports, 1):
        text = text.replace(f"10.0.0.{number}:{PORT}", f"127.0.0.1:{own}")
    text = re.sub(r"^\s*ssl_.*\n", "", text, flags=re.M)
    text = text.replace("fail_timeout=5s", f"fail_timeout={_FAIL_SECONDS}s")
    text = text.replace("listen 443 ssl http2;", f"listen 127.0.0.1:{port};")
    return text.replace("alignbeam.example.org", "localhost")


@contextmanager
def proxied(folder: Path, ports: Sequence[int]) -> Iterator[str]:
    """The address of nginx before these servers; `access.log` says which of them answered."""
    (port,) = free_ports(1)
    temporary = "\n".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 2; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events {}\n"
        f"http {{\n{temporary}\n"
        "log_format who '$http_x_conversation $status $upstream_addr $upstream_status';\n"
        f"access_log {folder}/access.log who;\n{site(port, ports)}}}\n"
    )
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=-3)
    try:
        until(lambda: is_there(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def is_there(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code > 0
    except httpx2.HTTPError:
        return False


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    found = [Replica(port, 0.002) for port in free_ports(_NUM)]
    for one in found:
        one.start()
    for one in found:
        one.wait()
    yield found
    for one in found:
        one.stop(signal.SIGKILL)


class Client:
    """Asks again and again in one conversation, every other time streamed, and counts what it gets."""

    def __init__(self, url: str, name: str, pause: float) -> None:
        self.got: Counter[str] = Counter()
        self._pause = pause
        self._url, self._name = url, name
        self._client = httpx2.Client(timeout=30)

    def run(self) -> None:
        with closing(self._client):
            for number in range(_EACH):
                self.got[self._asked(is_streamed=number % 2 == 1)] += 1
                sleep(self._pause)

    def _asked(self, *, is_streamed: bool) -> str:
        body = asked("How?", stream=is_streamed, max_tokens=40)
        try:
            found = self._client.post(
                f"{self._url}/v1/chat/completions", json=body, headers={"x-conversation": self._name}
            )
        except httpx2.HTTPError as error:
            return type(error).__name__
        if found.status_code != 200:
            return str(found.status_code)
        return _streamed(found.text) if is_streamed else found.json()["choices"][0]["message"]["content"]


def _streamed(text: str) -> str:
    found = frames(text)
    if found[-1] != "[DONE]":
        return "cut"
    return "".join(frame["choices"][0]["delta"].get("content", "") for frame in found[:-1])


@needs("nginx")
def test_no_request_is_lost_through_a_rolling_restart(tmp_path: Path, replicas: list[Replica]) -> None:
    with proxied(tmp_path, [one.port for one in replicas]) as url:
        pause = _NUM * (_FAIL_SECONDS + 0.8) / _EACH  # so that requests come until the last one is back
        clients = [Client(url, f"conversation-{number}", pause) for number in range(_CLIENTS)]
        threads = [threading.Thread(target=client.run) for client in clients]
        for thread in threads:
            thread.start()
        for one in replicas:
            one.restart()
            sleep(_FAIL_SECONDS + 0.2)
        assert any(thread.is_alive() for thread in threads), "they were asked all the time"
        for thread in threads:
            thread.join(60)
    got = sum((client.got for client in clients), Counter[str]())
    assert got == {"Take a pan.": _CLIENTS * _EACH}


@needs("nginx")
def test_a_conversation_stays_with_one_server_and_moves_when_that_dies(
    tmp_path: Path, replicas: list[Replica]
) -> None:
    with proxied(tmp_path, [one.port for one in replicas]) as url:
        for _ in range(5):
            for name in ("a", "b", "c", "d", "e", "f"):
                headers = {"x-conversation": name}
                assert (
                    httpx2.post(f"{url}/v1/chat/completions", json=asked("How?"), headers=headers).status_code
                    == 200
                )
        served = _servers(tmp_path)
        assert all(len(servers) == 1 for servers in served.values())
        assert len(set().union(*served.values())) > 1
        (first,) = served["a"]
        next(one for one in replicas if str(one.port) in first).stop(signal.SIGKILL)
        after = httpx2.post(f"{url}/v1/chat/completions", json=asked("How?"), headers={"x-conversation": "a"})
        assert after.status_code == 200


def _servers(folder: Path) -> dict[str, set[str]]:
    """By conversation the servers that answered."""
    found: dict[str, set[str]] = {}
    for line in (folder / "access.log").read_text().splitlines():
        name, _, server, *_ = line.split(" ")
        if name != "-":
            found.setdefault(name, set()).add(server)
    return found


def test_the_script_waits_for_each_server(tmp_path: Path) -> None:
    """One that is not ready keeps it from beginning."""
    ran = subprocess.run(
        ["sh", str(FOLDER / "rolling-restart.sh"), "127.0.0.1:9"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "127.0.0.1:9 is not ready: nothing more is restarted" in ran.stderr


def documents() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all(text_of("kubernetes.yaml")))


def test_the_manifest_is_of_its_schema() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    found = documents()
    assert [one["kind"] for one in found] == ["Service", "PodDisruptionBudget", "Deployment"]
    for one in found:
        validate.validate(one, validate.latest_version(), strict=True)


def test_the_manifest_starts_what_the_container_has() -> None:
    service, budget, deployment = documents()
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert budget["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    assert long_flags(container["args"]) <= flags_of(["serve", *container["args"]])
    assert [str(port["containerPort"]) for port in container["ports"]] == [PORT]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/models", "/state", "/run/secrets/alignbeam-keys"} <= mounted
    assert "/run/secrets/alignbeam-keys" in text_of("Containerfile")
    assert pod["spec"]["terminationGracePeriodSeconds"] >= 5 + 30 + 5
    assert shutil.which("sh"), shlex.join(container["args"])
