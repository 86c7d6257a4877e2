"""`/file`: texts of files that go before the next question."""

from alignbeam_local.errors import UsageError

from ...console.terminal import say
from ...quoted_file import quoted_file
from ..chat import Chat


def attach(chat: Chat, given: str) -> None:
    """Put a file's text before the next question; without a name, take off what waits for it.

    Raises:
        UsageError: it can't be read, or is no text.
    """
    if not given:
        if not chat.attached:
            raise UsageError("/file needs a file", "Such as /file notes.md; then ask.")
        say(f"taken off: {_files(len(chat.attached))}")
        chat.attached = []
        return
    text = quoted_file(_unquoted(given), waits=False)
    chat.attached.append(text)
    say(f"before the next question: {_files(len(chat.attached))}; /file alone takes them off")


def _unquoted(given: str) -> str:
    """A path as terminals paste it may stand in quotes."""
    return given[1:-1] if len(given) > 2 and given[0] == given[-1] and given[0] in "'\"" else given


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
