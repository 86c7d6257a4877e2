"""From flags to an engine that can answer: settings, missing models, one factory."""

import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from alignbeam_local.config import Config
from alignbeam_local.errors import Cancelled, ModelError
from alignbeam_local.events import Done, Event, Result
from alignbeam_local.models.registry import Registry
from alignbeam_local.settings import SourcedConfig, resolve

from .options import Options
from .terminal import is_terminal, say
from .views.view import View

if TYPE_CHECKING:
    from alignbeam_local.cancellation import Cancellation
    from alignbeam_local.engine.engine import Engine
    from alignbeam_local.prompt.formats import Message

REFUSED = 4


@dataclass(frozen=True)
class Session:
    """What a command answers with."""

    options: Options
    settings: SourcedConfig
    registry: Registry

    def open(self) -> "Engine":
        """The engine, its models on this machine but not loaded yet.

        Raises:
            UsageError, ModelError: a model that is not named or not here.
        """
        provide_models(self, _needed_models(self.settings.config))
        return open_engine(self.settings.config, self.registry)


def open_engine(config: Config, registry: Registry, cancellation: "Cancellation | None" = None) -> "Engine":
    """The one place where an engine is made."""
    from alignbeam_local.engine.engine import Engine

    return Engine(config, registry, cancellation=cancellation)


def prepare(
    options: Options, adapt: Callable[[SourcedConfig], SourcedConfig] = lambda settings: settings
) -> Session:
    """Resolve the settings, adapted to the command; with `--show-config` print them and leave.

    Raises:
        UsageError: a knob that cannot be.
    """
    registry = Registry.load()
    settings = resolve(options.flags, registry, os.environ)
    if "parallel" not in options.flags:
        settings = settings.one_at_a_time()
    session = Session(options, adapt(settings), registry)
    if options.show_config:
        print(config_json(session.settings) if options.json else config_table(session.settings))
        raise typer.Exit
    for notice in session.settings.notices:
        say(f"note: {notice}")
    return session


def play(engine: "Engine", events: Iterator[Event], view: View) -> Result | None:
    """Show events to their end; Ctrl-C stops the model, not the program.

    Raises:
        Cancelled: the user stopped it before there was a result.
    """
    result = None
    with closing(view), _ended(events), engine.cancellation.on_interrupt():
        try:
            for event in events:
                view.show(event)
                if isinstance(event, Done):
                    result = event.result
        except BaseException as error:
            _take_back(events, view, error)
            raise
        if result is None:
            engine.cancellation.check()
    return result


def _take_back(events: Iterator[Event], view: View, error: BaseException) -> None:
    """Let a stream that was left half-way say what of it does not stand, and show that."""
    if isinstance(events, Generator):
        with suppress(BaseException):  # the first error is the one to tell
            view.show(events.throw(error))


def answer(engine: "Engine", messages: Sequence["Message"], view: View) -> Result:
    """Show one answer in the making, and return it."""
    result = play(engine, engine.stream(messages), view)
    assert result is not None, "a stream ends in Done"
    return result


@contextmanager
def _ended(events: Iterator[Event]) -> Iterator[None]:
    """A stream left half-way must let go of the models before they are closed."""
    try:
        yield
    finally:
        if isinstance(events, Generator):
            events.close()


def stop_if_cancelled(result: Result) -> None:
    """Raises: Cancelled: the user stopped this answer."""
    if result.finish_reason == "cancelled":
        raise Cancelled("cancelled")


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
    """The same for programs."""
    values, sources = settings.config.model_dump(), settings.sources
    knobs = {name: {"value": value, "source": sources[name]} for name, value in values.items()}
    return json.dumps(knobs, ensure_ascii=False)


def _needed_models(config: Config) -> list[str]:
    """The models that this configuration loads, each once.

    Raises:
        UsageError: a role without a model.
    """
    return list(dict.fromkeys(map(config.model_named, config.roles)))


def require_models(config: Config, registry: Registry) -> None:
    """Raises: UsageError, ModelError: a model that this configuration loads is not named or not here."""
    for spec in _needed_models(config):
        registry.require(spec)


def provide_models(session: Session, specs: Iterable[str]) -> None:
    """Pull what is missing, if the user wants that.

    Raises:
        UsageError, ModelError: a model that is not known, or not here.
    """
    registry, options = session.registry, session.options
    files = {spec: registry.resolve(spec) for spec in specs}
    missing = [spec for spec, file in files.items() if not file.present]
    pullable = [spec for spec in missing if files[spec].can_pull]
    if pullable and (options.pull or _accepts_pull(pullable, offline=options.offline)):
        from .commands.models import pull_with_progress

        pull_with_progress(registry, pullable, options.offline)
    for spec in missing:
        _require(registry, spec)


def _require(registry: Registry, spec: str) -> None:
    try:
        registry.require(spec)
    except ModelError as error:
        can_pull = registry.resolve(spec).can_pull
        hint = f"{error.hint}, or add --pull to this command" if can_pull else error.hint
        raise ModelError(error.message, hint) from None


def _accepts_pull(names: Sequence[str], *, offline: bool) -> bool:
    from alignbeam_local.models.pull import is_offline

    if is_offline(offline) or not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        return False
    return typer.confirm(f"Not here yet: {', '.join(names)}. Pull now?", default=False, err=True)
