"""Programs in processes of their own that start at once: forked off one that has imported what they need."""

import atexit
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import IO, Self

ROOT = Path(__file__).parents[1]
_TEXT = ((0, "r"), (1, "w"))
_IMPORTED = ("tests.fake_engine", "alignbeam_local.cli.chat.chat", "alignbeam_local.cli.line.input")


class Forked:
    """`python -c CODE ARGS`, as `subprocess.Popen` runs it, but for the time that imports take."""

    def __init__(
        self,
        code: str,
        *args: str,
        stdin: int = subprocess.PIPE,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
        is_leader: bool = False,
    ) -> None:
        """Streams are PIPE, DEVNULL or a descriptor. `is_leader`: it begins a session."""
        self.returncode: int | None = None
        self.stdin, theirs_in = _stream(stdin, "rb")
        self.stdout, theirs_out = _stream(stdout, "wb")
        self.stderr, theirs_err = _stream(stderr, "wb")
        ours, status = os.pipe()
        request = json.dumps([code, args, dict(os.environ if env is None else env), is_leader]).encode()
        control = _nursery()
        fds = [theirs_in, theirs_out, theirs_err, status]
        socket.send_fds(control, [len(request).to_bytes(4, "big") + request[:1]], fds)
        control.sendall(request[1:])
        for own, given in zip(fds, (stdin, stdout, stderr, subprocess.PIPE), strict=True):
            if given < 0:
                os.close(own)
        self._status = os.fdopen(ours, "rb", 0)
        self.pid = int(self._status.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode

    def wait(self, timeout: float = 30) -> int:
        """The exit code; minus the signal that killed it."""
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("forked", timeout)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, given: bytes = b"", timeout: float = 30) -> tuple[bytes, bytes]:
        """Write to its stdin and close that, and read both of its streams to their ends."""
        with ThreadPoolExecutor(2) as pool:
            read = [pool.submit(stream.read) if stream else None for stream in (self.stdout, self.stderr)]
            if self.stdin:
                self.stdin.write(given)
                self.stdin.close()
            out, err = (one.result(timeout) if one else b"" for one in read)
        self.wait(timeout)
        return out, err


def run_forked(
    code: str, *args: str, given: bytes = b"", env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """What `subprocess.run` returns, with both streams as text."""
    with Forked(code, *args, env=env) as child:
        out, err = child.communicate(given)
        return subprocess.CompletedProcess(args, child.wait(), out.decode(), err.decode())


def _stream(given: int, mode: str) -> tuple[IO[bytes] | None, int]:
    """Our end of a stream, if we have one, and the program's."""
    if given == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    if given != subprocess.PIPE:
        return None, given
    reads, writes = os.pipe()
    return (os.fdopen(writes, "wb"), reads) if mode == "rb" else (os.fdopen(reads, "rb"), writes)


# --- the process that forks


@cache
def _nursery() -> socket.socket:
    """The way to it; it ends when this process does."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tests.forked", str(theirs.fileno())]
    child = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], start_new_session=True)
    theirs.close()

    def end() -> None:
        ours.close()
        child.wait()

    atexit.register(end)
    return ours


def _serve(control: socket.socket) -> tuple[str, list[str]]:
    """Fork for every request; returns in the programs alone, with their code and arguments."""
    while True:
        begun, fds, _, _ = socket.recv_fds(control, 5, 4)
        _reap(os.WNOHANG if begun else 0)
        if not begun:
            os._exit(0)
        request = begun[4:]
        while len(request) < int.from_bytes(begun[:4], "big"):
            request += control.recv(1 << 16)
        if os.fork() == 0:
            control.close()
            code, args, environment, is_leader = json.loads(request)
            _mind(fds.pop())
            _become(fds, environment, is_leader)
            return code, args
        for fd in fds:
            os.close(fd)


def _reap(how: int) -> None:
    """Let the minders go that have nothing left to mind; their time is then counted as ours."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, how)[0]:
            pass


def _mind(status: int) -> None:
    """Fork the program; who forked it, and never returns, tells its number and how it ended."""
    pid = os.fork()
    if pid == 0:
        os.close(status)
        return
    os.write(status, b"%d\n" % pid)
    os.closerange(0, status)
    os.closerange(status + 1, 64)
    _, ended = os.waitpid(pid, 0)
    os.write(status, b"%d\n" % os.waitstatus_to_exitcode(ended))
    os._exit(0)


def _become(fds: list[int], environment: Mapping[str, str], is_leader: bool) -> None:
    """Have the streams, the variables and the signals of a program that was just started."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    if is_leader:
        os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    sys.stdin, sys.stdout = (os.fdopen(fd, mode, encoding="utf-8", closefd=False) for fd, mode in _TEXT)
    raw = os.fdopen(2, "wb", 0, closefd=False)
    sys.stderr = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)


if __name__ == "__main__":
    for name in _IMPORTED:
        import_module(name)
    import_module("alignbeam_local.cli.main").make_app()
    program, words = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv = ["-c", *words]
    exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
