"""`/history`: the conversation so far."""

from alignbeam_local.errors import UsageError

from ...console.terminal import say
from ..chat import Chat
from ..talk import read_again


def history(chat: Chat, words: str) -> None:
    """All exchanges, cut short; the last N; or `all` of their text.

    Raises:
        UsageError: neither a number nor `all`.
    """
    exchanges = chat.transcript.exchanges
    is_count = words.isascii() and words.isdecimal() and len(words) < 9 and int(words) > 0
    if words not in ("", "all") and not is_count:
        raise UsageError(
            f"/history: '{words}' is no number of questions", "Such as /history 3, or /history all."
        )
    if not exchanges:
        say("nothing has been asked yet")
        return
    shown = exchanges[-int(words) :] if is_count else exchanges
    chat.tell(read_again(shown, is_whole=words == "all"))
