"""`/why` and `/trace`: what stands behind the last answer."""

from ..chat import Chat


def why(chat: Chat, which: str) -> None:
    """Raises: UsageError: there is no answer of this run, or no such beam."""
    from ...views.why import explained

    chat.tell(explained(chat.last_result, chat.steps, chat.console.width, which))


def trace(chat: Chat, word: str = "") -> None:
    """Switch the trace of coming answers, or show that of the last; raises as `why`."""
    if word in ("on", "off"):
        chat.traces = word == "on"
    else:
        chat.tell_candidates(word)
