"""The flags that ask, filter and chat share: one for every knob of `Config`, texts by name, how to print."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from alignbeam_local.config import ABOUT, KNOBS, LISTS, Config
from alignbeam_local.errors import UsageError
from alignbeam_local.settings import flag_name

from .completion import model_names, profile_names, role_names, template_names
from .inputs import text_of
from .named_texts import KEPT_ROLES

_COMPLETED_BY = {
    **dict.fromkeys(("draft", "anchor", "judge", "lora"), model_names),
    "profile": profile_names,
}
_UNIONS = (Union, UnionType)
_ROLE = "role"

#: The text around a prompt.
TemplateFlag = Annotated[
    str | None,
    typer.Option(
        "--template",
        metavar="NAME|TEXT|@FILE",
        help="a text with `{prompt}` where the prompt belongs, or the name of one that is kept;"
        " any field with `filter --jsonl`",
        autocompletion=template_names,
    ),
]


@dataclass(frozen=True)
class Options:
    """What the shared flags said; a knob that was not given is None in `flags`."""

    flags: dict[str, Any]
    json: bool
    trace: bool
    pull: bool
    offline: bool
    show_config: bool
    quiet: bool
    no_server: bool = False


_COMMON = {
    "json": ("print one JSON object instead of text", "Output", ()),
    "trace": ("write one JSON line per mixed step: before the object, or to stderr", "Output", ()),
    "show_config": ("print every knob and where its value came from, and leave", "Output", ()),
    "quiet": ("no progress and no closing line on stderr", "Output", ("-q",)),
    "pull": ("fetch the models that are missing", "Models", ()),
    "offline": ("fetch nothing from the network", "Models", ()),
    "no_server": ("load the models here, also if a running server has them", "Models", ()),
}


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the command's `options` parameter by the shared flags."""
    return with_options_but()(command)


def with_options_but(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the shared flags but for some, which it has in another way, or not at all."""
    return lambda command: _with_options(command, frozenset(left_out))


def with_knobs(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's `knobs` parameter by the flags of these; one that was not given is None."""

    def replaced(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command).parameters.values() if p.name != "knobs"]

        @wraps(command)
        def flagged(**values: Any) -> None:
            knobs = {name: _flag_value(values.pop(name)) for name in names}
            command(**values, knobs=knobs)

        return _as_flags(flagged, [*map(_plain_parameter, names), *own])

    return replaced


def _plain_parameter(name: str) -> inspect.Parameter:
    option = typer.Option(flag_name(name), help="as for `ask`", show_default=False)
    kind = list[str] if name in LISTS else str
    return _parameter(name, Annotated[kind | None, option], default=None)


def _with_options(command: Callable[..., None], left_out: frozenset[str]) -> Callable[..., None]:
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "options"]
    knobs = [name for name in KNOBS if name not in left_out]
    others = [name for name in _COMMON if name not in left_out]
    roles = [] if _ROLE in left_out else [_role_parameter()]
    shared = [*map(_common_parameter, others), *map(_knob_parameter, knobs), *roles]

    @wraps(command)
    def flagged(**values: Any) -> None:
        flags = {name: _flag_value(values.pop(name)) for name in knobs}
        flags["system"] = _system_prompt(flags["system"], values.pop(_ROLE, None))
        common = {name: values.pop(name) for name in others}
        command(**values, options=Options(flags=flags, **dict.fromkeys(_COMMON, False) | common))

    return _as_flags(flagged, [*own, *shared])


def _system_prompt(given: str | None, role: str | None) -> str | None:
    """Raises: UsageError: both are given, or what is given can't be read."""
    if role is None:
        return text_of(given, flag_name("system")) if given else given
    if given is not None:
        raise UsageError("--role and --system are both given", "A role is a system prompt: leave one out.")
    return KEPT_ROLES.read(role, flag_name(_ROLE))


def _flag_value(value: Any) -> Any:
    """A flag that can be repeated is an empty list where it was not given."""
    return None if value == [] else value


def _as_flags(command: Callable[..., None], flags: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """The command with these for its parameters, as typer reads them."""
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in flags]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _common_parameter(name: str) -> inspect.Parameter:
    text, panel, short = _COMMON[name]
    option = typer.Option(flag_name(name), *short, help=text, rich_help_panel=panel, metavar="")
    return _parameter(name, Annotated[bool, option], default=False)


def _knob_parameter(name: str) -> inspect.Parameter:
    """Values other than flags stay strings: `Config` alone converts and checks them."""
    field, flag = Config.model_fields[name], flag_name(name)
    is_flag = field.annotation is bool
    names = [f"{flag}/--no-{flag.removeprefix('--')}"] if is_flag else [flag]
    if symbol := ABOUT[name].symbol:
        names.append(f"-{symbol}")
    option = typer.Option(
        *names,
        help=_help(field),
        rich_help_panel=ABOUT[name].panel,
        metavar="" if is_flag else metavar(field),
        show_default=False,
        autocompletion=_completion(name, field),
    )
    kind = bool if is_flag else list[str] if name in LISTS else str
    return _parameter(name, Annotated[kind | None, option], default=None)


def _role_parameter() -> inspect.Parameter:
    option = typer.Option(
        flag_name(_ROLE),
        help="the system prompt that is kept under this name",
        rich_help_panel=ABOUT["system"].panel,
        metavar="NAME",
        show_default=False,
        autocompletion=role_names,
    )
    return _parameter(_ROLE, Annotated[str | None, option], default=None)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _help(field: FieldInfo) -> str:
    default = "" if field.default in (None, ()) or field.default is False else f" [default: {field.default}]"
    return f"{field.description}{default}".replace("[", "\\[")


def metavar(field: FieldInfo) -> str:
    """Which values a knob takes, in a few characters."""
    choices, kind = knob_choices(field), _plain_type(field)
    if kind not in (int, float):
        return "|".join(choices) or "TEXT"
    low = next((f"{m.ge}≤" if isinstance(m, Ge) else f"{m.gt}<" for m in _marks(field, Ge, Gt)), "")
    high = next((f"≤{m.le}" if isinstance(m, Le) else f"<{m.lt}" for m in _marks(field, Le, Lt)), "")
    return "|".join([*choices, f"{low}{'INT' if kind is int else 'NUMBER'}{high}"])


def _marks(field: FieldInfo, *kinds: type) -> list[Any]:
    nested = [mark for part in get_args(field.annotation) for mark in getattr(part, "__metadata__", ())]
    marks = [*field.metadata, *(m for n in nested for m in getattr(n, "metadata", [n]))]
    return [mark for mark in marks if isinstance(mark, kinds)]


def knob_choices(field: FieldInfo) -> tuple[str, ...]:
    """The words that a knob may be; none where it is a number only, or any text."""
    if field.annotation is bool:
        return ("on", "off")
    parts = get_args(field.annotation) if get_origin(field.annotation) in _UNIONS else (field.annotation,)
    return tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part))


def _plain_type(field: FieldInfo) -> Any:
    kind = field.annotation
    if get_origin(kind) in _UNIONS:
        kind = next(part for part in get_args(kind) if part is not NoneType)
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _completion(name: str, field: FieldInfo) -> Callable[[str], Sequence[str | tuple[str, str]]] | None:
    choices = knob_choices(field)
    if choices and field.annotation is not bool:
        return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]
    return _COMPLETED_BY.get(name)
