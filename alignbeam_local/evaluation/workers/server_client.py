"""A client of one running `alignbeam serve`, by its OpenAI-compatible API, as far as a run needs it."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from itertools import takewhile
from threading import Event
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ...errors import AlignBeamError, ContextFull, UsageError
from ..runs.run_directory import DAMAGE, Json

_SILENCE_SECONDS = 45.0  # a server that makes an answer says something every ten
_LOOK_SECONDS = 10.0
_LONGEST_WAIT = 30.0  # of what a busy server asks for
_OFF = ("shutting_down", "stopped")
_GONE = (502, 504)  # a proxy's: nobody is behind it


class Unreachable(AlignBeamError):
    """A server that does not answer; what it was asked can be asked of another one."""

    kind = "unreachable"


class ServerClient:
    """Asks one server. Calls may come from several threads at once."""

    def __init__(self, url: str, ended: Event) -> None:
        """`ended`: waiting for a busy server ends when it is set.

        Raises:
            UsageError: it is no address, or what `ALIGNBEAM_API_KEY` holds is no key.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        self._address = _address(self.url)
        self._ended = ended
        self._left = Event()
        key = os.environ.get("ALIGNBEAM_API_KEY", "").strip()
        if not (key.isascii() and key.isprintable()):
            raise UsageError("ALIGNBEAM_API_KEY holds what no key has", "Copy the key again.")
        self._headers = {"content-type": "application/json"} | (
            {"authorization": f"Bearer {key}"} if key else {}
        )

    def leave(self) -> None:
        """End what it was asked so far: its connections are closed with the next word."""
        self._left.set()
        self._left = Event()

    def state(self) -> str | None:
        """What it says of its health, as `ok` or `stuck`; None: nothing."""
        try:
            return str(self._get("/health").get("status"))
        except AlignBeamError:
            return None

    def version(self) -> str:
        """Of the program that runs there. Raises: Unreachable; UsageError: it is another program."""
        version = self._get("/health").get("version")
        if not isinstance(version, str):
            raise UsageError(f"{self.url} is no `alignbeam serve`", "Give the address that it prints.")
        return version

    def models(self) -> list[Json]:
        """What it answers as. Raises: Unreachable; UsageError: it does not say."""
        try:
            return [dict(model) for model in self._get("/v1/models")["data"]]
        except DAMAGE:
            raise UsageError(f"{self.url} lists no models", "Is this `alignbeam serve`?") from None

    def ask(self, body: Json) -> Json:
        """The answer as one object: `text`, and the last chunk's fields.

        Raises:
            Unreachable: it does not answer, or stopped in the middle, or was left.
            ContextFull: the prompt does not fit.
            UsageError, AlignBeamError: it refuses to answer this, or fails at it.
        """
        left = self._left
        while True:
            with self._answered(
                "POST", "/v1/chat/completions", json.dumps(body), _SILENCE_SECONDS
            ) as response:
                if response.status == 200:
                    return self._collected(response, left)
                wait = self._refused(response)
            if self._ended.wait(wait) or left.is_set():
                raise Unreachable(f"{self.url} was not waited for")

    def _refused(self, response: HTTPResponse) -> float:
        """The seconds after which to ask again. Raises: as `ask`."""
        error = _error_of(response.read())
        code, message = error.get("code"), str(error.get("message", f"status {response.status}"))
        if response.status in _GONE or (response.status == 503 and (not code or code in _OFF)):
            raise Unreachable(f"{self.url}: {message}")
        if response.status in (429, 503):
            return min(_LONGEST_WAIT, _seconds(response.headers.get("retry-after")))
        raise self._error(code, message)

    def _error(self, code: Any, message: str) -> AlignBeamError:
        hints = {
            "knob_locked": "Leave that knob out, or start the servers with --allow-knobs.",
            "invalid_api_key": "Set ALIGNBEAM_API_KEY.",
        }
        if code == "context_length_exceeded":
            return ContextFull(message)
        return UsageError(
            f"{self.url}: {message}", hints.get(str(code), "The server's messages may say more.")
        )

    def _collected(self, response: HTTPResponse, left: Event) -> Json:
        whole: Json = {"text": ""}
        for frame in _frames(takewhile(lambda _: not left.is_set(), response)):
            if frame is None:
                return whole
            if "error" in frame:
                error = _error_of(json.dumps(frame).encode())
                if error.get("code") in _OFF:
                    raise Unreachable(f"{self.url}: {error.get('message')}")
                raise self._error(error.get("code"), str(error.get("message")))
            try:
                _add(frame, whole)
            except DAMAGE as wrong:
                raise AlignBeamError(
                    f"{self.url} answers in another form: {wrong!r}", "Is this `alignbeam serve`?"
                ) from None
        raise Unreachable(f"{self.url} stopped in the middle of an answer")

    def _get(self, path: str) -> Json:
        with self._answered("GET", path, None, _LOOK_SECONDS) as response:
            content = response.read()
            if response.status in (401, 403):
                error = _error_of(content)
                raise self._error(error.get("code"), str(error.get("message")))
            if response.status != 200 and path != "/health":
                raise Unreachable(f"{self.url}{path}: status {response.status}")
        try:
            return dict(json.loads(content))
        except (ValueError, TypeError):
            raise UsageError(f"{self.url}{path} is no JSON", "Is this `alignbeam serve`?") from None

    @contextmanager
    def _answered(self, method: str, path: str, body: str | None, seconds: float) -> Iterator[HTTPResponse]:
        """Raises: Unreachable: no connection, or silence for so long."""
        kind = HTTPSConnection if self._address.scheme == "https" else HTTPConnection
        connection = kind(self._address.hostname or "", self._address.port, timeout=seconds)
        try:
            connection.request(method, self._address.path + path, body, self._headers)
            yield connection.getresponse()
        except (OSError, HTTPException) as error:
            raise Unreachable(f"{self.url} does not answer: {error or type(error).__name__}") from None
        finally:
            connection.close()


def _address(url: str) -> SplitResult:
    with suppress(ValueError):  # its port is none
        address = urlsplit(url)
        if address.scheme in ("http", "https") and address.hostname and address.port != 0:
            return address
    raise UsageError(f"--server {url}: no address", "Write http://HOST:PORT, as `alignbeam serve` prints it.")


def _add(frame: Json, whole: Json) -> None:
    """Take up a chunk of an answer. Raises: DAMAGE: it is none."""
    for choice in frame["choices"]:
        whole["text"] += choice["delta"].get("content") or ""
        if choice["finish_reason"]:
            whole["finish"] = choice["finish_reason"]
    whole |= {name: frame[name] for name in ("alignbeam", "usage", "system_fingerprint") if frame.get(name)}


def _frames(lines: Iterable[bytes]) -> Iterator[Json | None]:
    """The data of each event; None: the end was said."""
    for line in lines:
        if line.startswith(b"data: [DONE]"):
            yield None
        elif line.startswith(b"data: "):
            try:
                frame = dict(json.loads(line.removeprefix(b"data: ")))
            except (ValueError, TypeError):  # a proxy may end a body anywhere
                return
            yield frame


def _seconds(retry_after: str | None) -> float:
    """What it asks for; of a date, or nothing, one second."""
    with suppress(ValueError):
        if (seconds := float(retry_after or 1)) >= 0:
            return seconds
    return 1.0


def _error_of(content: bytes) -> Json:
    try:
        return dict(json.loads(content)["error"])
    except DAMAGE:
        return {}
