"""What `alignbeam eval reselect` does."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from alignbeam_local import __version__
from alignbeam_local.engine.about_model import about_model
from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.methods.grid import parse_grid
from alignbeam_local.evaluation.runs.asked import room_of
from alignbeam_local.evaluation.runs.reselect import (
    beam_texts,
    judged_anew,
    require_selecting,
    reselected,
    reselected_manifest,
)
from alignbeam_local.evaluation.runs.resteer import alone_samples, place_of
from alignbeam_local.evaluation.runs.run_directory import DAMAGE, Json, RunDirectory, SampleKey, key_of
from alignbeam_local.models.registry import Registry
from alignbeam_local.settings import resolve

from ..console.terminal import say
from ..console.waiting import entered, tracked

Judging = Callable[[Json], Json]


def reselect_run(
    run: Path, grid_specs: Sequence[str], judge: str | None, out: Path, *, read_again: bool = False
) -> None:
    """Write a run directory with every choice from the run's beams; one that is there is gone on with.

    Raises:
        UsageError: no such run, nothing in it to choose from, a grid that can't be, another run in `out`.
        UsageError, ModelError: a model that can't judge, or not these beams; with `read_again` an anchor
            that is not here, or is another file by now.
    """
    from alignbeam_local.evaluation.runs.reread import anchors_now, read_anew

    grid = parse_grid(grid_specs)
    require_selecting(grid)
    directory, registry = RunDirectory(run), Registry.load()
    about_judge = about_model(registry.require(judge), "judge") if judge else None

    def chosen(sample: Json, alone: Json | None) -> list[Json]:
        found = choices.get(sample["method"], [])
        return [reselected(sample, name, config, alone) for name, config in found]

    try:
        manifest = directory.manifest()
        about, choices = reselected_manifest(manifest, grid, about_judge)
        read_by = {name: manifest["methods"][name] for name in choices} if read_again else {}
        anchors = anchors_now(read_by, registry) if read_again else {}
        for method in about["methods"].values():
            method["models"] = method["models"] | anchors
        kept = directory.samples()
        alone = alone_samples(kept)
        about["reselected"] = {"judged_anew": judge is not None, "read_again": read_again, "by": __version__}
        readable = partial(read_anew, heads=()) if read_again else lambda sample: sample

        def keys_of(sample: Json) -> list[SampleKey]:
            """Of its choices, made to fail before any work, unless another judge's verdicts are to come."""
            if judge:
                names = [name for name, _ in choices.get(sample["method"], [])]
                return [key_of({**sample, "method": name}) for name in names]
            return [key_of(one) for one in chosen(readable(sample), alone.get(place_of(sample)))]

        samples = [(sample, keys_of(sample)) for sample in kept]
        most = max((len(beam_texts(sample)) for sample, keys in samples if judge and keys), default=0)
    except DAMAGE as error:
        raise UsageError(
            f"can't choose among the answers of {run}: {error!r}",
            "It is damaged, or of an older version: run it again.",
        ) from None
    wanted = tracked(samples, "judging" if judge else "reading") if judge or anchors else samples
    with (
        RunDirectory(out).opened(about) as log,
        _judging(judge, {"beams": str(max(most, 1)), **room_of(manifest)}, registry) as judged,
        _reading(anchors, room_of(manifest), registry) as read,
    ):
        for sample, keys in wanted:
            if log.done.issuperset(keys):
                continue
            own = alone.get(place_of(sample))
            for one in chosen(read(judged(sample)), own and judged(own)):
                if key_of(one) not in log.done:
                    log.append(one)
    say(f"written: {out}")


@contextmanager
def _judging(judge: str | None, room: Mapping[str, str], registry: Registry) -> Iterator[Judging]:
    """What judges a sample's beams: the judge opened with the room of the run, or nothing."""
    if judge is None:
        yield lambda sample: sample
        return
    from alignbeam_local.engine.open_judge import open_judge

    config = resolve({"judge": judge, **room}, registry, os.environ).config
    with entered("loading the judge", open_judge(config, registry)) as (opened, card):
        yield lambda sample: judged_anew(sample, opened, card, config.threshold)


@contextmanager
def _reading(anchors: Mapping[str, Json], room: Mapping[str, str], registry: Registry) -> Iterator[Judging]:
    """What has the heads of these anchors read a sample's request once more, or nothing."""
    if not anchors:
        yield lambda sample: sample
        return
    from alignbeam_local.engine.open_reader import open_head
    from alignbeam_local.evaluation.runs.reread import read_anew

    with ExitStack() as opened:
        wanted = [{"anchor": about["name"], **room} for about in anchors.values()]
        configs = [resolve(flags, registry, os.environ).config for flags in wanted]
        heads = [opened.enter_context(open_head(config, registry)) for config in configs]
        yield lambda sample: read_anew(sample, heads)
