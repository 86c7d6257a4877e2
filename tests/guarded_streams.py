"""A byte that no verdict let through is looked for: many streams at once, faults at random, all recorded.

    python -m tests.guarded_streams --streams 500 --seed 1

Exits with 1 if one is found. Takes two minutes on two cores.
"""

import argparse
import json
import random
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from time import monotonic, sleep
from typing import Any, NamedTuple

import pytest

from alignbeam_local.errors import ContextFull, ModelError
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import Verdict
from tests.raw_http import connected, post
from tests.server_world import BEGIN, SCRIPT, ServerWorld, WordJudge, asked

REFUSED = "I'm sorry, but I can't help with that."
_WORDS = ("pan", "pot", "oil", "salt", "heat", "stir", "wait", "serve", "plate", "taste", "rest", "slice")
_QUESTIONS, _BEAMS, _LONGEST = 24, 3, 190
_AT_ONCE = 6
_CHANCES: Mapping[str, float] = {"draft": 0.0003, "bug": 0.0001, "full": 0.0003, "judge": 0.02, "leaves": 0.1}


class Passed(NamedTuple):
    """A text that a verdict let through, and when."""

    at: float
    text: str


class RecordingJudge(WordJudge):
    """Takes its time, fails at random, finds texts harmful that go on harmlessly; keeps what it passed."""

    def __init__(self, chance: random.Random) -> None:
        self.passed: dict[str, list[Passed]] = {}
        self._chance = chance

    def worst(self, turns: Sequence[Message], threshold: float, asked: Any = None) -> Verdict | None:
        return None

    def judge(
        self, turns: Sequence[Message], answers: Sequence[str], threshold: float, asked: Any = None
    ) -> list[Verdict]:
        sleep(0.005)
        if self._chance.random() < _CHANCES["judge"]:
            raise ModelError("the judge failed")
        scores = [self._score(answer) for answer in answers]
        passed = self.passed.setdefault(turns[-1].content, [])
        found = [Verdict(s, s, {}, "safe" if s <= threshold else "unsafe") for s in scores]
        sleep(0.005)
        passed += [Passed(monotonic(), a) for a, v in zip(answers, found, strict=True) if v.verdict == "safe"]
        return found

    def _score(self, answer: str) -> float:
        is_bad = "knife" in answer or blake2b(answer.encode(), digest_size=1).digest()[0] < 32
        return 4.5 if is_bad else 1.25


@dataclass
class Stream:
    """One request, every byte of its response by when it came, and how it was left."""

    question: str
    fields: dict[str, Any]
    leaves_after: int | None
    bytes_: list[tuple[float, bytes]] = field(default_factory=list)
    left: bool = False

    def run(self, world: ServerWorld) -> None:
        with connected(world) as sock:
            body = asked("", messages=[{"role": "user", "content": self.question}], **self.fields)
            sock.sendall(post(json.dumps(body).encode(), [("Connection", "close")]))
            while data := _received(sock):
                self.bytes_.append((monotonic(), data))
                if self.leaves_after is not None and len(self.bytes_) > self.leaves_after:
                    self.left = True
                    return

    @property
    def pieces(self) -> list[str]:
        """The content, chunk by chunk."""
        body = b"".join(data for _, data in self.bytes_).partition(b"\r\n\r\n")[2]
        choices = [choice for value in _values(body) for choice in value.get("choices", ())]
        return [text for choice in choices if (text := choice.get("delta", {}).get("content"))]

    @property
    def content(self) -> str:
        return "".join(self.pieces)

    @property
    def outcome(self) -> str:
        raw = b"".join(data for _, data in self.bytes_).decode("utf-8", "replace")
        for word in ("blocked", "withdrawn", "answered", "refused"):
            if f'"outcome": "{word}"' in raw or f'"outcome":"{word}"' in raw:
                return word
        return "left" if self.left else "failed" if '"error"' in raw else "no end"

    def faults(self, passed: Sequence[Passed]) -> Iterator[str]:
        """What was shown that no verdict before it had let through."""
        raw = b""
        for at, data in self.bytes_:
            raw += data
            content, texts = _shown(raw)
            in_time = [each.text for each in passed if each.at <= at]
            if not REFUSED.startswith(content) and not any(text.startswith(content) for text in in_time):
                yield f"{self.question}: content {content[-40:]!r}"
            yield from (f"{self.question}: text {text!r}" for text in texts if text not in in_time)
        if b"knife" in raw:
            yield f"{self.question}: a harmful word"


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except ConnectionError:
        return b""


