"""Writes docs/reference.md from the code: commands, knobs, variables, exit codes, JSON fields.

python docs/make_reference.py            writes it
python docs/make_reference.py --check    exits with 1 if what is there is not what would be written
"""

import re
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from alignbeam_local.cli.main import make_app
from alignbeam_local.cli.options import knob_choices, metavar
from pydantic.fields import FieldInfo
from typer.main import get_command

from alignbeam_local.config import ABOUT, KNOBS, Config, knobs_of, knobs_that
from alignbeam_local.errors import EXIT_CODES, AlignBeamError
from alignbeam_local.events import Step
from alignbeam_local.knobs.knob import PANELS
from alignbeam_local.result import Result
from alignbeam_local.settings import _OTHER_VARIABLES, flag_name

_JSON_TYPES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    types.NoneType: "null",
}
REFERENCE = Path(__file__).with_name("reference.md")

_HEAD = """
# Reference

<!-- Made from the code by `python docs/make_reference.py`; tests/test_reference.py compares. Do not edit. -->

[Commands](#commands) · [Knobs](#knobs) · [Variables](#variables) · [Exit codes](#exit-codes) ·
[JSON](#what---json-returns) · [Trace](#what---trace-writes) · [Errors](#errors-in-json)

How to use all this: [use.md](use.md).
"""

_KNOBS = """
One name everywhere: `bridge_width` in files and JSON is the flag `--bridge-width`, the variable
`ALIGNBEAM_BRIDGE_WIDTH` and `/set bridge_width` in a chat. The paper's letters `N`, `K` and `B` work too.
The defaults are the paper's where the paper has them, but for `choice`, `score_by` and `on_unsafe`.
Models that are not set are the default profile's. [Where values come from](use.md#settings) says which of
several values counts.
"""

_FIXED = """
These decide what is loaded: {knobs}.
They cannot change within one `filter`, nor by `/retry`. In a chat `/set` and `/model` load anew,
and `parallel` stays 1.
"""

_JSON = """
One object for each prompt, from `ask --json`, `filter --jsonl` and `chat --json`. Names are stable.
"""

_TRACE = """
With `--trace`, one object for each mixed token of each beam comes before the answer's object
(without `--json`: on stderr). Its first field is `event`, which is `step`.
Where the request is read, an object with the event `request` and the fields of
[Steering](#steering) comes first.
Where an answer is read while it grows, each window is an object with the event `window`, its beam, and
the fields of [Window](#window); where it is put back one with the event `steered_back`, `beam`, `tokens`
and `attempt`.
"""

_ERRORS = """
In `filter --jsonl` a line that cannot be answered becomes `{"id", "line", "error"}`,
and `error` is an object with `type`, `message` and `hint`.
"""


def reference() -> str:
    """The whole page."""
    fixed = _FIXED.format(knobs=_words(knobs_that("loads")))
    parts = [
        *(_HEAD, "## Commands", *_commands(get_command(make_app()), ["alignbeam"])),
        *("## Knobs", _KNOBS, *_knobs(), fixed),
        *("## Variables", _variables(), "## Exit codes", _exit_codes()),
        *("## What `--json` returns", _JSON, *_classes(Result)),
        *("## What `--trace` writes", _TRACE, *_classes(Step)),
        *("## Errors in JSON", _ERRORS, _error_kinds()),
    ]
    return "".join(f"{part.strip()}\n\n" for part in parts).rstrip("\n") + "\n"


# --- commands


def _commands(command: Any, words: Sequence[str]) -> Iterator[str]:
    """A heading, the help and the parameters of a command, then its sub-commands."""
    yield f"### {' '.join(words)}"
    yield "\n\n".join(part.strip() for part in (command.help, command.epilog) if part)
    shared = [p for p in command.params if p.name in KNOBS and p.rich_help_panel in PANELS]
    many = len(shared) > len(KNOBS) / 2
    own = [p for p in command.params if not (many and p in shared) and not p.hidden]
    if own:
        yield _table(("", "values", "meaning"), [(_names(p), _values(p), _meaning(p)) for p in own])
    if many:
        missing = _words(knob for knob in KNOBS if knob not in {p.name for p in shared})
        yield f"Every [knob](#knobs) is a flag too{missing and f', but for {missing}'}."
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, [*words, name])


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{(parameter.metavar or parameter.name).upper()}`"
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _values(parameter: Any) -> str:
    kind = parameter.type_descriptor.annotation
    is_flag = getattr(parameter, "is_flag", False)
    text = parameter.metavar or ("" if is_flag else _words(_choices(kind)) or _kind(kind))
    marks = ["required"] if parameter.required else []
    if parameter.multiple or parameter.nargs == -1:
        marks.append("several")
    return ", ".join([f"`{text}`" if text and "`" not in text else text, *marks]).removeprefix(", ")


