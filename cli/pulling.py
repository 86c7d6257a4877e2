"""Models that a command needs: those that are missing are pulled, if the user wants that."""

import os
import sys
from collections.abc import Iterable, Sequence

import typer

from alignbeam_local.config import Config
from alignbeam_local.errors import AlignBeamError, Cancelled, ModelError, UsageError
from alignbeam_local.models.registry import ModelFile, Registry
from alignbeam_local.settings import resolve

from .console.terminal import is_terminal, say
from .console.waiting import waiting


def needed_models(config: Config) -> list[str]:
    """The models that this configuration loads, each once.

    Raises:
        UsageError: a role without a model.
    """
    return list(dict.fromkeys(map(config.model_named, config.roles)))


def require_models(config: Config, registry: Registry) -> None:
    """Raises: UsageError, ModelError: a model that this configuration loads is not named or not here."""
    for spec in needed_models(config):
        registry.require(spec)


def provide_models(registry: Registry, specs: Iterable[str], *, pull: bool, offline: bool) -> None:
    """Pull what is missing, if the user says so, by `pull` or when asked on a terminal.

    Raises:
        UsageError, ModelError: a model that is not known, or not here.
    """
    files = {spec: registry.resolve(spec) for spec in specs}
    missing = [spec for spec, file in files.items() if not file.present]
    pullable = [spec for spec in missing if files[spec].can_pull]
    if pullable and (pull or _accepts_pull(pullable, offline=offline)):
        pull_with_progress(registry, pullable, offline)
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


def pull_with_progress(registry: Registry, names: Iterable[str], offline: bool) -> list[ModelFile]:
    """Pull each model once, with the progress on stderr; for `models pull` and for `--pull`.

    Raises:
        UsageError: one that nothing can be pulled for; nothing is pulled then.
        ModelError: those that could not be pulled; the others were.
    """
    from alignbeam_local.models.pull import pull

    from .views.models import PullView

    files = {name: registry.resolve(name) for name in names}
    for spec, file in files.items():
        if not (file.can_pull or file.present):
            hint = registry.meant_by_path(spec) or "Name a model of `alignbeam models list`."
            raise UsageError(f"there is no source to pull '{spec}' from", hint)
    failed: list[ModelError] = []
    for file in files.values():
        try:
            with PullView(file.name) as view:
                pull(file, offline=offline, progress=view.progress, notice=view.notice)
        except ModelError as error:  # the others are not to wait for this one
            failed.append(error)
    if failed:
        raise ModelError("; ".join(error.message for error in failed), failed[0].hint)
    return list(files.values())


def keep_examples(registry: Registry, profile: str) -> None:
    """Let a profile's judge read its examples right after it was pulled: else a first answer waits for it.

    Raises:
        Cancelled: the user stopped it; the models stay.
    """
    from alignbeam_local.cancellation import Cancellation
    from alignbeam_local.engine.open_judge import keep_examples as kept
    from alignbeam_local.events import ExamplesRead

    from .views.board import PHASES
    from .views.examples import examples_left

    cancellation = Cancellation()
    try:
        config = resolve({"profile": profile}, registry, os.environ).config
        if not config.judged or config.prompt_cache == "none":
            return
        with waiting(PHASES["examples"]) as tell, cancellation.on_interrupt():
            for event in kept(config, registry, cancellation):
                if isinstance(event, ExamplesRead):
                    tell(f"{PHASES['examples']} · {examples_left(event)}")
    except Cancelled:
        raise
    except AlignBeamError as error:
        say(f"note: the judge's examples are read with the first answer: {error.message}")
