"""`/history`: the conversation so far."""

from alignbeam_local.errors import UsageError

from ...console.terminal import say
from ..chat import Chat
from ..talk import read_again
from .numbers import number_in


def history(chat: Chat, words: str) -> None:
    """All exchanges, cut short; the last N; or `all` of their text.

    Raises:
        UsageError: neither a number nor `all`.
    """
    exchanges = chat.transcript.exchanges
    count = number_in(words)
    if words not in ("", "all") and not count:
        raise UsageError(
            f"/history: '{words}' is no number of questions", "Such as /history 3, or /history all."
        )
    if not exchanges:
        say("nothing has been asked yet")
        return
    shown = exchanges[-count:] if count else exchanges
    chat.tell(read_again(shown, is_whole=words == "all"))
