"""The commented config.toml that `alignbeam config init` writes, made from the knobs themselves."""

import json
from collections.abc import Iterable

from alignbeam_local.config import Config, knobs_of
from alignbeam_local.knobs.knob import PANELS

from .options import metavar

_HEAD = """\
## The knobs of AlignBeam Local. Take away the # before a knob to set it.
## A flag wins over this file; so do a variable ALIGNBEAM_<KNOB>, and a profile that one of the two names.
## `alignbeam config show` says which value counts, and where it came from.
"""


def config_template() -> str:
    """Every knob below its meaning. A line with one # sets it to its default, where it has one."""
    return "\n".join([_HEAD, *(_section(panel, knobs_of(panel)) for panel in PANELS)])


def _section(title: str, knobs: Iterable[str]) -> str:
    return "\n".join([f"## --- {title}\n", *map(_knob, knobs)])


def _knob(name: str) -> str:
    field = Config.model_fields[name]
    if field.default is None:
        setting = f"## {name} = ... (not set)"
    else:
        setting = f"#{name} = {json.dumps(field.default, ensure_ascii=False)}"  # also TOML, for these types
    values = "" if field.annotation in (str, bool, str | None) else f" ({metavar(field)})"
    return f"## {field.description}{values}\n{setting}\n"
