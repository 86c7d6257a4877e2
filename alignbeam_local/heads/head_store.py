"""Where the records of one kind of head are kept: the user's own, and the shipped ones."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from ..errors import ModelError
from ..paths import data_dir, write_named


class Record(BaseModel):
    """What is kept on disk: nothing in it may be unknown, missing or no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class HeadRecord(Record):
    """A record that holds for one model and template: `key` hashes the template as rendered."""

    model: str
    model_sha256: str
    key: str


T = TypeVar("T", bound=HeadRecord)


class HeadStore(Generic[T]):
    """Finds, reads and writes records. Each is read once."""

    def __init__(self, kind: type[T], own: str, shipped: Path, noun: str) -> None:
        """`own` is the user's folder, in the data directory; `noun` what a record is of, with its article."""
        self._kind = kind
        self._own = own
        self.shipped = shipped
        self._noun = noun
        self._read = cache(self._parsed)

    @property
    def folders(self) -> tuple[Path, Path]:
        """Where to look, the user's own first."""
        return data_dir() / self._own, self.shipped

    def file(self, model_sha256: str, key: str) -> Path:
        """Where the user's record for this very file and template is kept, whatever the file is called."""
        return data_dir() / self._own / f"{model_sha256[:12]}-{key[:12]}.json"

    def find(self, model_sha256: str, key: str) -> T | None:
        """The record of this very model and template: the user's own, or else the shipped one.

        Raises:
            ModelError: the user's own is damaged.
        """
        own = self.file(model_sha256, key)
        for path in (*([own] if own.exists() else []), *sorted(self.shipped.glob("*.json"))):
            record = self.load(path)
            if (record.model_sha256, record.key) == (model_sha256, key):
                return record
        return None

    def all(self) -> Iterator[tuple[Path, T]]:
        """All records and where they are, the user's own first. Raises: ModelError: one is damaged."""
        for folder in self.folders:
            for path in sorted(folder.glob("*.json")):
                yield path, self.load(path)

    def load(self, path: Path) -> T:
        """Read a record. Raises: ModelError: the file is no record, or a number in it is none."""
        return self._read(path)

    def save(self, record: T, path: Path) -> None:
        """Write a record, whole or not at all. Raises: OSError: it can't be written."""
        write_named(path, json.dumps(record.model_dump(mode="json")) + "\n")
        self._read.cache_clear()

    def _parsed(self, path: Path) -> T:
        try:
            return self._kind.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            hint = "Delete it, or fit anew."
            raise ModelError(f"{path} is no record of {self._noun}: {error}", hint) from None
