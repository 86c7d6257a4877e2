"""The shards of a run, read as one run."""

import json
from collections.abc import Iterable, Iterator, Sequence

from ...errors import UsageError
from .run_directory import Json, key_of
from .saved_runs import SavedRun

#: What may differ between the shards of one run.
_OWN = ("shard", "machine")


def joined(runs: Sequence[SavedRun]) -> list[SavedRun]:
    """The same runs, the shards of each read together; runs that are whole stay as they are.

    Raises:
        UsageError: a shard is there twice, or a sample is.
    """
    groups: dict[str, list[SavedRun]] = {}
    for run in runs:
        groups.setdefault(_whole(run), []).append(run)
    return [_one(group) if "shard" in group[0].manifest else group[0] for group in groups.values()]


def _whole(run: SavedRun) -> str:
    """What names the run that a shard is of; a run that is no shard is its own."""
    shard = run.manifest.get("shard")
    if shard is None:
        return run.name
    return json.dumps([str(shard).rpartition("/")[2], _common(run.manifest)], sort_keys=True)


def _common(manifest: Json) -> Json:
    return {name: value for name, value in manifest.items() if name not in _OWN}


def _one(shards: Sequence[SavedRun]) -> SavedRun:
    """Several shards as one run, under the name of the first."""
    numbers = [run.manifest["shard"] for run in shards]
    if twice := next((number for number in numbers if numbers.count(number) > 1), None):
        raise UsageError(f"shard {twice} of one run is given twice", "Give each shard once.")
    if any(run.scores != shards[0].scores for run in shards):
        raise UsageError(
            f"the shards of {shards[0].name} were not all scored in the same way",
            "Rescore each with the same judge, record and threshold.",
        )
    manifest = {**_common(shards[0].manifest), "shards": dict(_machines(shards))}
    order = {name: place for place, name in enumerate(manifest["suites"])}
    scored = sorted((one for run in shards for one in run.scored), key=lambda one: order.get(one.suite, -1))
    samples = sorted(
        (sample for run in shards for sample in run.samples), key=lambda one: order.get(one["suite"], -1)
    )
    _require_once(samples)
    return SavedRun(shards[0].name, manifest, scored, samples, shards[0].scores)


def _machines(shards: Iterable[SavedRun]) -> Iterator[tuple[str, Json]]:
    for run in shards:
        yield str(run.manifest["shard"]), run.manifest.get("machine", {})


def _require_once(samples: Sequence[Json]) -> None:
    keys = [key_of(sample) for sample in samples]
    if len(set(keys)) < len(keys):
        raise UsageError("two shards hold the same sample", "Give the shards of one run, each once.")
