"""Many prompts through `alignbeam filter` and a long chat, on the starter models: does anything grow?

    python -m tests.long_runs --prompts 2000 --turns 300

Takes 15 to 25 minutes on two cores. Prints what each run took, what it held, and how many of some answers are
the same in a fresh process; exits with 1 if memory, open files, threads or times are not flat, or answers
differ. One in forty answers has two beams and is judged.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import psutil

from alignbeam_local.config import Config
from alignbeam_local.conversation.conversation import Conversation
from alignbeam_local.engine.engine import Engine
from alignbeam_local.events import Done
from alignbeam_local.models.registry import Registry
from alignbeam_local.settings import resolve

_FILTER = [
    *(sys.executable, "-c", "import sys; from alignbeam_local.cli.main import main; sys.exit(main())"),
    *("filter", "--jsonl", "--profile", "starter"),
]
#: Short answers, no chance; a context that a chat fills every ten turns.
_KNOBS = {"beams": 2, "depth": 2, "max_tokens": 4, "temperature": 0, "context": 512}
_JUDGED_EVERY = 40
_TOPICS = ("rivers", "bread", "the moon", "maps", "tea", "glass", "bees", "paper", "rain", "clocks")
_BLOCKS, _WARM_UP, _COMPARED = 20, 0.2, 4
_MOST_GROWTH, _MOST_SLOWDOWN = 16 << 20, 1.25


class Sample(NamedTuple):
    """A process after so many answers and seconds."""

    done: int
    seconds: float
    rss: int
    files: int
    threads: int


class Run(NamedTuple):
    """What was seen of one run; `same` of `compared` answers were a fresh process's."""

    name: str
    samples: list[Sample]
    same: int
    compared: int

    @property
    def warm(self) -> list[Sample]:
        """Without the beginning, when buffers get their size."""
        return self.samples[int(_WARM_UP * len(self.samples)) :]

    @property
    def growth(self) -> float:
        """Bytes from the first to the last sample, by a straight line through all."""
        done, rss = np.array([(one.done, one.rss) for one in self.warm], np.float64).T
        return float(np.polyfit(done, rss, 1)[0] * (done[-1] - done[0]))

    @property
    def seconds_per_100(self) -> tuple[float, float]:
        """In the first half and in the second."""
        pairs = zip(self.warm, self.warm[1:], strict=False)
        rates = [100 * (b.seconds - a.seconds) / (b.done - a.done) for a, b in pairs]
        half = len(rates) // 2
        return median(rates[:half]), median(rates[half:])

    def failures(self) -> Iterator[str]:
        if self.growth > _MOST_GROWTH:
            yield f"memory grows: {self.growth / 2**20:.1f} MiB"
        for what in ("files", "threads"):
            counts = [getattr(one, what) for one in self.warm]
            if counts[-1] > counts[0]:
                yield f"{what} grow: {counts[0]} to {counts[-1]}"
        before, after = self.seconds_per_100
        if after > _MOST_SLOWDOWN * before:
            yield f"answers become slower: {before:.1f} to {after:.1f} s per 100"
        if self.same < self.compared:
            yield f"{self.compared - self.same} of {self.compared} answers differ from a fresh process's"


