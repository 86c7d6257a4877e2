"""`/set`, `/show`, `/system` and `/model`: the knobs of the coming answers."""

from typing import Any

from alignbeam_local.errors import UsageError

from ..grammar_files import with_file_texts
from ..session import config_table
from ..tables import two_columns
from .chat import Chat

ROLES = ("draft", "anchor", "judge", "profile")
_SOURCE = "chat"


def set_knob(chat: Chat, words: str) -> None:
    """Raises: UsageError: no such knob or value; also as `Chat.change`."""
    knob, _, value = words.partition("=" if "=" in words.split(" ", maxsplit=1)[0] else " ")
    if not value.strip():
        raise UsageError("/set needs a knob and its value", "Such as /set alpha 0.8; /show lists the knobs.")
    knob, value = knob.strip(), value.strip()
    if knob == "parallel":
        raise UsageError("a chat answers one prompt at a time", "parallel is for filter and eval run.")
    if knob == "profile":
        model(chat, f"profile {value}")
    else:
        _change(chat, {knob: value})


def show(chat: Chat, _: str) -> None:
    """Every knob, its value and its source."""
    if not chat.console.is_terminal:
        chat.tell(config_table(chat.settings))
        return
    values, sources = chat.settings.config.model_dump(), chat.settings.sources
    chat.tell(two_columns((name, f"{value!r}  {sources[name]}") for name, value in values.items()))


def system(chat: Chat, text: str) -> None:
    """Another system prompt, or none."""
    _change(chat, {"system": text or None})


def model(chat: Chat, words: str) -> None:
    """Another model in a role, or a profile's models and knobs; alone: who plays which role.

    Raises:
        UsageError, ModelError: as `Chat.change`.
    """
    if not words:
        config = chat.settings.config
        chat.tell(two_columns((role, getattr(config, role) or "none") for role in ROLES))
        return
    role, *name = words.split(maxsplit=1)
    if role not in ROLES:
        role, name = "draft", [words]
    if not name:
        raise UsageError(f"/model {role} needs a name", "`alignbeam models list` shows what there is.")
    if role == "profile":
        chat.change(chat.settings.with_profile(name[0], chat.registry, _SOURCE))
    else:
        _change(chat, {role: name[0]})


def _change(chat: Chat, values: dict[str, Any]) -> None:
    chat.change(chat.settings.override(with_file_texts(values), _SOURCE))
