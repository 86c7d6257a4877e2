"""What can be typed in a chat besides a question."""

from collections.abc import Callable
from typing import NamedTuple

from alignbeam_local.config import KNOBS, canonical
from alignbeam_local.errors import UsageError, did_you_mean

from ..console.tables import two_columns
from .actions import attachments as chat_attachments
from .actions import files as chat_files
from .actions import history as chat_history
from .actions import knobs as chat_knobs
from .actions import pick as chat_pick
from .actions import turns as chat_turns
from .actions import why as chat_why
from .chat import Chat

_KEYS = """\
Enter sends. Alt-Enter (or Esc, Enter) begins a new line; so does \"\"\" until the next \"\"\".
Ctrl-R searches what was typed before, Ctrl-X Ctrl-E opens the editor (not with --no-log), Tab completes.
Ctrl-C stops an answer or clears the line, Ctrl-D leaves. A space before a / makes it a question.
/help NAME tells more of a command or a knob."""


class Command(NamedTuple):
    """How it is typed, what it does; an action that returns False leaves the chat."""

    usage: str
    about: str
    action: Callable[[Chat, str], bool | None]


def run_command(chat: Chat, line: str) -> bool:
    """Do what a line that begins with a slash says; False leaves the chat.

    Raises:
        UsageError: no such command, or not with these words.
        AlignBeamError: what the command itself raises.
    """
    name, *rest = line.split(maxsplit=1)
    return command_of(name).action(chat, *(rest or [""])) is not False


def command_of(name: str) -> Command:
    """Raises: UsageError: no such command."""
    name = _ALIASES.get(name, name)
    if name in COMMANDS:
        return COMMANDS[name]
    knob = canonical(name[1:])
    if knob in KNOBS:
        raise UsageError(f"{knob} is a knob", f"/set {knob} VALUE changes it, /help {knob} explains it.")
    hint = did_you_mean(name, [*COMMANDS, *_ALIASES], "/help lists them.")
    raise UsageError(f"unknown command '{name}'", f"{hint} A space before the / makes it a question.")


def _help(chat: Chat, name: str) -> None:
    if not name:
        chat.tell(two_columns((command.usage, command.about) for command in COMMANDS.values()))
        chat.tell(f"\n{_KEYS}")
    elif (knob := canonical(name)) in KNOBS:
        chat.tell(chat_knobs.knob_help(chat, knob))
    else:
        command = command_of(f"/{name.removeprefix('/')}")
        chat.tell(f"{command.usage}\n{command.about}")


def _bye(_: Chat, __: str) -> bool:
    return False


_ALIASES = {"/?": "/help", "/exit": "/bye", "/quit": "/bye"}
COMMANDS = {
    command.usage.split()[0]: command
    for command in (
        Command("/help [NAME]", "this list; or what a command or a knob does", _help),
        Command(
            "/set [KNOB [VALUE]]",
            "change a knob, from the next answer on; without a value, tell of it",
            chat_knobs.set_knob,
        ),
        Command("/show", "every knob and where its value came from", chat_knobs.show),
        Command("/system [TEXT|@FILE]", "the system prompt; without a text, none", chat_knobs.system),
        Command(
            "/role [NAME]",
            "the system prompt that is kept under this name; alone: which there are",
            chat_knobs.role,
        ),
        Command(
            "/model [ROLE] NAME",
            "another draft, anchor, judge or profile; alone: which are in use",
            chat_knobs.model,
        ),
        Command(
            "/retry [KNOB=VALUE…]",
            "answer the last question again, such as /retry alpha=0.8 N=12 K=5",
            chat_turns.retry,
        ),
        Command("/pick BEAM", "another beam that passed the judge as the answer", chat_pick.pick),
        Command("/undo", "forget the last question and its answer", chat_turns.undo),
        Command(
            "/edit",
            "change the last question, in your editor if a log is kept, and ask it again",
            chat_turns.edit,
        ),
        Command(
            "/file [PATH]",
            "a file's text before the next question; without a path, take it off again",
            chat_attachments.attach,
        ),
        Command("/clear", "begin a new conversation", chat_turns.clear),
        Command(
            "/history [N|all]",
            "the conversation so far, cut short; the last N; or all of it",
            chat_history.history,
        ),
        Command("/save NAME", "give the conversation a name to go on with", chat_files.save),
        Command("/load NAME", "go on with another conversation, by its name or id", chat_files.load),
        Command("/sessions", "the conversations that are kept", chat_files.sessions),
        Command(
            "/why [BEAM|all]",
            "why the last answer is what it is: tokens, beams, scores; of one beam all it says",
            chat_why.why,
        ),
        Command(
            "/trace [on|off]",
            "the candidates of each mixed token; on: after every answer",
            chat_why.trace,
        ),
        Command("/copy", "the last answer to the clipboard", chat_files.copy),
        Command(
            "/export FILE [!]",
            "write the conversation to FILE.md, .json or .jsonl; ! overwrites",
            chat_files.export,
        ),
        Command("/bye", "leave; so do Ctrl-D, /exit and /quit", _bye),
    )
}
