"""The questions of `alignbeam start`, and what is done with the answers."""

import json
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from alignbeam_local.config import Config
from alignbeam_local.errors import AlignBeamError, ModelError
from alignbeam_local.models.adapter import is_adapter
from alignbeam_local.models.registry import ModelFile, Registry
from alignbeam_local.models.toml_files import append_table
from alignbeam_local.roles import ROLES
from alignbeam_local.settings import resolve

from ..console.terminal import is_dumb, printable, say_error
from ..console.waiting import awaited
from ..pulling import needed_models, provide_models
from ..views.models import in_megabytes
from .starter import STARTER

_BASE = "recommended"
#: Of these a person hears also that they are well.
_ESSENTIAL = (*ROLES, "pair")


@dataclass(frozen=True)
class Choice:
    """A profile, and the models that take the place of its own."""

    profile: str
    models: Mapping[str, str]

    @property
    def flags(self) -> dict[str, Any]:
        """As the settings take them."""
        return {"profile": self.profile, **self.models}

    @property
    def chat(self) -> list[str]:
        """The arguments that begin a chat with it."""
        return ["chat", *(word for knob, value in self.flags.items() for word in (f"--{knob}", value))]


def choose(registry: Registry) -> Choice:
    """Ask which models to talk with.

    Raises:
        EOFError, KeyboardInterrupt: the user left.
    """
    _tell(
        "Which model shall answer? The path of a .gguf file, or a name of `alignbeam models list`; Tab "
        "completes. Enter takes the starter: a toy of 590 MB in all, for trying the mechanics."
    )
    draft = _model_asked(registry, "model: ", None)
    if draft is None:
        return Choice(STARTER, {})
    models = _draft(registry, draft)
    anchor = str(registry.profile(_BASE)["anchor"])
    _tell("Which anchor shall begin its answers? A small aligned model of any family; for example:")
    if "lora" in models:
        _tell(f"  {models['draft']}: the model without its adapter, which is loaded anyway")
    for file in registry.files():
        if "anchor" in file.entry.roles and (file.present or file.name == anchor):
            _tell(f"  {file.name}: {_size_and_place(file)}, {file.entry.about}")
    chosen = _model_asked(registry, f"anchor [{anchor}]: ", anchor)
    return Choice(_BASE, models | ({"anchor": chosen} if chosen and chosen != anchor else {}))


def _draft(registry: Registry, spec: str) -> dict[str, str]:
    """What was named: a model, or a LoRA adapter and the model it was trained on. Raises: as `choose`."""
    file, has_adapter = registry.resolve(spec), False
    with suppress(ModelError):  # what is wrong with the file is told where it is checked
        has_adapter = file.present and is_adapter(file.path)
    if not has_adapter:
        return {"draft": spec}
    _tell("That is a LoRA adapter. Which model was it trained on?")
    while (base := _model_asked(registry, "its model: ", None)) is None:
        pass
    return {"draft": base, "lora": spec}


def ask_for_pull(choice: Choice, registry: Registry, *, offline: bool) -> None:
    """Have the models here: what is missing is fetched, if the user wants that.

    Raises:
        EOFError, KeyboardInterrupt: the user left.
        UsageError, ModelError: a model is not here.
    """
    specs = needed_models(resolve(choice.flags, registry, os.environ).config)
    missing = [file for file in map(registry.resolve, specs) if file.can_pull and not file.present]
    pull = False
    if missing and not offline:
        _tell("Not here yet:")
        for file in missing:
            _tell(f"  {file.name}: {in_megabytes(file.entry.bytes)}")
        pull = _answer("Fetch now? [Y/n] ").lower() in ("", "y", "yes")
    provide_models(registry, specs, pull=pull, offline=offline or not pull)


def check(choice: Choice, registry: Registry, environ: Mapping[str, str]) -> None:
    """Look at the models, their memory and the pair, as `doctor` does; of models and pair all is told.

    Raises:
        ModelError: something is in the way.
    """
    from alignbeam_local.doctor.model_checks import findings

    config = resolve(choice.flags, registry, environ).config
    problems = []
    for finding in awaited("checking the models and the pair", findings(config, registry, verify=False)):
        if finding.level != "ok" or finding.topic in _ESSENTIAL:
            _tell(f"{finding.level:8} {finding.topic:8} {finding.message}")
        if finding.level == "problem":
            problems.append(finding)
    if problems:
        raise ModelError(problems[0].message, problems[0].hint or "See: alignbeam doctor.")
    pair = shlex.join((config.model_named("draft"), config.model_named("anchor")))
    _tell(f"More of how the two fit together: alignbeam bridge {pair}")


def save(choice: Choice, registry: Registry) -> Choice:
    """Write a profile, if the user gives it a name; what to go on with.

    Raises:
        EOFError, KeyboardInterrupt: the user left.
    """
    if not choice.models:
        return choice
    while name := _answer("Keep this choice as a profile? A name, or Enter for no: "):
        try:
            _write_profile(name, choice, registry)
        except AlignBeamError as error:
            say_error(error.message, error.hint)
        else:
            _tell(f"written: profile {name}")
            return replace(choice, profile=name, models={})
    return choice


def _write_profile(name: str, choice: Choice, registry: Registry) -> None:
    """Raises: UsageError: not a name, or it is taken; the user's file is no TOML."""
    from alignbeam_local.evaluation.reports.sweep import check_profile_name

    check_profile_name(name, registry.profiles)
    knobs = {**registry.profile(choice.profile), **choice.models}
    knobs |= {role: registry.lasting_names(knobs[role]) for role in ROLES}
    if adapters := Config.of({"lora": knobs.get("lora", ())}).adapters:
        knobs["lora"] = list(map(registry.lasting_adapter, adapters))
    lines = [f"{knob} = {json.dumps(value, ensure_ascii=False)}" for knob, value in knobs.items()]
    about = 'about = "chosen with alignbeam start"'
    append_table("\n".join([f"[profiles.{json.dumps(name)}]", about, *lines]) + "\n")


def _model_asked(registry: Registry, question: str, default: str | None) -> str | None:
    """A model that is here or can be fetched; the default where nothing is typed. Raises: as `choose`."""
    while spec := _answer(question, registry):
        try:
            file = registry.resolve(spec)
            if not file.can_pull:
                registry.require(spec)
            return registry.lasting(spec)
        except AlignBeamError as error:
            say_error(error.message, error.hint)
    return default


def _answer(question: str, registry: Registry | None = None) -> str:
    """What is typed, without blanks around it; models are completed. Raises: as `choose`."""
    if is_dumb():
        return input(question).strip()
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output.color_depth import ColorDepth

    from .completion import ModelCompleter

    session = PromptSession[str](
        question,
        completer=ModelCompleter(registry) if registry else None,
        complete_while_typing=False,
        color_depth=ColorDepth.from_env(),
    )
    return printable(session.prompt()).strip()


def _size_and_place(file: ModelFile) -> str:
    size = file.path.stat().st_size if file.present else file.entry.bytes
    return f"{in_megabytes(size)}, {'is here' if file.present else 'to be fetched'}"


def _tell(text: str) -> None:
    """A paragraph beside the answers, wrapped between words."""
    Console(stderr=True, highlight=False).print(Text(printable(text)))
