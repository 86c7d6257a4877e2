"""`/why` and `/trace`: what stands behind the last answer."""

from typing import TYPE_CHECKING

from alignbeam_local.errors import UsageError

if TYPE_CHECKING:
    from alignbeam_local.events import Result

    from .loop import Chat


def why(chat: "Chat", which: str) -> None:
    """Raises: UsageError: there is no answer of this run, or no such beam."""
    from ..views.why import explained

    chat.tell(explained(_last(chat), chat.steps, chat.console.width, which))


def trace(chat: "Chat", word: str = "") -> None:
    """Switch the trace of coming answers, or show that of the last; raises as `why`."""
    from ..views.why import candidates

    if word in ("on", "off"):
        chat.traces = word == "on"
    else:
        chat.tell(candidates(_last(chat), chat.steps, chat.console.width, word))


def _last(chat: "Chat") -> "Result":
    if chat.conversation.last is None:
        raise UsageError("there is no answer of this run to explain", "Ask something, or /retry.")
    return chat.conversation.last.result
