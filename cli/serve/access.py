"""Who may use the server: keys from a file or the environment, addresses, names, pages."""

import os
from collections.abc import Mapping
from pathlib import Path

from alignbeam_local.errors import UsageError
from alignbeam_local.paths import user_path
from alignbeam_local.reading import whole_text

_VARIABLE = "ALIGNBEAM_API_KEY"
_LEAST = 8  # characters


def keys(file: str | None, environ: Mapping[str, str] = os.environ) -> list[bytes]:
    """The keys that open the server: the lines of the file, else the variable; none if neither is given.

    Raises:
        UsageError: the file can't be read or holds no key; a key is too short, or no visible ASCII.
    """
    if file is not None:
        source, found = f"--api-key-file {file}", _lines(user_path(file))
    else:
        source, found = f"environment {_VARIABLE}", [environ.get(_VARIABLE, "")]
        found = [key for key in found if key]
    for key in found:
        if len(key) < _LEAST or not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(
                f"{source}: a key must have at least {_LEAST} visible ASCII characters and no space",
                "Make one: openssl rand -hex 32",
            )
    return [key.encode() for key in found]


def _lines(path: Path) -> list[str]:
    try:
        text = whole_text(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "Check its name and permissions.") from None
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise UsageError(f"{path} holds no key", "Write one on a line of its own.")
    return found