class Watch:
    """Takes a sample of a process now and then."""

    def __init__(self, pid: int, total: int) -> None:
        self.samples: list[Sample] = []
        self._process = psutil.Process(pid)
        self._started = time.monotonic()
        self._every = max(total // _BLOCKS, 1)

    def after(self, done: int) -> None:
        if done % self._every == 0:
            process = self._process
            counts = process.memory_info().rss, process.num_fds(), process.num_threads()
            self.samples.append(Sample(done, time.monotonic() - self._started, *counts))


class Filter:
    """`alignbeam filter --jsonl` as a child, asked one row after the other."""

    def __init__(self) -> None:
        flags = [word for name, value in _KNOBS.items() for word in (f"--{name.replace('_', '-')}", value)]
        self._child = subprocess.Popen(
            [*_FILTER, *map(str, flags)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._child.pid

    def answer(self, row: dict[str, Any]) -> str:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(row) + "\n")
        self._child.stdin.flush()
        return str(json.loads(self._child.stdout.readline())["text"])

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        assert self._child.wait() == 0


@contextmanager
def opened_filter() -> Iterator[Filter]:
    child = Filter()
    yield child
    child.close()


def row(number: int) -> dict[str, Any]:
    """A prompt that no other number has."""
    topic = _TOPICS[number % len(_TOPICS)]
    return {"prompt": f"{number}: say one thing about {topic}.", "beams": beams(number)}


def beams(number: int) -> int:
    return 2 if number % _JUDGED_EVERY == 0 else 1


def compared(total: int) -> list[int]:
    """Numbers of answers to give again: the last judged one, and others over the whole run."""
    spread = [total * (i + 1) // _COMPARED - 1 for i in range(_COMPARED)]
    return sorted({*spread, (total - 1) // _JUDGED_EVERY * _JUDGED_EVERY})


def run_filter(total: int) -> Run:
    """The same answers come from a fresh process that has answered one other prompt before."""
    with opened_filter() as child:
        watch = Watch(child.pid, total)
        answers = []
        for number in range(total):
            answers.append(child.answer(row(number)))
            watch.after(number + 1)
    other = row(total) | {"beams": 1}
    same = [answers[number] == fresh_answer(other, row(number)) for number in compared(total)]
    return Run("filter", watch.samples, sum(same), len(same))


def fresh_answer(*rows: dict[str, Any]) -> str:
    """The last of these, answered by a process of their own."""
    with opened_filter() as child:
        return [child.answer(one) for one in rows][-1]


def run_chat(total: int) -> Run:
    """Every other time the models have read ahead when the next question comes."""
    registry = Registry.load()
    config = resolve({"profile": "starter", **_KNOBS}, registry, {}).config
    wanted, again = compared(total), dict[int, tuple[str, dict[str, Any]]]()
    with Engine(config, registry) as engine:
        conversation = Conversation(engine)
        watch = Watch(psutil.Process().pid, total)
        for number in range(total):
            knobs = config.with_values({"beams": beams(number)})
            text = ask(conversation, row(number)["prompt"], knobs)
            if number in wanted:
                again[number] = text, asked_alone(conversation, beams(number))
            watch.after(number + 1)
            conversation.read_ahead(knobs)
            if number % 2:
                engine.background.wait()
        conversation.close()
    same = [text == fresh_answer(asked) for text, asked in again.values()]
    return Run("chat", watch.samples, sum(same), len(same))


def ask(conversation: Conversation, question: str, config: Config) -> str:
    for event in conversation.ask(question, config):
        if isinstance(event, Done):
            return event.result.text
    raise AssertionError("a stream ends in Done")


def asked_alone(conversation: Conversation, num_beams: int) -> dict[str, Any]:
    """What the last answer was given to, as a row."""
    turns = conversation._read[:-1]
    return {"messages": [{"role": turn.role, "content": turn.content} for turn in turns], "beams": num_beams}


def print_table(runs: Sequence[Run]) -> None:
    print("run     answers  s per 100, halves  RSS MiB          growth  files     threads  as fresh")
    for one in runs:
        first, last = one.warm[0], one.warm[-1]
        before, after = one.seconds_per_100
        print(
            f"{one.name:7} {last.done:7}  {before:7.1f} {after:7.1f}  "
            f"{first.rss / 2**20:7.1f} {last.rss / 2**20:7.1f}  {one.growth / 2**20:+6.1f}  "
            f"{first.files:3} {last.files:3}   {first.threads:3} {last.threads:3}  {one.same}/{one.compared}"
        )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=300)
    options = parser.parse_args()
    runs = [run_filter(options.prompts), run_chat(options.turns)]
    print_table(runs)
    failures = [f"{one.name}: {failure}" for one in runs for failure in one.failures()]
    print("\n".join(failures or ["all is flat"]))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
