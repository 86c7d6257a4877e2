"""The settings of the profiles that are served beside the one in force."""

import os
from collections.abc import Mapping
from typing import Any

from alignbeam_local.models.registry import Registry
from alignbeam_local.roles import ROLES
from alignbeam_local.settings import SourcedConfig, flag_name, resolve

from .slots import with_slots

_PARTS = (*ROLES, "lora")
_FLAG = "--also"


def further(profile: str, flags: Mapping[str, Any], registry: Registry) -> SourcedConfig:
    """A profile as if it was the one in force, but for the models that it names: those are its own.

    So what was given as a flag or a variable holds for it too.

    Raises:
        UsageError: no such profile, or one whose knobs can't be.
    """
    own = registry.profiles[profile].knobs if profile in registry.profiles else {}
    parts = [part for part in _PARTS if part in own or (part == "lora" and "draft" in own)]
    kept = {knob: value for knob, value in flags.items() if knob not in parts}
    variables = {f"ALIGNBEAM_{part.upper()}" for part in parts}
    environ = {name: value for name, value in os.environ.items() if name.upper() not in variables}
    return with_slots(resolve({**kept, "profile": profile}, registry, environ, _named))


def _named(knob: str) -> str:
    return _FLAG if knob == "profile" else flag_name(knob)
