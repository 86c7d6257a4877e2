"""`/save`, `/load`, `/sessions`, `/export` and `/copy`: the conversation outside of the chat."""

import shlex

from alignbeam_local.conversation.export import EXPORT_ENDINGS, exported
from alignbeam_local.conversation.stored import StoredConversation
from alignbeam_local.errors import AlignBeamError, UsageError
from alignbeam_local.paths import user_path, write_named

from ...console.tables import Column, table
from ...console.terminal import printable, say
from ...endings import by_ending
from ..chat import Chat
from ..clipboard import copy_to_terminal

_SESSIONS = 20


def save(chat: Chat, name: str) -> None:
    """Raises: UsageError: the name is taken, cannot be one, or nothing is kept."""
    if not name:
        raise UsageError("/save needs a name", "Such as /save taxes; /export writes a file.")
    chat.transcript.rename(name)
    say(f"saved: alignbeam chat --session {shlex.quote(name)} goes on with it")


def load(chat: Chat, word: str) -> None:
    """Raises: UsageError: there is no such conversation, or another chat has it open."""
    found = chat.transcript.require_log().find(word)
    chat.transcript.claim(found.id, found.name)
    chat.put_down()
    chat.transcript.take_up(found)
    chat.take_up()


def sessions(chat: Chat, _: str) -> None:
    """The conversations used last."""
    kept = chat.transcript.require_log().conversations(_SESSIONS)
    if not kept:
        say("no conversations are kept yet")
        return
    columns = (
        Column("", 0, lambda one: "*" if one.id == chat.transcript.id else " "),
        Column("name", 0, lambda one: printable(one.name or one.id)),
        Column("answers", 60, lambda one: str(one.num_exchanges), is_number=True),
        Column("last used (UTC)", 80, lambda one: one.updated[:16].replace("T", " ")),
        Column("first question", 0, _first_question, grows=True),
    )
    chat.tell(table(columns, kept, chat.console.width))


def export(chat: Chat, words: str) -> None:
    """Write the conversation to a file, whole or not at all.

    Raises:
        UsageError: no such format, nothing to write, or the file is there and no `!` says to overwrite it.
        AlignBeamError: it cannot be written.
    """
    path = user_path(words.removesuffix("!").strip())
    form = by_ending(path, EXPORT_ENDINGS, "Such as /export talk.md.")
    if not chat.transcript.exchanges:
        raise UsageError("there is nothing to export yet", "Ask something first.")
    lines = exported([chat.transcript.exported()], form)
    try:
        if path.exists() and not words.endswith("!"):
            raise UsageError(f"{path} is there already", f"/export {path} ! overwrites it.")
        write_named(path, "".join(f"{line}\n" for line in lines))
    except (OSError, ValueError) as error:
        raise AlignBeamError(f"cannot write {path}: {error}", "Give another place.") from None
    say(f"written: {path}")


def copy(chat: Chat, _: str) -> None:
    """Raises: UsageError: there is no answer, or no terminal that could take it."""
    exchanges = chat.transcript.exchanges
    if not exchanges:
        raise UsageError("there is no answer to copy", "Ask something first.")
    copy_to_terminal(exchanges[-1].answer)
    say(f"{len(exchanges[-1].answer)} characters sent to the terminal's clipboard")


def _first_question(one: StoredConversation) -> str:
    return " ".join(printable(one.first_question or "").split())
