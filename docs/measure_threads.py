"""What it costs and saves that llama.cpp's threads sleep soon instead of spinning while they wait.

    python docs/measure_threads.py MODEL.gguf [--threads 2] [--rounds 7] [--settings default,0,1000:1]
        [--cases alone,busy,twice]

A setting is the turns that a thread spins, and after a colon the threads, if other than `--threads`.
One process a setting holds the model; they answer in turns, round by round, so that a machine that drifts
changes little. `alone`: nothing of ours runs beside it. `busy`: a loop of Python on each core but one,
and at least one. `twice`: two processes of the same setting. Of each: ms a decode of three tokens, and
CPU time over wall time. Ratios are to `default` of the same round; medians with quartiles.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

_DECODES = 12
_DEFAULT = "300000"  # what GNU OpenMP takes where nothing is set
_BUSY = "while True: pass"


def work(path: Path, threads: int) -> None:
    """A process that times decodes of three sequences whenever a line comes in."""
    from alignbeam_local.llama.context import LlamaLM
    from alignbeam_local.llama.weights import LlamaWeights
    from alignbeam_local.machine.probe import weights_may_be_repacked

    weights = LlamaWeights(path, use_extra_bufts=weights_may_be_repacked(path))
    lm = LlamaLM(weights, sha256="", num_sequences=4, num_cells=1024, threads=threads)
    lm.set_tokens({sequence: list(range(1000, 1064)) for sequence in range(3)})
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for step in range(_DECODES):
            lm.extend({sequence: [2000 + step] for sequence in range(3)})
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        for sequence in range(3):
            lm.truncate(sequence, 64)
        print(1e3 * wall / _DECODES, cpu / wall, flush=True)


class Worker:
    """Such a process, with a setting of GNU OpenMP's."""

    def __init__(self, setting: str, args: argparse.Namespace) -> None:
        environment = dict(os.environ)
        spins, _, threads = setting.partition(":")
        environment["GOMP_SPINCOUNT"] = _DEFAULT if spins == "default" else spins
        command = [
            sys.executable,
            __file__,
            str(args.model),
            "--threads",
            threads or str(args.threads),
            "--work",
        ]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._line()

    def start(self) -> None:
        assert self._child.stdin
        self._child.stdin.write("\n")
        self._child.stdin.flush()

    def result(self) -> tuple[float, float]:
        ms, cores = map(float, self._line().split())
        return ms, cores

    def close(self) -> None:
        self._child.kill()
        self._child.wait()

    def _line(self) -> str:
        assert self._child.stdout
        return self._child.stdout.readline()


@contextmanager
def busy(count: int) -> Iterator[None]:
    """While inside, so many loops run."""
    loops = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measured(pair: Sequence[Worker], case: str, threads: int) -> tuple[float, float]:
    """ms a decode, and CPU time over wall time, of the pair's first."""
    with busy(max(1, threads - 1) if case == "busy" else 0):
        running = pair if case == "twice" else pair[:1]
        for worker in running:
            worker.start()
        results = [worker.result() for worker in running]
        return results[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--settings", default="default,0,100,1000,10000")
    parser.add_argument("--cases", default="alone,busy,twice")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.model, args.threads)
        return
    settings, cases = args.settings.split(","), args.cases.split(",")
    found = defaultdict(list)
    with ExitStack() as stack:
        workers = {s: [Worker(s, args), Worker(s, args)] for s in settings}
        for pair in workers.values():
            for worker in pair:
                stack.callback(worker.close)
        print(f"load {os.getloadavg()[0]:.1f}, {args.threads} threads, {args.rounds} rounds", flush=True)
        for number in range(args.rounds):
            for case in cases:
                for i in range(len(settings)):
                    name = settings[(i + number) % len(settings)]
                    found[case, name].append(measured(workers[name], case, args.threads))
    for case in cases:
        base = np.array([ms for ms, _ in found[case, settings[0]]])
        for name in settings:
            ms, cores = np.array(found[case, name]).T
            low, middle, high = np.quantile(ms / base, (0.25, 0.5, 0.75))
            print(
                f"{case:12} {name:>8}: {np.median(ms):7.1f} ms (least {ms.min():.1f}),"
                f" ratio {middle:.2f} [{low:.2f}, {high:.2f}], {np.median(cores):.2f} cores"
            )
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
