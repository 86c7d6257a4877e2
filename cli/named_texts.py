"""Texts that a user keeps by name, as files of the configuration directory: roles and templates."""

import re
from pathlib import Path
from typing import NamedTuple

from alignbeam_local.errors import UsageError, did_you_mean
from alignbeam_local.paths import config_dir

from .inputs import text_of

_NAME = re.compile(r"[\w-][\w.-]*")


class NamedTexts(NamedTuple):
    """The texts of a kind: what one is called, and how its file ends."""

    noun: str
    suffix: str

    @property
    def folder(self) -> Path:
        """Where their files lie; it need not be there."""
        return config_dir() / f"{self.noun}s"

    def names(self) -> list[str]:
        """Those that are kept, sorted. Raises: UsageError: the folder can't be read."""
        try:
            files = list(self.folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(
                f"cannot read {self.folder}: {error.strerror}", "It must be a folder you may read."
            ) from None
        return sorted(file.stem for file in files if file.suffix == self.suffix and is_name(file.stem))

    def read(self, name: str, flag: str) -> str:
        """The text of this name, without its last newline.

        Raises:
            UsageError: no such name, or its file can't be read; named with the flag or command that gave it.
        """
        if not is_name(name):
            raise UsageError(
                f"{flag}: {name!r} is not the name of a {self.noun}",
                "A name has letters, digits, . _ and -, and does not begin with a dot.",
            )
        names = self.names()
        if name not in names:
            raise UsageError(f"{flag}: there is no {self.noun} '{name}'", self._hint(name, names))
        return text_of(f"@{self._file(name).absolute()}", flag)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}{self.suffix}"

    def _hint(self, name: str, names: list[str]) -> str:
        known = f"{self.noun.capitalize()}s: {', '.join(names)}." if names else f"No {self.noun} is kept yet."
        return f"{did_you_mean(name, names, known)} Its text belongs in {self._file(name)}."


KEPT_ROLES = NamedTexts("role", ".md")
KEPT_TEMPLATES = NamedTexts("template", ".txt")


def is_name(text: str) -> bool:
    """Whether this can be the name of a kept text, which never leads out of its folder."""
    return bool(_NAME.fullmatch(text))
