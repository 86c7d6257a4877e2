"""How many prompts a minute a running server answers: one client after another, then several at once.

    alignbeam serve --threads 2 &
    python docs/measure_server.py --prompts prompts.txt --alone alone.jsonl
    python docs/measure_server.py --prompts prompts.txt --alone alone.jsonl --clients 8 --seconds 600

`prompts.txt` has a prompt a line. The first call asks each once, one at a time, and keeps the answers
(temperature 0). The second lets several clients ask them over and over, streamed; the share `--leaving` of
them goes away in the middle of its answers. It tells the prompts answered a minute against those of the
first call, how many answers were the same, statuses and errors, how long the slowest took, what `/health`
says during the load and after it, and with `--pid` the server's memory. A key comes from ALIGNBEAM_API_KEY.
"""

import argparse
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

_HUNG_SECONDS = 300.0  # without a byte: comments come every ten
_ANSWERED = ("stop", "length", "content_filter")
_LOOKS = 5  # at health and memory, evenly over the load
_REST_SECONDS = 30.0  # for what was left to be dropped


@dataclass
class Answered:
    """What became of one request: its status or `left`, its text, its seconds."""

    prompt: str
    status: str
    text: str
    seconds: float


class Client:
    """Asks one request at a time."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        key = os.environ.get("ALIGNBEAM_API_KEY")
        self._headers = {
            "content-type": "application/json",
            **({"authorization": f"Bearer {key}"} if key else {}),
        }

    def get(self, path: str) -> Any:
        """The object at this path. Raises: OSError, HTTPException: there is none."""
        connection = self._connection()
        try:
            connection.request("GET", path, headers=self._headers)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def ask(self, prompt: str, leave_after: float | None = None) -> Answered:
        """Stream an answer; go away after so many seconds if it is not there by then."""
        begun, text, status = time.monotonic(), "", "ended early"
        connection = self._connection()
        try:
            connection.request("POST", "/v1/chat/completions", self._body(prompt), self._headers)
            if leave_after is not None:
                assert connection.sock is not None
                connection.sock.settimeout(leave_after)
            response = connection.getresponse()
            if response.status != 200:
                return Answered(prompt, str(response.status), "", time.monotonic() - begun)
            for piece in _pieces(response):
                if leave_after is not None and time.monotonic() - begun > leave_after:
                    return Answered(prompt, "left", text, time.monotonic() - begun)
                status = piece.get("finish_reason") or status
                text += piece.get("content", "")
        except TimeoutError:
            status = "hung" if leave_after is None else "left"
        except (OSError, HTTPException) as error:
            status = type(error).__name__
        finally:
            connection.close()
        return Answered(prompt, status, text, time.monotonic() - begun)

    def _connection(self) -> HTTPConnection:
        address = urlsplit(self._options.url)
        return HTTPConnection(address.hostname or "127.0.0.1", address.port or 80, timeout=_HUNG_SECONDS)

    def _body(self, prompt: str) -> str:
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}], "stream": True}
        asked |= {"model": self._options.model, "temperature": 0, "max_tokens": self._options.max_tokens}
        return json.dumps(asked)


def _pieces(lines: Iterator[bytes]) -> Iterator[dict[str, str]]:
    """The content and the reason of the end in each chunk of a stream; of a comment, nothing of either."""
    for line in lines:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            yield {}
            continue
        frame = json.loads(line.removeprefix(b"data: "))
        if "error" in frame:
            yield {"finish_reason": f"error {frame['error']['code']}"}
        for choice in frame.get("choices", ()):
            yield {"content": choice["delta"].get("content", ""), "finish_reason": choice["finish_reason"]}


@dataclass
class Load:
    """Several clients at once, for a while."""

    options: argparse.Namespace
    prompts: Sequence[str]
    found: list[Answered] = field(default_factory=list)

    def run(self) -> float:
        """The seconds that it took, until the last answer was there."""
        begun = time.monotonic()
        clients = [threading.Thread(target=self._ask, args=(n, begun)) for n in range(self.options.clients)]
        for client in clients:
            client.start()
        for look in range(_LOOKS):
            self._look()
            time.sleep(max(0.0, begun + (look + 1) * self.options.seconds / _LOOKS - time.monotonic()))
        for client in clients:
            client.join()
        seconds = time.monotonic() - begun
        self._await_rest()
        return seconds

    def _ask(self, number: int, begun: float) -> None:
        client, chance = Client(self.options), random.Random(number)
        leaves = number < self.options.leaving * self.options.clients
        while time.monotonic() < begun + self.options.seconds:
            prompt = chance.choice(self.prompts)
            answered = client.ask(prompt, chance.uniform(0.1, self.options.leave_within) if leaves else None)
            self.found.append(answered)
            # A full queue, or no server, is asked again, not at once.
            if answered.status not in (*_ANSWERED, "left"):
                time.sleep(1)

    def _look(self) -> None:
        print(json.dumps({"health": Client(self.options).get("/health"), "rss_mib": self._rss()}), flush=True)

    def _rss(self) -> float | None:
        if self.options.pid is None:
            return None
        status = Path(f"/proc/{self.options.pid}/status").read_text()
        return round(
            int(next(line for line in status.split("\n") if line.startswith("VmRSS")).split()[1]) / 1024, 1
        )

    def _await_rest(self) -> None:
        end, client = time.monotonic() + _REST_SECONDS, Client(self.options)
        while time.monotonic() < end and (health := client.get("/health"))["running"] + health["waiting"]:
            time.sleep(0.2)
        self._look()


def measure_alone(options: argparse.Namespace, prompts: Sequence[str]) -> None:
    """Each prompt once, one at a time; the answers are kept."""
    begun, client = time.monotonic(), Client(options)
    with options.alone.open("w", encoding="utf-8") as file:
        for prompt in prompts:
            answered = client.ask(prompt)
            file.write(json.dumps(vars(answered)) + "\n")
    minutes = (time.monotonic() - begun) / 60
    print(f"alone: {len(prompts) / minutes:.2f} prompts a minute")


def measure_load(options: argparse.Namespace, prompts: Sequence[str]) -> None:
    """Several clients at once, against what one was answered."""
    alone = [Answered(**json.loads(line)) for line in options.alone.read_text(encoding="utf-8").splitlines()]
    load = Load(options, prompts)
    minutes = load.run() / 60
    answered = [each for each in load.found if each.status in _ANSWERED]
    print(f"ended: {dict(Counter(each.status for each in load.found))}")
    print(f"slowest: {max(each.seconds for each in load.found):.1f} s")
    rate, rate_alone = len(answered) / minutes, 60 / (sum(each.seconds for each in alone) / len(alone))
    print(f"{options.clients} clients: {rate:.2f} prompts a minute, {rate / rate_alone:.2f} of one client's")
    if answered:
        waited = median(each.seconds for each in answered)
        print(f"an answer took {waited:.1f} s (median), alone {median(each.seconds for each in alone):.1f} s")
        tell_same({each.prompt: each.text for each in alone}, answered)
    if options.out:
        options.out.write_text(
            "".join(json.dumps(vars(each)) + "\n" for each in load.found), encoding="utf-8"
        )


def tell_same(alone: dict[str, str], answered: Sequence[Answered]) -> None:
    """How many answers are those that one client had, to the letter."""
    known = [each for each in answered if each.prompt in alone]
    same = sum(alone[each.prompt] == each.text for each in known)
    others = {each.prompt for each in known if alone[each.prompt] != each.text}
    asked = {each.prompt for each in known}
    print(f"as alone: {same} of {len(known)} answers; other at times: {len(others)} of {len(asked)} prompts")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8017")
    parser.add_argument("--model", help="an id of /v1/models; else the first")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--alone", type=Path, required=True, help="what one client was answered")
    parser.add_argument("--clients", type=int, help="several at once; without it, one")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--leaving", type=float, default=0.25, help="the share of clients that go away")
    parser.add_argument(
        "--leave-within", type=float, default=10.0, help="seconds after which they do, at most"
    )
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--pid", type=int, help="the server's, for its memory (Linux)")
    parser.add_argument("--out", type=Path, help="every request of the load, as JSON Lines")
    options = parser.parse_args()
    prompts = [line for line in options.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    options.model = options.model or Client(options).get("/v1/models")["data"][0]["id"]
    (measure_load if options.clients else measure_alone)(options, prompts)


if __name__ == "__main__":
    main()
