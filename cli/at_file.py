"""A text that a flag takes as it is, or from the file that an @ names."""

from alignbeam_local.errors import UsageError
from alignbeam_local.paths import user_path
from alignbeam_local.reading import read_text


def text_of(given: str, flag: str) -> str:
    """The text itself; of `@FILE` what the file holds, without its last newline.

    Raises:
        UsageError: the file can't be read, or is no text; named with the flag or command that gave it.
    """
    if not given.startswith("@"):
        return given
    try:
        text = read_text(user_path(given[1:]), "@ names a UTF-8 file that holds the text.")
    except UsageError as error:
        raise UsageError(f"{flag}: {error.message}", error.hint) from None
    return text.removesuffix("\n")
