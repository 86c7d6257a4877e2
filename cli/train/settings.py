"""The flags of a training as its settings; what belongs to another method is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from alignbeam_local.errors import UsageError
from alignbeam_local.training.losses import PACT_FORMS, Variant
from alignbeam_local.training.settings import TARGETS, Method, Target, TrainingSettings


@dataclass(frozen=True)
class MethodFlags:
    """What only some methods have; None where it was not given."""

    weight: float | None
    tokens: object | None
    rejections: object | None
    str_on: str | None
    str_first: int | None
    variant: str | None
    mass_weight: float | None
    gated_positions: int | None
    decay: float | None


_OWNERS: Mapping[str, tuple[Method, ...]] = {
    "weight": ("str", "pact"),
    "tokens": ("str", "pact"),
    "rejections": ("str",),
    "str_on": ("str",),
    "str_first": ("str",),
    "variant": ("pact",),
    "mass_weight": ("pact",),
    "gated_positions": ("pact",),
    "decay": ("pact",),
}
_FORM = ("mass_weight", "gated_positions", "decay")


def settings_of(method: Method, targets: str, flags: MethodFlags, **others: Any) -> TrainingSettings:
    """The settings of a method.

    Raises:
        UsageError: no such target, or a flag of another method.
    """
    _require_own(method, flags)
    settings = TrainingSettings(method, targets=_targets(targets), **others)
    if method == "str":
        given = {"str_weight": flags.weight, "str_on": flags.str_on, "str_first": flags.str_first}
        return replace(settings, **_given(given))
    if method == "pact":
        variant: Variant = "code" if flags.variant == "code" else "paper"
        form = {name: getattr(flags, name) for name in _FORM} | {"kl_weight": flags.weight}
        return replace(settings, variant=variant, pact=replace(PACT_FORMS[variant], **_given(form)))
    return settings


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _require_own(method: Method, flags: MethodFlags) -> None:
    for name, owners in _OWNERS.items():
        if getattr(flags, name) is not None and method not in owners:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is not for --method {method}", f"It belongs to {', '.join(owners)}.")
    if flags.tokens is not None and flags.rejections is not None:
        raise UsageError("--tokens and --rejections both name safety tokens", "Give one of them.")


def _targets(text: str) -> tuple[Target, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in TARGETS]:
        raise UsageError(f"no such target: {unknown[0]!r}", f"Some of {','.join(TARGETS)}.")
    return cast(tuple[Target, ...], names)
