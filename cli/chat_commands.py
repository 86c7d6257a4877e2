"""What can be typed in a chat besides a question."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from alignbeam_local.errors import UsageError

from .session import config_table, refuse_loading_knobs
from .terminal import printable, say

if TYPE_CHECKING:
    from .chat import Chat


class Command(NamedTuple):
    """How it is typed, what it does; the action returns whether the chat goes on."""

    usage: str
    about: str
    action: Callable[["Chat", str], bool]


def run_command(chat: "Chat", line: str) -> bool:
    """Do what a line that begins with a slash says.

    Raises:
        UsageError: no such command, or not with these words.
    """
    name, _, rest = line.partition(" ")
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        raise UsageError(
            f"unknown command '{name}'", f"Did you mean {close[0]}?" if close else "/help lists them."
        )
    return COMMANDS[name].action(chat, rest.strip())


def _help(_: "Chat", __: str) -> bool:
    width = max(len(command.usage) for command in COMMANDS.values())
    for command in COMMANDS.values():
        print(f"{command.usage:{width}}  {command.about}")
    return True


def _set(chat: "Chat", words: str) -> bool:
    knob, _, value = words.partition(" ")
    if not value.strip():
        raise UsageError("/set needs a knob and its value", "Such as /set alpha 0.8; /show lists the knobs.")
    refuse_loading_knobs([knob])
    _change(chat, knob, value.strip())
    return True


def _show(chat: "Chat", _: str) -> bool:
    print(printable(config_table(chat.settings)))
    return True


def _system(chat: "Chat", text: str) -> bool:
    _change(chat, "system", text or None)
    return True


def _change(chat: "Chat", knob: str, value: str | None) -> None:
    chat.settings = chat.settings.override({knob: value}, "chat")
    for notice in chat.settings.notices:
        say(f"note: {notice}")


def _clear(chat: "Chat", _: str) -> bool:
    chat.messages = []
    return True


def _bye(_: "Chat", __: str) -> bool:
    return False


COMMANDS = {
    "/help": Command("/help", "this list", _help),
    "/set": Command("/set KNOB VALUE", "change a knob, from the next answer on", _set),
    "/show": Command("/show", "every knob and where its value came from", _show),
    "/system": Command("/system TEXT", "the system prompt; without a text, none", _system),
    "/clear": Command("/clear", "forget the conversation", _clear),
    "/bye": Command("/bye", "leave; so does Ctrl-D", _bye),
}
