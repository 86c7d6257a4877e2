"""What `ask` and `filter` keep in the conversations' log, where that is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from alignbeam_local.result import Result

if TYPE_CHECKING:
    from alignbeam_local.conversation.log import ConversationLog


class Kept:
    """One conversation of the log, which begins with its first exchange; or nothing at all."""

    def __init__(self, log: "ConversationLog | None", conversation: str = "") -> None:
        self._log = log
        self._conversation = conversation

    def add(self, question: str, result: Result) -> None:
        """Keep an exchange. Raises: AlignBeamError: it can't be stored."""
        if self._log is not None:
            self._log.reopen_if_gone()
            self._log.add(self._conversation, question, result)


@contextmanager
def opened_log(*, is_wanted: bool) -> Iterator[Kept]:
    """A new conversation in the log, if one is wanted.

    Raises:
        AlignBeamError: the log can't be read and written.
    """
    if not is_wanted:
        yield Kept(None)
        return
    from alignbeam_local.conversation.log import ConversationLog
    from alignbeam_local.conversation.stored import new_id

    with ConversationLog() as log:
        yield Kept(log, new_id())
