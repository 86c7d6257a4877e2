"""What is run side by side: methods by name, with knobs and parameters of their own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from ...config import LISTS, Config, canonical, knobs_of, knobs_that
from ...errors import UsageError, did_you_mean
from ...idle import idle_knobs
from ...knobs.knob import Panel
from .engine_methods import AlignBeam, Anchor, BestOfK, Draft, EngineMethod, SafetyTokens, SystemPrompt
from .gated import GatedTokens
from .guard import Guard
from .method import Method
from .nudging import Nudging
from .row_methods import Contrastive, HardPrefix, ProxyTuning, SafeDecoding

_METHODS: tuple[type[Method], ...] = (
    *(Draft, Anchor, AlignBeam, SystemPrompt, BestOfK, HardPrefix),
    *(Guard, SafeDecoding, ProxyTuning, Contrastive, Nudging, SafetyTokens, GatedTokens),
)
#: Knobs about mixing, beams and their choice: of these a method with code of its own reads its `reads` alone.
_OF_BEAMS: tuple[Panel, ...] = ("Method", "Steering", "Judge")
METHODS: Mapping[str, type[Method]] = {method.name: method for method in _METHODS}


@dataclass(frozen=True)
class MethodSpec:
    """A method with its knobs; `name` is what the user called it."""

    name: str
    method: Method
    config: Config


def parse_methods(specs: Sequence[str], base: Config) -> list[MethodSpec]:
    """Raises: UsageError: a spec that is no method or is there twice, or a knob that its arm never reads."""
    entries = [parse_method(spec, base) for spec in specs]
    names = [entry.name for entry in entries]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"method {twice} is given twice", "Give each once, or with knobs of its own.")
    for entry in entries:
        _require_read(entry)
    return entries


def _require_read(entry: MethodSpec) -> None:
    """Two arms that only such a knob tells apart would be compared as if they differed."""
    idle = idle_in(entry.method, entry.config)
    for knob in spec_values(entry.name):
        if knob in idle:
            raise UsageError(
                f"--method {entry.name}: {knob} is without effect: {idle[knob]}", "Leave it out."
            )


def idle_in(method: Method, config: Config) -> dict[str, str]:
    """The knobs that a method does not read, each with why."""
    if not isinstance(method, EngineMethod):
        about_beams = (knob for panel in _OF_BEAMS for knob in knobs_of(panel) if knob not in method.reads)
        return dict.fromkeys(about_beams, f"{method.name} does not read it")
    idle, standard = dict(idle_knobs(config)), Config()
    if not config.judged:
        turned = (knob for knob in knobs_that("judges") if getattr(config, knob) != getattr(standard, knob))
        idle |= dict.fromkeys(turned, "nothing is judged")
    return {knob: why for knob, why in idle.items() if knob not in method.reads}


def parse_method(spec: str, base: Config) -> MethodSpec:
    """A method's name, and knobs or parameters after a colon: `alignbeam:alpha=0.8,depth=3`.

    Raises:
        UsageError: no such method, knob or parameter, or a value out of range.
    """
    name = spec.partition(":")[0]
    if name not in METHODS:
        hint = did_you_mean(name, METHODS, f"Methods: {', '.join(METHODS)}.", cutoff=0.5)
        raise UsageError(f"no method '{name}'", hint)
    values = spec_values(spec)
    own = {key: value for key, value in values.items() if key in METHODS[name].model_fields}
    knobs = {key: value for key, value in values.items() if key not in own}
    for knob in ("seed", "profile"):
        if knob in knobs:
            raise UsageError(f"--method {spec}: {knob} is an option of the run", f"Give --{knob}.")
    method, asked = _method(spec, name, own), base.with_values(knobs, f"--method {spec}")
    config = method.settled(asked)
    for knob in knobs:
        if getattr(config, knob) != getattr(asked, knob):
            raise UsageError(f"--method {spec}: {name} sets {knob} itself", "Leave it out.")
    return MethodSpec(spec, method, config)


def spec_values(spec: str) -> dict[str, str]:
    """What stands after a method's name: `a=1,b=2`; a comma stays where no name and `=` follow it.

    Raises:
        UsageError: a name without a value, or twice.
    """
    text = spec.partition(":")[2]
    pairs = [pair.partition("=") for pair in re.split(r",(?=\w+=)", text) if pair]
    for key, equals, _ in pairs:
        if not equals:
            raise UsageError(f"--method {spec}: '{key}' has no value", "Write NAME:KNOB=VALUE,KNOB=VALUE.")
    names = [canonical(key) for key, _, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        method = spec.partition(":")[0]
        hint = f"""Several are one list: --method '{method}:{twice}=["A","B"]'."""
        raise UsageError(
            f"--method {spec}: {twice} is given twice", hint if twice in LISTS else "Give it once."
        )
    return {name: value for name, (_, _, value) in zip(names, pairs, strict=True)}


def _method(spec: str, name: str, values: dict[str, str]) -> Method:
    try:
        return METHODS[name](**values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "missing":
            raise UsageError(
                f"--method {spec}: {first['loc'][0]} is missing", f"Write {name}:{first['loc'][0]}=VALUE."
            ) from None
        raise UsageError(
            f"--method {spec}: {first['loc'][0]} = {first['input']!r}: {first['msg'].lower()}"
        ) from None
