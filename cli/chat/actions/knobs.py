"""`/set`, `/show`, `/system`, `/role`, `/model` and `/lora`: the knobs of the coming answers."""

import shlex
from collections.abc import Iterable
from typing import Any

from alignbeam_local.config import ALIASES, KNOBS, Config
from alignbeam_local.errors import UsageError, did_you_mean

from ...console.tables import two_columns
from ...console.terminal import printable, say
from ...grammar_files import with_file_texts
from ...inputs import text_of
from ...named_texts import KEPT_ROLES
from ...options import metavar
from ...session import config_table
from ..chat import Chat

ROLES = ("draft", "anchor", "judge", "profile")
#: Stands between the names of several anchors.
_AND = " + "
_SOURCE = "chat"
_LONGEST = 60  # characters of a value in a line


def set_knob(chat: Chat, words: str) -> None:
    """Change a knob, or tell of it where no value is given; alone: of all.

    Raises:
        UsageError: no such knob or value; also as `Chat.change`.
    """
    knob, _, value = words.partition("=" if "=" in words.split(" ", maxsplit=1)[0] else " ")
    knob, value = knob.strip(), value.strip()
    if not words:
        show(chat, "")
        return
    if not knob:
        raise UsageError("/set needs a knob and its value", "Such as /set alpha 0.8; /show lists the knobs.")
    knob = ALIASES.get(knob, knob)
    if not value:
        require_knob(knob)
        chat.tell(knob_help(chat, knob))
        return
    if knob == "parallel":
        raise UsageError("a chat answers one prompt at a time", "parallel is for filter and eval run.")
    if knob == "profile":
        model(chat, f"profile {value}")
    else:
        _change(chat, {knob: text_of(value, "/set system", waits=False) if knob == "system" else value})


def require_knob(name: str) -> None:
    """Raises: UsageError: no such knob."""
    if name not in KNOBS:
        hint = did_you_mean(name, [*KNOBS, *ALIASES], "/show lists the knobs.")
        raise UsageError(f"there is no knob '{name}'", hint)


def knob_help(chat: Chat, knob: str) -> str:
    """Its value, its source, what it does, which values it takes."""
    field, value = Config.model_fields[knob], getattr(chat.settings.config, knob)
    return (
        f"{knob} = {shown(value)} ({chat.settings.sources[knob]})\n"
        f"{field.description}\nvalues: {metavar(field)}; default: {shown(field.default)}"
    )


def show(chat: Chat, _: str) -> None:
    """Every knob, its value and its source."""
    if not chat.console.is_terminal:
        chat.tell(config_table(chat.settings))
        return
    values, sources = chat.settings.config.model_dump(), chat.settings.sources
    chat.tell(two_columns((name, f"{value!r}  {sources[name]}") for name, value in values.items()))


def system(chat: Chat, text: str) -> None:
    """Another system prompt, from a file if an @ names one, or none. Raises: UsageError: no such file."""
    _change(chat, {"system": text_of(text, "/system", waits=False) or None})


def role(chat: Chat, name: str) -> None:
    """The system prompt kept under this name; alone: which there are. Raises: UsageError: no such name."""
    if name:
        _change(chat, {"system": KEPT_ROLES.read(name, "/role") or None})
    elif names := KEPT_ROLES.names():
        chat.tell("\n".join(names))
    else:
        chat.tell(f"no role is kept yet; NAME.md in {KEPT_ROLES.folder} would be one")


def model(chat: Chat, words: str) -> None:
    """Another model in a role, or a profile's models and knobs; alone: who plays which role.

    Raises:
        UsageError, ModelError: as `Chat.change`.
    """
    if not words:
        config = chat.settings.config
        chat.tell(two_columns((role, _played(getattr(config, role))) for role in ROLES))
        return
    role, *name = words.split(maxsplit=1)
    if role not in ROLES:
        role, name = "draft", [words]
    if not name:
        raise UsageError(f"/model {role} needs a name", "`alignbeam models list` shows what there is.")
    if role == "profile":
        before = chat.settings.config
        chat.change(chat.settings.with_profile(name[0], chat.registry, _SOURCE))
        _tell_changes(chat, before, ROLES)
    else:
        _change(chat, {role: name[0].split(_AND) if role == "anchor" else name[0]})


def _played(models: str | tuple[str, ...] | None) -> str:
    return _AND.join(models) if isinstance(models, tuple) else models or "none"


def lora(chat: Chat, words: str) -> None:
    """Other LoRA adapters on the draft, or none; alone: which are on it.

    Raises:
        UsageError, ModelError: as `Chat.change`.
    """
    if words:
        _change(chat, {"lora": _split(words)})
    else:
        chat.tell("\n".join(chat.settings.config.lora) or "no adapter is on the draft")


def _split(words: str) -> list[str]:
    """Words as a shell cuts them: a path with a blank is quoted. Raises: UsageError: a quote is open."""
    try:
        return shlex.split(words)
    except ValueError as error:
        raise UsageError(f"/lora: {error}", "Close the quote, or put a backslash before it.") from None


def _change(chat: Chat, values: dict[str, Any]) -> None:
    before = chat.settings.config
    chat.change(chat.settings.override(with_file_texts(values, waits=False), _SOURCE))
    _tell_changes(chat, before, values)


def _tell_changes(chat: Chat, before: Config, knobs: Iterable[str]) -> None:
    """One line: what these are now, and what those were that changed; also a draft's adapters."""
    after = chat.settings.config
    knobs = [*knobs, *(["lora"] if before.lora != after.lora and "lora" not in knobs else [])]
    say(", ".join(_told(knob, getattr(before, knob), getattr(after, knob)) for knob in knobs))


def _told(knob: str, before: object, after: object) -> str:
    return f"{knob} = {shown(after)}" + (f" (was {shown(before)})" if before != after else " (as before)")


def shown(value: object) -> str:
    """A knob's value in a line; a long text cut short."""
    if value in (None, ()):
        return "none"
    if isinstance(value, tuple):
        value = ", ".join(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    line = " ".join(printable(str(value)).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
