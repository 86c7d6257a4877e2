"""`/retry`, `/undo`, `/edit` and `/clear`: the turns of the conversation."""

import shlex

from alignbeam_local.errors import UsageError

from ...console.terminal import say
from ...grammar_files import with_file_texts
from ...session import refuse_loading_knobs
from ..chat import Chat
from ..defaults import with_chat_defaults


def retry(chat: Chat, words: str) -> None:
    """Answer the last question again, with these knobs for this answer alone.

    Raises:
        UsageError: words that are no knobs, or nothing to answer again; also as `Chat.retry`.
    """
    knobs = with_file_texts(dict(_knob(word) for word in _split(words)), waits=False)
    refuse_loading_knobs(knobs)
    settings = chat.settings.override(knobs, "/retry")
    for notice in settings.notices:
        if notice not in chat.settings.notices:
            say(f"note: {notice}")
    chat.retry(with_chat_defaults(settings).config)


def undo(chat: Chat, _: str) -> None:
    """Raises: UsageError: there is nothing to forget."""
    chat.transcript.refresh()  # it may fail: nothing is undone then
    if not chat.conversation.undo():
        raise UsageError("there is nothing to undo", "No question has been answered.")
    chat.undone()
    question = chat.transcript.drop_last().question
    say(f"taken out of the conversation: {_excerpt(question)}")


def edit(chat: Chat, _: str) -> None:
    """Ask the last question anew, as the user's editor gives it back; unchanged or empty it stays.

    Raises:
        UsageError: there is no terminal to edit on; also as `Chat.ask`.
    """
    exchanges = chat.transcript.exchanges
    before = exchanges[-1].question if exchanges else ""
    after = (chat.reader.edited(before) or "").strip()
    if after in ("", before.strip()):
        say("unchanged")
        return
    if exchanges:
        chat.retry(chat.settings.config, after)
    else:
        chat.ask(after)


def clear(chat: Chat, _: str) -> None:
    """Begin a new conversation; the one before stays in the log."""
    exchanges, log = chat.transcript.exchanges, chat.transcript.log
    chat.put_down()
    before = shlex.quote(chat.transcript.name or chat.transcript.id)
    chat.transcript.begin()
    chat.take_up()
    left = f"; /load {before} goes back to the one before" if exchanges and log else ""
    say(f"a new conversation begins{left}")


def _split(words: str) -> list[str]:
    try:
        return shlex.split(words)
    except ValueError as error:
        raise UsageError(f"/retry: {error}", "Close the quotes.") from None


def _knob(word: str) -> tuple[str, str]:
    name, sign, value = word.partition("=")
    if not sign:
        raise UsageError(f"/retry: '{word}' is not KNOB=VALUE", "Such as /retry alpha=0.8 N=12.")
    return name, value


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 50 else f"{line[:49]}…"