def _choices(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return tuple(choice.value for choice in kind)
    if get_origin(kind) in (Union, types.UnionType, list, tuple):
        return tuple(choice for part in get_args(kind) for choice in _choices(part))
    return ()


def _kind(kind: Any) -> str:
    names = {"int": "NUMBER", "float": "NUMBER", "Path": "FILE"}
    return next((name for word, name in names.items() if word in str(kind)), "TEXT")


def _meaning(parameter: Any) -> str:
    text = (getattr(parameter, "help", None) or "").replace("\\[", "[")
    default = parameter.default
    told = default is None or isinstance(default, bool) or callable(default) or "[default" in text
    return text if told or not parameter.show_default else f"{text} [default: {default}]"


# --- knobs, variables, codes


def _knobs() -> Iterator[str]:
    for title in PANELS:
        yield f"### {title}"
        titles = ("knob", "flag and variable", "default", "values", "meaning")
        yield _table(titles, map(_knob, knobs_of(title)))


def _knob(name: str) -> tuple[str, ...]:
    field = Config.model_fields[name]
    letters = [letter] if (letter := ABOUT[name].symbol) else []
    ways = [flag_name(name), *(f"-{letter}" for letter in letters), f"ALIGNBEAM_{name.upper()}"]
    shown = {None: "not set", True: "on", False: "off"}
    is_word = field.default is None or isinstance(field.default, bool)
    default = shown[field.default] if is_word else f"`{field.default}`"
    shared = "<br>".join(f"`{way}`" for way in ways)
    return _words([name, *letters]), shared, default, _range(field), field.description or ""


def _range(field: FieldInfo) -> str:
    """The values of a knob in words, from what its flag shows."""
    words, number = [f"`{word}`" for word in knob_choices(field)], metavar(field).split("|")[-1]
    found = re.fullmatch(r"(?:(.+)([≤<]))?(?:INT|NUMBER)(?:([≤<])(.+))?", number)
    if found:
        low, over, under, high = found.groups()
        start = f"over {low}" if over == "<" else low
        end = f" to {'under ' if under == '<' else ''}{high}" if high else " and more"
        none = ["`none`"] if types.NoneType in get_args(field.annotation) else []
        return ", ".join([*words, f"{start}{end}", *none])
    return ", ".join(words) or "text"


def _variables() -> str:
    rows = [(f"`{name}`", meaning) for name, meaning in _OTHER_VARIABLES.items()]
    knobs = ("`ALIGNBEAM_` and a knob", "the knob's value, as `ALIGNBEAM_ALPHA=0.8`")
    return _table(("variable", "meaning"), [*rows, knobs])


def _exit_codes() -> str:
    return _table(("code", "meaning"), ((str(code), meaning) for code, meaning in EXIT_CODES.items()))


def _error_kinds() -> str:
    kinds = [kind for kind in AlignBeamError.__subclasses__() if kind.__module__ == AlignBeamError.__module__]
    kinds = [AlignBeamError, *kinds]
    rows = ((f"`{kind.kind}`", _summary(kind), str(kind.exit_code)) for kind in kinds)
    return _table(("type", "when", "exit code"), rows)


# --- dataclasses


def _classes(kind: type) -> Iterator[str]:
    """Tables of the fields of a dataclass and of those that it holds, the outermost first."""
    waiting, done = [kind], []
    while waiting:
        done.append(waiting.pop(0))
        yield from _class(done[-1], is_first=done[-1] is kind)
        inner = [c for hint in get_type_hints(done[-1]).values() for c in _held(hint)]
        waiting += [c for c in dict.fromkeys(inner) if c not in (*done, *waiting)]


def _class(kind: type, *, is_first: bool) -> Iterator[str]:
    if not is_first:
        yield f"### {kind.__name__}"
        yield _summary(kind)
    hints, meanings = get_type_hints(kind), _meanings(kind)
    names = [field.name for field in fields(kind)]
    rows = [(f"`{name}`", _json_type(hints[name]), meanings[name]) for name in names]
    yield _table(("field", "type", "meaning"), rows)


def _meanings(kind: type) -> dict[str, str]:
    """What the docstring of a dataclass says of each field, under `Attributes:`."""
    text = (kind.__doc__ or "").partition("Attributes:")[2]
    found = re.findall(r"^ {8}(\w+): (.*(?:\n {12,}.*)*)", text, re.M)
    texts = {name: re.sub(r"\s+", " ", meaning).rstrip(".") for name, meaning in found}
    return {name: re.sub(r"\bNone\b", "null", text) for name, text in texts.items()}


def _held(hint: Any) -> Iterator[type]:
    if is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for part in get_args(hint):
        yield from _held(part)


def _json_type(hint: Any) -> str:
    """A type as JSON has it; a dataclass is a link to its table."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _words(parts)
    if origin in (Union, types.UnionType):
        return " or ".join(_json_type(part) for part in parts)
    if origin is tuple:
        return f"list of {_json_type(parts[0])}"
    if origin is dict:
        return "object" if parts[1] is Any else f"object of {_json_type(parts[1])}"
    if is_dataclass(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return _JSON_TYPES[hint]


# --- text


def _summary(kind: type) -> str:
    """The first paragraph of a docstring."""
    return " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split())


def _words(words: Iterable[Any]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def main(arguments: Sequence[str]) -> int:
    """Write the page, or tell whether it is up to date."""
    made = reference()
    if "--check" not in arguments:
        REFERENCE.write_text(made, encoding="utf-8")
        return 0
    if REFERENCE.exists() and REFERENCE.read_text(encoding="utf-8") == made:
        return 0
    print(f"{REFERENCE} is stale: run python docs/make_reference.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
