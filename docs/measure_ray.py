"""How a run grows with the workers of a Ray cluster, until the process that hands out groups is the limit.

    pip install -c constraints.txt '.[ray]' matplotlib
    python docs/measure_ray.py --seconds 0.5,0.05,0 --workers 1,2,4,8,16,32,64 --plot docs/performance/ray.svg

Workers here hold no model: each answer is `--seconds` of sleep, so that one machine can stand for many. All
else is as in `alignbeam eval run --ray`: the dispatcher, actors in processes of their own, outcomes of a
usual size, each written and synced to the disk by the one process that writes. Of each number of workers it
tells the groups a second, from the moment all are ready, the share of what as many processes by themselves
would give, and the milliseconds of the driver's processor a group.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.cluster.crew import Json, Task
from alignbeam_local.cluster.dispatcher import Dispatcher
from alignbeam_local.cluster.ray_crew import RayCrew
from alignbeam_local.cluster.share import Share
from alignbeam_local.cluster.work import Piece
from alignbeam_local.evaluation.runs.run_directory import SAMPLES, Log

_BYTES = 4500  # of a sample of three beams, as the starter's
_LEAST_GROUPS, _LEAST_SECONDS = 40, 15.0


class Sleeping:
    """Work without models."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def missing(self) -> Sequence[str]:
        return []

    def receive(self, piece: Piece) -> None: ...

    def about(self) -> Json:
        return {}

    def make(self, payload: int) -> Json:
        time.sleep(self._seconds)
        return {"method": "sleep", "suite": "none", "id": str(payload), "seed": 1, "text": "x" * _BYTES}


def measured(num_workers: int, seconds: float) -> tuple[float, float]:
    """Groups a second, and the driver's processor seconds a group, once all workers are ready."""
    crew = RayCrew(Sleeping(seconds), Share(1, 1 << 20, 0))
    dispatcher = Dispatcher(crew, Cancellation(), most_workers=num_workers)
    many = max(_LEAST_GROUPS, int(_LEAST_SECONDS * num_workers / seconds)) if seconds else 100 * _LEAST_GROUPS
    with TemporaryDirectory() as folder, Log(Path(folder) / SAMPLES) as log:
        begun: tuple[float, float, int] | None = None
        for made, finished in enumerate(dispatcher.all(_tasks(num_workers, many)), 1):
            log.append(finished.outcome)
            if begun is None and dispatcher.num_ready == num_workers:
                begun = time.monotonic(), time.process_time(), made
            if begun and made - begun[2] >= many - 2 * num_workers:
                break
        assert begun is not None
        took = made - begun[2]
        found = took / (time.monotonic() - begun[0]), (time.process_time() - begun[1]) / took
    crew.close()
    return found


def _tasks(num_workers: int, many: int) -> Iterator[Task]:
    """More than are counted: workers are not ready at once."""
    return (Task(number, number) for number in range(10 * many + 1000 * num_workers))


def drawn(found: Mapping[float, Sequence[tuple[int, float]]], file: Path) -> None:
    """Groups a second over workers, beside what they would make by themselves."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "alignbeam"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for seconds, rows in found.items():
        numbers, rates = zip(*rows, strict=True)
        (line,) = axes.plot(numbers, rates, "o-", label=f"{seconds:g} s a group")
        if seconds:
            axes.plot(numbers, [number / seconds for number in numbers], "--", color=line.get_color())
    axes.set(xlabel="workers", ylabel="groups a second (dashed: each by itself)", xscale="log", yscale="log")
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.legend()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", default="0.5")
    parser.add_argument("--workers", default="1,2,4,8,16,32,64")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    numbers = [int(number) for number in options.workers.split(",")]
    given: dict[str, Any] = {"num_cpus": max(numbers), "include_dashboard": False}
    ray.init("local", **given, object_store_memory=256 << 20, log_to_driver=False, logging_level="ERROR")
    found: dict[float, list[tuple[int, float]]] = {}
    print("seconds  workers  groups/s  of each by itself  driver's processor, ms a group")
    for seconds in map(float, options.seconds.split(",")):
        for number in numbers:
            rate, own = measured(number, seconds)
            found.setdefault(seconds, []).append((number, rate))
            share = f"{rate * seconds / number:.0%}" if seconds else ""
            print(f"{seconds:7}  {number:7}  {rate:8.1f}  {share:>17}  {1000 * own:.1f}", flush=True)
    if options.plot:
        drawn(found, options.plot)


if __name__ == "__main__":
    main()
