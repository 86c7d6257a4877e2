"""`/history`: the conversation so far."""

from alignbeam_local.errors import UsageError

from ..terminal import say
from ..views.talk import read_again
from .chat import Chat


def history(chat: Chat, words: str) -> None:
    """All exchanges, cut short; the last N; or `all` of their text.

    Raises:
        UsageError: neither a number nor `all`.
    """
    exchanges = chat.transcript.exchanges
    if words not in ("", "all") and not (words.isdecimal() and int(words)):
        raise UsageError(
            f"/history: '{words}' is no number of questions", "Such as /history 3, or /history all."
        )
    if not exchanges:
        say("nothing has been asked yet")
        return
    shown = exchanges[-int(words) :] if words.isdecimal() else exchanges
    chat.tell(read_again(shown, is_whole=words == "all"))
