"""Grids of knobs: every combination as a method, what is worth having among them, and one to recommend."""

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from ...config import Config, knobs_that
from ...errors import UsageError
from ...models.entry import Name
from ...models.registry import Registry
from ...models.toml_files import append_table
from ...paths import user_path
from ...roles import ROLES
from ..methods.names import ALIGNBEAM
from ..methods.specs import MethodSpec, spec_values
from ..runs.saved_runs import SavedRun
from .figures import declined, median_seconds
from .statistics import Estimate

#: The aim: this share of the anchor's own refusals, at the smallest over-refusal.
ENOUGH = 0.95

#: What a recommended profile sets: the rest is for the user, or the machine.
_MEASURED = set(knobs_that("measured"))


@dataclass(frozen=True)
class Setting:
    """One combination and what it costs; `on_front`: no other is as good in all and better in one."""

    name: str
    refusal: Estimate
    over_refusal: Estimate
    seconds: float
    on_front: bool = False


def settings_of(run: SavedRun) -> list[Setting]:
    """Every combination that answered harmful and benign prompts, those on the front marked."""
    found = list(_measured(run))
    return [
        Setting(one.name, one.refusal, one.over_refusal, one.seconds, not any(_beats(o, one) for o in found))
        for one in found
    ]


def _measured(run: SavedRun) -> Iterator[Setting]:
    for name in run.manifest["methods"]:
        own = [one for one in run.scored if one.method == name and name.partition(":")[0] == ALIGNBEAM]
        refusal, over_refusal = declined(own, "harmful"), declined(own, "benign")
        if refusal and over_refusal:
            yield Setting(name, refusal, over_refusal, median_seconds(own) or 0.0)


def _beats(one: Setting, other: Setting) -> bool:
    costs = [(-s.refusal.value, s.over_refusal.value, s.seconds) for s in (one, other)]
    return costs[0] != costs[1] and all(mine <= its for mine, its in zip(*costs, strict=True))


def recommended(settings: Sequence[Setting], anchor_refusal: float) -> Setting:
    """Of those with 95 % of the anchor's own refusals the one with the least over-refusal.

    Where none refuses so much it is the one that refuses most. Among equals the other share, then time.
    """
    enough = [one for one in settings if one.refusal.value >= ENOUGH * anchor_refusal - 1e-9]
    if enough:
        return min(enough, key=lambda one: (one.over_refusal.value, -one.refusal.value, one.seconds))
    return min(settings, key=lambda one: (-one.refusal.value, one.over_refusal.value, one.seconds))


def profile_table(name: str, about: str, entry: MethodSpec, registry: Registry) -> str:
    """A profile with the arm's models and all that was measured or swept, defaults too: they may change."""
    found = entry.config.model_dump(include=_MEASURED | set(spec_values(entry.name)))
    knobs = {knob: value for knob, value in found.items() if value is not None}
    knobs |= {knob: "none" for knob in found if knob not in knobs and _may_be_none(knob)}
    knobs |= {role: registry.lasting_names(knobs[role]) for role in ROLES if role in knobs}
    if not knobs["lora"]:
        del knobs["lora"]
    else:
        knobs["lora"] = list(map(registry.lasting_adapter, entry.config.adapters))
    if entry.config.safety_file is not None:
        knobs["safety_file"] = str(user_path(knobs["safety_file"]).absolute())
    lines = [f"{knob} = {json.dumps(value, ensure_ascii=False)}" for knob, value in knobs.items()]
    return "\n".join([f"[profiles.{json.dumps(name)}]", f"about = {json.dumps(about)}", *lines]) + "\n"


def _may_be_none(knob: str) -> bool:
    """Whether `none` in a profile leaves this knob without a value."""
    try:
        return getattr(Config.of({knob: "none"}), knob) is None
    except UsageError:
        return False


def write_profile(name: str, about: str, entry: MethodSpec, registry: Registry) -> None:
    """Add it to the user's models.toml.

    Raises:
        UsageError: the file is no TOML, or has the name already.
    """
    append_table(profile_table(name, about, entry, registry))


def check_profile_name(name: str, known: Container[str]) -> None:
    """Raises: UsageError: it can't be a new profile's name."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise UsageError(f"'{name}' can't be a profile's name", "Letters, digits, dots, hyphens.") from None
    if name in known:
        raise UsageError(f"there is a profile '{name}' already", "Choose another name, or remove that one.")
