"""The settings of the profiles that are served beside the one in force."""

import os

from alignbeam_local.models.registry import Registry
from alignbeam_local.roles import ROLES
from alignbeam_local.settings import SourcedConfig, flag_name, resolve

from ..grammar_files import with_file_texts
from ..options import Options
from .slots import with_slots

_PARTS = (*ROLES, "lora")
_FLAG = "--also"


def further(profile: str, options: Options, registry: Registry) -> SourcedConfig:
    """A profile as if it was the one in force, but for the models that it names: those are its own.

    So what was given as a flag or a variable holds for it too.

    Raises:
        UsageError: no such profile, or one whose knobs can't be.
    """
    own = registry.profiles[profile].knobs if profile in registry.profiles else {}
    parts = [part for part in _PARTS if part in own or (part == "lora" and "draft" in own)]
    flags = {knob: value for knob, value in options.flags.items() if knob not in parts}
    variables = {f"ALIGNBEAM_{part.upper()}" for part in parts}
    environ = {name: value for name, value in os.environ.items() if name not in variables}
    return with_slots(resolve({**with_file_texts(flags), "profile": profile}, registry, environ, _named))


def _named(knob: str) -> str:
    return _FLAG if knob == "profile" else flag_name(knob)
