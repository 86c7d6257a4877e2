"""The prompt of `--template`: a text with the fields of a record in it."""

import json
from collections.abc import Mapping
from string import Formatter
from typing import Any, NamedTuple

from alignbeam_local.errors import UsageError

from ..inputs import text_of
from ..named_texts import KEPT_TEMPLATES, is_name

_HINT = "A field is {name}; a brace that stands for itself is doubled: {{ or }}."


class Part(NamedTuple):
    """Text as it is, and the field that comes after it, if one does."""

    text: str
    field: str | None


class Template(NamedTuple):
    """What `fill` puts a record's fields into; their own braces mean nothing."""

    parts: tuple[Part, ...]

    def fill(self, row: Mapping[str, Any]) -> str:
        """The prompt of a record; a field that is no text stands there as JSON.

        Raises:
            UsageError: a field that the record does not have, or that is null.
        """
        return "".join(text + (_value(row, field) if field else "") for text, field in self.parts)


def read_template(given: str, *, any_field: bool) -> Template:
    """The template in `given`, in the file that an @ names, or the one that is kept under this name.

    Args:
        any_field: whether records have fields of their own, or `prompt` alone.

    Raises:
        UsageError: braces that do not match, no field, an unknown one, no such name, or a file that cannot
                be read.
    """
    template = _parsed(_text(given))
    fields = {part.field for part in template.parts if part.field}
    if not fields:
        raise UsageError("--template: there is no field in it", "Put {prompt} where the prompt belongs.")
    if not any_field and (unknown := fields - {"prompt"}):
        hint = "There is {prompt}; `filter --jsonl` has more."
        raise UsageError(f"--template: no field {{{min(unknown)}}}", hint)
    return template


def _text(given: str) -> str:
    return KEPT_TEMPLATES.read(given, "--template") if is_name(given) else text_of(given, "--template")


def _parsed(text: str) -> Template:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise UsageError(f"--template: {str(error).lower()}", _HINT) from None
    for _, field, form, conversion in parsed:
        if field is not None and (form or conversion or not field or set(field) & set(".[{")):
            raise UsageError(f"--template: {{{field}}} is not a plain field name", _HINT)
    return Template(tuple(Part(text, field) for text, field, _, _ in parsed))


def _value(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if value is None:
        raise UsageError(f"there is no field '{field}'", "The template needs it.")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
