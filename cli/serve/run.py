"""A server from its parts: models that are here, an engine, an application, an address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

from alignbeam_local.config import Config
from alignbeam_local.errors import UsageError
from alignbeam_local.server.app import Server
from alignbeam_local.server.gate import LOOPBACK, GateRules
from alignbeam_local.server.private import PrivateServer
from alignbeam_local.server.served import ServedModel, as_served, served_models
from alignbeam_local.server.serving import bound, is_loopback, serve
from alignbeam_local.server.work.engine_thread import EngineThread
from alignbeam_local.server.work.pair import Pair
from alignbeam_local.warm.sockets import private_socket

from ..console.supervisor import go_on_below_parent
from ..console.terminal import say
from ..pulling import needed_models
from ..session import Session, open_engine, tell_notices
from .further import further
from .telling import LoadTeller, log_to_stderr


@dataclass(frozen=True)
class Access:
    """Where the server listens, and who may ask what."""

    host: str
    port: int
    keys: Sequence[bytes]
    hosts: Sequence[str]
    origins: Sequence[str]
    allows_knobs: bool

    def __post_init__(self) -> None:
        """Raises: UsageError: others can reach it, as a proxy's server too, and nothing is asked of them."""
        names = [("--host", self.host), *(("--allow-host", name) for name in self.hosts)]
        reached = [(flag, name) for flag, name in names if not is_loopback(name)]
        if reached and not self.keys:
            flag, name = reached[0]
            raise UsageError(
                f"{flag} {name} can be reached by others, and there is no key",
                f"Give --api-key-file FILE or set ALIGNBEAM_API_KEY; or leave {flag} out.",
            )

    @property
    def rules(self) -> GateRules:
        """A server goes by few names: a web page's name that leads here is none.

        Beyond this machine nobody knows by what name it is reached, unless some are given.
        """
        own = f"[{self.host}]" if ":" in self.host else self.host
        is_named = is_loopback(self.host) or bool(self.hosts)
        hosts = [*LOOPBACK, *map(str.lower, (own, *self.hosts))] if is_named else []
        return GateRules(keys=self.keys, hosts=hosts, origins=self.origins)


def run(
    prepared: Session,
    also: Sequence[str],
    access: Access,
    reports: Mapping[str, Path],
    *,
    queue_limit: int,
    idle_seconds: float | None,
) -> None:
    """Serve until a signal comes.

    Raises:
        UsageError, ModelError: a profile, a model or the address can't be had.
    """
    configs = [as_served(config) for config in _configs(prepared, also)]
    for config in configs:
        go_on_below_parent(config)
    prepared.provide(dict.fromkeys(spec for config in configs for spec in needed_models(config)))
    models = served_models(configs, prepared.registry)
    log_to_stderr()
    engine = EngineThread(
        _pairs(prepared, models),
        queue_limit=queue_limit,
        idle_seconds=idle_seconds,
        watch=LoadTeller(quiet=prepared.options.quiet),
    )
    app = Server(engine, models, allows_knobs=access.allows_knobs, reports=reports).app(access.rules)
    with bound(access.host, access.port) as listening, private_socket() as private:
        say(f"serving {', '.join(models)} at {_url(access.host, listening.getsockname()[1])}/v1")
        if private is None:
            say("note: there is no private socket here: ask, filter and chat load their own models")
        own, begun = PrivateServer(engine, models), monotonic()
        engine.when_loaded = lambda: say(f"ready after {monotonic() - begun:.0f} s; Ctrl-C ends it")
        serve(app, listening, engine, None if private is None else (own, private))


def _configs(prepared: Session, also: Sequence[str]) -> list[Config]:
    """Of the profile in force and of the others; what was given as a flag holds for all."""
    flags, settings = prepared.options.flags, prepared.settings
    given = {knob: settings.given[knob].value for knob, value in flags.items() if value is not None}
    others = [further(name, given, prepared.registry) for name in also]
    for other in others:
        tell_notices(other, as_served)
    return [each.config for each in (settings, *others)]


def _pairs(prepared: Session, models: Mapping[str, ServedModel]) -> dict[str, Pair]:
    return {
        model.pair: Pair(
            open_engine(model.config, prepared.registry),
            partial(model.require_unchanged, prepared.registry),
        )
        for model in models.values()
        if not model.of_anchor
    }


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
