"""The knobs in force: flags, environment, profiles and the configuration file, laid over the defaults."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from .config import ALIASES, KNOBS, Config, by_name, canonical, knobs_that
from .errors import UsageError, did_you_mean
from .idle import ALWAYS_TOLD, idle_knobs
from .models.registry import Registry
from .paths import config_file
from .reading import whole_text
from .roles import ROLES

DEFAULT = "default"
_PREFIX = "ALIGNBEAM_"
#: Every variable that is no knob, and what it does.
_OTHER_VARIABLES = {
    "ALIGNBEAM_CONFIG_DIR": "where config.toml and your models.toml are (on Linux ~/.config/alignbeam)",
    "ALIGNBEAM_DATA_DIR": "where models, calibration records, conversations and the chat history are "
    "(on Linux ~/.local/share/alignbeam)",
    "ALIGNBEAM_MODELS_DIR": "where model files are; unless set, models in the data directory",
    "ALIGNBEAM_CACHE_DIR": "what can be deleted at any time (on Linux ~/.cache/alignbeam)",
    "ALIGNBEAM_OFFLINE": "1: fetch nothing from the network; HF_HUB_OFFLINE does the same",
    "ALIGNBEAM_API_KEY": "the key that `alignbeam serve` asks of its clients",
    "ALIGNBEAM_DEBUG": "1: a traceback for an internal error",
}
_JUDGING = knobs_that("judges")


class SourcedValue(NamedTuple):
    """A knob's value, where it came from, and whether a person gave it (not a profile or a default).

    `profile` names the profile that it came from; empty if it is from elsewhere.
    """

    value: Any
    source: str
    explicit: bool
    profile: str = ""


@dataclass(frozen=True)
class SourcedConfig:
    """A configuration that knows where each of its values came from.

    Attributes:
        given: all that was given, also a profile's adapters where the draft is none of theirs now.
        registry: the models and profiles that names stand for.
    """

    given: Mapping[str, SourcedValue]
    registry: Registry

    @property
    def config(self) -> Config:
        return Config.of({name: given.value for name, given in self._in_force.items()})

    @property
    def sources(self) -> dict[str, str]:
        """For every knob: a flag, a variable, a profile, a file, or the default."""
        return {name: self._in_force[name].source if name in self._in_force else DEFAULT for name in KNOBS}

    @property
    def notices(self) -> list[str]:
        """What the user should know of values that were given."""
        return [*self.certain_notices, *self.idle_notices(self.config)]

    @property
    def certain_notices(self) -> list[str]:
        """Those that hold whatever else is turned later."""
        config, found = self.config, []
        if config.depth > config.max_tokens:
            found.append(f"depth {config.depth} is clipped to max_tokens {config.max_tokens}")
        return found + ([self.left_out] if self.left_out else [])

    def idle_notices(self, config: Config) -> list[str]:
        """Which of the knobs that were given nothing reads in answers with these ones."""
        turned, found = {name for name, given in self.given.items() if given.explicit}, []
        if not config.judged and (unjudged := [name for name in _JUDGING if name in turned]):
            effect = "without effect (on_unsafe refuse or lowest lets it be judged)"
            found.append(f"one beam is not judged: {', '.join(unjudged)} {effect}")
        told = turned | ALWAYS_TOLD
        return found + [
            f"{name} is without effect: {why}" for name, why in idle_knobs(config) if name in told
        ]

    @cached_property
    def left_out(self) -> str:
        """Which adapters of a profile are not on the draft, and why; empty if all are."""
        lora, draft = self.given.get("lora"), self.given.get("draft")
        if not (lora and lora.value and lora.profile and draft):
            return ""
        theirs = self.registry.profile(lora.profile).get("draft")
        if theirs is None or lora.profile == draft.profile:
            return ""
        if draft.explicit and self.registry.is_one_file(theirs, draft.value):
            return ""
        return (
            f"{lora.source}: its adapters ({', '.join(lora.value)}) are for its draft {theirs} and are left "
            f"out: the draft is {draft.value} ({draft.source}); lora puts some on it, lora = none says none"
        )

    @cached_property
    def _in_force(self) -> Mapping[str, SourcedValue]:
        """What counts of all that was given."""
        if not self.left_out:
            return self.given
        return {**self.given, "lora": SourcedValue((), f"not {self.given['lora'].source}", explicit=False)}

    def with_value(self, knob: str, value: SourcedValue) -> "SourcedConfig":
        """With one knob changed, by whoever its source says."""
        return replace(self, given={**self.given, knob: value})

    def override(self, values: Mapping[str, Any], source: str) -> "SourcedConfig":
        """With some knobs changed by a person.

        Raises:
            UsageError: an unknown knob, a value out of range, or more mixed tokens than the answer may have.
        """
        changed = replace(self, given={**self.given, **_given(values, source)})
        changed.check()
        return changed

    def one_at_a_time(self) -> "SourcedConfig":
        """For whoever answers one prompt at a time: more room would be for nothing."""
        return self.with_value("parallel", SourcedValue(1, "one prompt at a time", explicit=False))

    def with_profile(self, name: str, registry: Registry, source: str) -> "SourcedConfig":
        """With the models and knobs of this profile, and without those of the one before.

        Raises:
            UsageError: no such profile, or one whose knobs can't be.
        """
        own = {knob: given for knob, given in self.given.items() if given.explicit}
        profile = _profile(registry, SourcedValue(name, source, True))
        changed = SourcedConfig({**_default_profile(registry, profile), **own, **profile}, registry)
        changed.check()
        return changed

    def check(self) -> None:
        """Raises: UsageError: knobs contradict each other."""
        _ = self.config.weights
        depth, longest = self.given.get("depth"), self.given.get("max_tokens")
        if not (depth and longest and depth.explicit and longest.explicit):
            return
        if depth.value > longest.value:
            raise UsageError(
                f"depth {depth.value} ({depth.source}) is over max_tokens {longest.value} ({longest.source})",
                "Mix at most as many tokens as the answer may have.",
            )


def flag_name(knob: str) -> str:
    """The flag of a knob."""
    return f"--{knob.replace('_', '-')}"


def resolve(
    flags: Mapping[str, Any],
    registry: Registry,
    environ: Mapping[str, str],
    name_of: Callable[[str], str] = flag_name,
) -> SourcedConfig:
    """The settings of a command; a flag that is None was not given.

    `name_of` is what errors call a knob that was given.

    Raises:
        UsageError: an unknown knob or profile, a value out of range, a damaged file; with its source.
    """
    from_flags: dict[str, SourcedValue] = {}
    for name, value in flags.items():
        if value is not None:
            from_flags |= _given({name: value}, name_of(name))
    from_environment = _environment(environ)
    from_file = _config_file(config_file())
    named = from_flags.get("profile") or from_environment.get("profile")
    below, above = _profile(registry, from_file.get("profile")), _profile(registry, named)
    given = {
        **_default_profile(registry, {**below, **above}),
        **below,
        **from_file,
        **above,
        **from_environment,
        **from_flags,
    }
    settings = SourcedConfig(given, registry)
    settings.check()
    return settings


def near_knob(name: str) -> str | None:
    """The knob that a name not known may be a misspelling of."""
    close = get_close_matches(name, KNOBS, n=1, cutoff=0.8)
    return close[0] if close and name not in (*KNOBS, *ALIASES) else None


def _given(values: Mapping[str, Any], source: str, *, profile: str = "") -> dict[str, SourcedValue]:
    config = Config.of(values, source)
    return {
        name: SourcedValue(getattr(config, name), source, not profile, profile) for name in by_name(values)
    }


def _environment(environ: Mapping[str, str]) -> dict[str, SourcedValue]:
    given: dict[str, SourcedValue] = {}
    for variable in sorted(environ):
        if not variable.startswith(_PREFIX) or variable in _OTHER_VARIABLES:
            continue
        name = variable.removeprefix(_PREFIX)
        knob = name if name in ALIASES else name.lower()
        if knob not in (*KNOBS, *ALIASES):
            raise _unknown_variable(variable)
        if environ[variable]:
            if (twice := canonical(knob)) in given:
                raise UsageError(f"environment {variable}: {twice} is given twice", "Unset one of them.")
            given |= _given({knob: environ[variable]}, f"environment {variable}")
    return given


def _unknown_variable(variable: str) -> UsageError:
    known = [*_OTHER_VARIABLES, *(_PREFIX + knob.upper() for knob in KNOBS)]
    hint = did_you_mean(variable, known, "Unset it: ALIGNBEAM_ variables are knobs.")
    return UsageError(f"environment {variable}: no such variable", hint)


def _config_file(path: Path) -> dict[str, SourcedValue]:
    try:
        values = tomllib.loads(whole_text(path.read_bytes(), str(path)))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:  # no TOML, or a number of thousands of digits
        raise UsageError(f"{path}: {error}", "The file must be TOML.") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "Check its permissions.") from None
    return _given(values, str(path))


def _profile(registry: Registry, named: SourcedValue | None) -> dict[str, SourcedValue]:
    if named is None:
        return {}
    try:
        knobs = registry.profile(named.value)
    except UsageError as error:
        raise UsageError(f"{named.source}: {error.message}", error.hint) from None
    return {"profile": named, **_given(knobs, f"profile {named.value}", profile=named.value)}


def _default_profile(registry: Registry, named: Mapping[str, SourcedValue]) -> dict[str, SourcedValue]:
    """Its knobs; where profiles are named, of which these are the knobs, only its models.

    Its draft has its adapters with it, so they are not there where another profile's draft is.
    """
    name = registry.default_profile
    knobs = registry.profile(name)
    if named:
        with_draft = ("lora",) if "draft" in knobs and "draft" not in named else ()
        knobs = {knob: value for knob, value in knobs.items() if knob in (*ROLES, *with_draft)}
    profile = {} if named else {"profile": SourcedValue(name, DEFAULT, False)}
    return {**profile, **_given(knobs, f"default profile {name}", profile=name)}
