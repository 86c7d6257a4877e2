"""Workers on a Ray cluster: the flags of it, and a crew from the knobs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from alignbeam_local.errors import UsageError
from alignbeam_local.settings import SourcedConfig, SourcedValue

if TYPE_CHECKING:
    from alignbeam_local.cancellation import Cancellation
    from alignbeam_local.cluster.crew import Json
    from alignbeam_local.cluster.dispatcher import Dispatcher
    from alignbeam_local.cluster.model_work import ModelWork
    from alignbeam_local.cluster.share import Opened

_PANEL = "Other machines"

RayFlag = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="HOST:PORT|auto|local",
        rich_help_panel=_PANEL,
        help="let workers of this Ray cluster answer, each with --threads CPUs",
    ),
]
WorkersFlag = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        max=100_000,
        metavar="N",
        rich_help_panel=_PANEL,
        help="at most so many of them; default: as many as there is room for",
    ),
]


def refuse_workers(ray: str | None, workers: int | None) -> None:
    """Raises: UsageError: a number of workers, and no cluster that would have them."""
    if workers is not None and ray is None:
        raise UsageError("--workers: there are none", "Give --ray as well.")


def with_cpus(settings: SourcedConfig) -> SourcedConfig:
    """The same with as many threads as a worker's CPUs: those given, or all of the smallest node's.

    The cluster is connected.
    """
    from alignbeam_local.cluster.ray_cluster import nodes

    if settings.config.threads:
        return settings
    cpus = min((int(node.cpus) for node in nodes() if node.cpus >= 1), default=1)
    threads = SourcedValue(cpus, "CPUs of a node", explicit=False)
    return settings.with_value("threads", threads)


@dataclass(frozen=True)
class Duty:
    """What workers are there for.

    Attributes:
        work: what each of them does, and with which models.
        sets: what it has open, one set at a time.
        cpus: of each.
    """

    work: "ModelWork"
    sets: "Sequence[Opened]"
    cpus: int


@contextmanager
def dispatcher(
    duty: Duty,
    cancellation: "Cancellation",
    *,
    most_workers: int | None,
    welcome: "Callable[[Json], None]",
    tell: Callable[[str], None],
) -> "Iterator[Dispatcher]":
    """Workers of the cluster that is connected, which all have this duty; the rest as for `Dispatcher`.

    Raises:
        AlignBeamError: no node has what one needs.
    """
    from alignbeam_local.cluster.dispatcher import Dispatcher
    from alignbeam_local.cluster.ray_cluster import nodes, require_places
    from alignbeam_local.cluster.ray_crew import RayCrew
    from alignbeam_local.cluster.share import share_of

    work = duty.work
    share = share_of(duty.sets, work.names, duty.cpus, has_gpus=any(node.gpus for node in nodes()))
    parts = {part.name: part for model in work.models for part in model.parts}
    with closing(RayCrew(work, share, parts)) as crew:
        require_places(crew.places(), share)
        yield Dispatcher(crew, cancellation, most_workers=most_workers, welcome=welcome, tell=tell)
