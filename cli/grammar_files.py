"""Grammars and schemas that are given as a file, or as the text itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignbeam_local.errors import UsageError
from alignbeam_local.paths import user_path
from alignbeam_local.reading import read_text

_HINT = "Give the text itself, or a file that holds it."
_SCHEMA_BEGINS = ("{", "true")
_WORDS = ("", "none")


def with_file_texts(knobs: Mapping[str, Any], *, waits: bool = True) -> dict[str, Any]:
    """What a person gave, with a file's text where a grammar or a schema was given by its name.

    `waits`: as `read_text`.

    Raises:
        UsageError: the file can't be read.
    """
    texts = {"grammar": _is_grammar, "json_schema": _is_schema}
    return {
        name: value if value is None or name not in texts or texts[name](value) else _read(name, value, waits)
        for name, value in knobs.items()
    }


def _is_grammar(text: str) -> bool:
    return "::=" in text or text.strip() in _WORDS


def _is_schema(text: str) -> bool:
    return text.strip().startswith(_SCHEMA_BEGINS) or text.strip() in _WORDS


def _read(name: str, given: str, waits: bool) -> str:
    path: Path = user_path(given.removeprefix("@"))
    try:
        return read_text(path, _HINT, waits=waits)
    except UsageError as error:
        raise UsageError(f"--{name.replace('_', '-')}: {error.message}", error.hint) from None
