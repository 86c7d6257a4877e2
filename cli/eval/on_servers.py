"""What `alignbeam eval run --server` does: running servers answer, this process writes it down."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from threading import Event

from alignbeam_local.config import knobs_that
from alignbeam_local.errors import UsageError

from .. import session
from ..console.terminal import say
from ..options import Options
from .run import Request, plan_of, watched
from .watch import Watch


def run_on_servers(request: Request, options: Options) -> None:
    """Run it, or go on with it, by the servers that the request names.

    Raises:
        Cancelled: the user stopped it; what was made is kept.
        UsageError, AlignBeamError: something that can't be; see the parts.
    """
    from alignbeam_local.cancellation import Cancellation
    from alignbeam_local.cluster.dispatcher import Dispatcher
    from alignbeam_local.evaluation.runs.run_directory import RunDirectory
    from alignbeam_local.evaluation.workers.served_run import (
        asked_methods,
        require_alike,
        require_unbegun,
        served,
        served_manifest,
        welcome,
    )
    from alignbeam_local.evaluation.workers.server_client import ServerClient
    from alignbeam_local.evaluation.workers.server_crew import ServerCrew
    from alignbeam_local.evaluation.workers.server_work import about_server, probe

    prepared = session.prepare(replace(options, flags={**options.flags, "profile": None}), as_used=None)
    _tell_unsent(prepared)
    asked = asked_methods(request.methods, _knobs(options))
    plan = plan_of(request, [each.entry for each in asked], prepared)
    require_unbegun(plan.items)
    ended, cancellation, watch = Event(), Cancellation(), Watch(quiet=options.quiet)
    clients = [ServerClient(url, ended) for url in _different(request.servers)]
    model = options.flags.get("profile") or _first_model(clients[0])
    abouts = [about_server(client, probe(model)) for client in clients]
    require_alike([client.url for client in clients], abouts)
    each = prepared.settings.config.parallel
    about = served_manifest(plan, asked, abouts[0], each)
    crew = ServerCrew(clients, probe(model), ended)
    with RunDirectory(request.out).opened(about) as log, closing(crew), cancellation.on_interrupt():
        workers = Dispatcher(crew, cancellation, per_worker=each, welcome=welcome(abouts[0]), tell=watch.tell)
        watch.beside = lambda: f"{workers.num_ready} servers"
        watched(served(plan, asked, model, log, workers), plan, about, log, watch)


def _knobs(options: Options) -> dict[str, object]:
    """Those that were given, but for what is this command's own."""
    own = ("profile", "parallel")
    return {name: value for name, value in options.flags.items() if value is not None and name not in own}


def _tell_unsent(prepared: session.Session) -> None:
    """Knobs of the environment and of config.toml are this machine's: a run by servers has their own."""
    own = (*knobs_that("loads"), "seed", "parallel", "profile")
    for knob, given in prepared.settings.given.items():
        if given.explicit and knob not in own and prepared.options.flags.get(knob) is None:
            say(f"note: {knob} ({given.source}) is not sent: the servers' own counts, or a flag")


def _different(urls: Sequence[str]) -> list[str]:
    """Raises: UsageError: one is there twice: it would be asked twice as much at once."""
    plain = [url.rstrip("/").removesuffix("/v1") for url in urls]
    if twice := next((url for url in plain if plain.count(url) > 1), None):
        raise UsageError(f"--server {twice} is given twice", "Raise --parallel to ask it more at once.")
    return plain


def _first_model(client: object) -> str:
    """What a server answers as where nobody says more. Raises: as `ServerClient.models`."""
    from alignbeam_local.evaluation.workers.server_client import ServerClient

    assert isinstance(client, ServerClient)
    models = client.models()
    if not models:
        raise UsageError(f"{client.url} lists no models", "Is this `alignbeam serve`?")
    return str(models[0]["id"])
