"""A server over models without weights in a process of its own, on a port that stays when it is restarted."""

import multiprocessing
import os
import signal
from multiprocessing.process import BaseProcess
from time import monotonic, sleep

import httpx2
import pytest

from alignbeam_local.server import serving
from alignbeam_local.server.serving import bound
from tests.server_world import ServerWorld, SlowLM

_FORK = multiprocessing.get_context("fork")


def _serve(port: int, decode_seconds: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    SlowLM.seconds = decode_seconds
    world = ServerWorld(pytest.MonkeyPatch(), parallel=4, queue_limit=64)
    with bound("127.0.0.1", port) as listening:
        serving.serve(world.app, listening, world.engine)
    os._exit(0)


class Replica:
    """One of several that are alike."""

    def __init__(self, port: int, decode_seconds: float) -> None:
        self.port = port
        self._decode_seconds = decode_seconds
        self._process: BaseProcess | None = None

    def start(self) -> None:
        self._process = _FORK.Process(target=_serve, args=(self.port, self._decode_seconds), daemon=True)
        self._process.start()

    def is_ready(self) -> bool:
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}/health", timeout=2).status_code == 200
        except httpx2.HTTPError:
            return False

    def wait(self, seconds: float = 20.0) -> None:
        """Until it is ready."""
        end = monotonic() + seconds
        while not self.is_ready():
            assert monotonic() < end, "a replica is not ready"
            sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Let it end its answers, and wait for that."""
        if self._process is not None and self._process.pid is not None:
            os.kill(self._process.pid, number)
            self._process.join(20)
            assert not self._process.is_alive()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()
        self.wait()
