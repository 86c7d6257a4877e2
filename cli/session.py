"""From flags to an engine that can answer: settings, missing models, one factory."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from alignbeam_local.config import Config
from alignbeam_local.models.registry import Registry
from alignbeam_local.settings import SourcedConfig, resolve

from .console.supervisor import go_on_below_parent
from .console.terminal import say
from .grammar_files import with_file_texts
from .options import Options
from .pulling import needed_models, provide_models

if TYPE_CHECKING:
    from alignbeam_local.cancellation import Cancellation
    from alignbeam_local.engine.engine import Engine

REFUSED = 4


@dataclass(frozen=True)
class Session:
    """What a command answers with."""

    options: Options
    settings: SourcedConfig
    registry: Registry

    def open(self, *, warm: bool = True) -> "Engine":
        """The engine, its models on this machine but not loaded yet; `warm`: or held by a running server.

        Raises:
            UsageError, ModelError: a model that is not named or not here.
        """
        from alignbeam_local.warm.sockets import sockets

        self.provide(needed_models(self.settings.config))
        if warm and not self.options.no_server and sockets():
            return _warm_engine(self.settings.config, self.registry)
        return open_engine(self.settings.config, self.registry)

    def provide(self, specs: Iterable[str]) -> None:
        """Have these models on this machine. Raises: as `provide_models`."""
        provide_models(self.registry, specs, pull=self.options.pull, offline=self.options.offline)


def open_engine(config: Config, registry: Registry, cancellation: "Cancellation | None" = None) -> "Engine":
    """The one place where an engine is made."""
    from alignbeam_local.engine.engine import Engine

    return Engine(config, registry, cancellation=cancellation)


def _warm_engine(config: Config, registry: Registry) -> "Engine":
    """An engine whose models a running server holds, if one does."""
    from alignbeam_local.warm.found_server import find_server
    from alignbeam_local.warm.remote_engine import RemoteEngine

    server = find_server(config, registry)
    return RemoteEngine(config, registry, server) if server else open_engine(config, registry)


def _as_given(config: Config) -> Config:
    return config


def prepare(
    options: Options,
    adapt: Callable[[SourcedConfig], SourcedConfig] = lambda settings: settings,
    as_used: Callable[[Config], Config] | None = _as_given,
) -> Session:
    """Resolve the settings, adapted to the command; with `--show-config` print them and leave.

    `as_used`: the knobs of its answers, by which it is told what nothing reads; None: each has its own.

    Raises:
        UsageError: a knob that cannot be.
    """
    registry = Registry.load()
    settings = resolve(with_file_texts(options.flags), registry, os.environ)
    if "parallel" not in options.flags:
        settings = settings.one_at_a_time()
    session = Session(options, adapt(settings), registry)
    if not options.show_config:
        go_on_below_parent(session.settings.config)
    if options.show_config:
        print(config_json(session.settings) if options.json else config_table(session.settings))
        raise typer.Exit
    tell_notices(session.settings, as_used)
    return session


def tell_notices(settings: SourcedConfig, as_used: Callable[[Config], Config] | None = _as_given) -> None:
    """Say what the user should know of the values given; `as_used` as in `prepare`."""
    idle = settings.idle_notices(as_used(settings.config)) if as_used else []
    for notice in [*settings.certain_notices, *idle]:
        say(f"note: {notice}")


def refuse_loading_knobs(names: Iterable[str]) -> None:
    """Raises: UsageError: a knob that decides what is loaded; one answer alone can't change it."""
    from alignbeam_local.engine.engine import LOADING_KNOBS, loading_knob_error

    for name in names:
        if name in LOADING_KNOBS:
            raise loading_knob_error(name)


def config_table(settings: SourcedConfig) -> str:
    """Every knob, its value and its source, aligned."""
    sources = settings.sources
    rows = [(name, repr(value), sources[name]) for name, value in settings.config.model_dump().items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}" for name, value, source in rows)


def config_json(settings: SourcedConfig) -> str:
    """Every knob, its value and its source, as one JSON object."""
    values, sources = settings.config.model_dump(), settings.sources
    knobs = {name: {"value": value, "source": sources[name]} for name, value in values.items()}
    return json.dumps(knobs, ensure_ascii=False)