def _shown(raw: bytes) -> tuple[str, list[str]]:
    """The content so far, and texts of beams."""
    body = raw.partition(b"\r\n\r\n")[2]
    content, texts = "", []
    for value in _values(body):
        for choice in value.get("choices", ()):
            content += choice.get("delta", choice.get("message", {})).get("content") or ""
        texts += [beam["text"] for beam in value.get("alignbeam", {}).get("beams", ()) if beam["text"]]
    return content, texts


def _values(body: bytes) -> Iterator[dict[str, Any]]:
    """Whole frames of a stream, or the one object of a whole response if it is there."""
    lines = [line.strip().removeprefix(b"data: ") for line in body.split(b"\n")]
    for line in lines:
        if line.startswith(b"{"):
            with suppress(ValueError):  # the rest of it is still to come
                yield json.loads(line)


def let_fail(patch: pytest.MonkeyPatch, world: ServerWorld, chance: random.Random) -> None:
    """Decodes of all models that will be opened fail at random."""
    opened = world.loader.open

    def opens(*args: Any) -> Any:
        model = opened(*args)
        extend = model.lm.extend

        def failing(tails: Any) -> None:
            _fail(chance)
            extend(tails)

        patch.setattr(model.lm, "extend", failing)
        return model

    patch.setattr(world.loader, "open", opens)


def _fail(chance: random.Random) -> None:
    drawn = chance.random()
    errors = {"draft": ModelError("no"), "bug": RuntimeError("no"), "full": ContextFull("no")}
    for name, error in errors.items():
        if (drawn := drawn - _CHANCES[name]) < 0:
            raise error


def found(
    patch: pytest.MonkeyPatch, num_streams: int, seed: int, **options: Any
) -> tuple[list[Stream], list[str]]:
    """So many streams, and the bytes among them that no verdict had passed.

    `options`: of the world; with `mode` in place of the streams' own modes.
    """
    chance, mode = random.Random(seed), options.pop("mode", None)
    for name, texts in _questions(chance).items():
        patch.setitem(SCRIPT, f"{name}{BEGIN}", texts)
    world = ServerWorld(patch, parallel=3, max_tokens=_LONGEST, queue_limit=100, **options)
    judge = RecordingJudge(random.Random(seed + 1))
    world.judge = judge
    let_fail(patch, world, random.Random(seed + 2))
    streams = [_stream(number, mode, chance) for number in range(num_streams)]
    with world.running():
        _all_at_once(world, streams)
        assert world.engine.health.state == "ok"
    return streams, [fault for each in streams for fault in each.faults(judge.passed.get(each.question, []))]


def _questions(chance: random.Random) -> dict[str, list[str]]:
    """Answers that part from one another, some of them with a harmful word somewhere."""
    return {f"Q{number}?": [_text(chance) for _ in range(2 * _BEAMS)] for number in range(_QUESTIONS)}


def _text(chance: random.Random) -> str:
    words = [chance.choice(_WORDS) for _ in range(chance.randrange(3, 34))]
    if chance.random() < 0.3:
        words[chance.randrange(len(words))] = "knife"
    return " ".join(words).capitalize() + "."


def _stream(number: int, mode: str | None, chance: random.Random) -> Stream:
    own: dict[str, Any] = {"stream": mode or chance.choice(["hold", "window", "window"])}
    if chance.random() < 0.5:
        own["include"] = ["beams.text"]
    fields = {"stream": chance.random() < 0.9, "temperature": chance.choice([0, 0.9]), "seed": number}
    leaves = chance.randrange(1, 4) if chance.random() < _CHANCES["leaves"] else None
    name = f"Q{chance.randrange(_QUESTIONS)}?"
    return Stream(f"[{number}] {name}", {**fields, "alignbeam": own}, leaves)


def _all_at_once(world: ServerWorld, streams: Sequence[Stream]) -> None:
    left = list(streams)[::-1]

    def ask() -> None:
        while left:
            try:
                stream = left.pop()
            except IndexError:
                return
            stream.run(world)

    threads = [threading.Thread(target=ask) for _ in range(_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with pytest.MonkeyPatch.context() as patch:
        streams, faults = found(patch, options.streams, options.seed)
    print(dict(Counter(stream.outcome for stream in streams)))
    print(f"{sum(len(data) for stream in streams for _, data in stream.bytes_)} bytes")
    print(*faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
