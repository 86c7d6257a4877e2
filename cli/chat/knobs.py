"""`/set`, `/show`, `/system` and `/model`: the knobs of the coming answers."""

from typing import TYPE_CHECKING, Any

from alignbeam_local.config import CHAT_JUDGE_AT
from alignbeam_local.errors import UsageError
from alignbeam_local.settings import SourcedConfig, SourcedValue

from ..session import config_table
from ..tables import two_columns

if TYPE_CHECKING:
    from .loop import Chat

ROLES = ("draft", "anchor", "judge", "profile")
_DEFAULT, _SOURCE = "default of chat", "chat"


def for_chat(settings: SourcedConfig, *, is_kept: bool) -> SourcedConfig:
    """With a chat's own defaults; one that is not kept leaves no system prompt on disk either."""
    if not is_kept and settings.config.prompt_cache == "all":
        settings = settings.override({"prompt_cache": "examples"}, "--no-log")
    return with_chat_defaults(settings)


def with_chat_defaults(settings: SourcedConfig) -> SourcedConfig:
    """Where several beams are judged and nobody said when: early, so that the answer streams from then on."""
    own = SourcedValue(CHAT_JUDGE_AT, _DEFAULT, explicit=False)
    given = settings.one_at_a_time().given
    others = {name: value for name, value in given.items() if (name, value) != ("judge_at", own)}
    plain = SourcedConfig(others)
    if "judge_at" in others or plain.config.beams == 1:
        return plain
    return SourcedConfig({**others, "judge_at": own})


def set_knob(chat: "Chat", words: str) -> None:
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


def show(chat: "Chat", _: str) -> None:
    """Every knob, its value and its source."""
    if not chat.console.is_terminal:
        chat.tell(config_table(chat.settings))
        return
    values, sources = chat.settings.config.model_dump(), chat.settings.sources
    chat.tell(two_columns((name, f"{value!r}  {sources[name]}") for name, value in values.items()))


def system(chat: "Chat", text: str) -> None:
    """Another system prompt, or none."""
    _change(chat, {"system": text or None})


def model(chat: "Chat", words: str) -> None:
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


def _change(chat: "Chat", values: dict[str, Any]) -> None:
    chat.change(chat.settings.override(values, _SOURCE))
