"""What is written to a file whose format nobody named: its ending says it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from alignbeam_local.errors import UsageError

T = TypeVar("T")


def by_ending(path: Path, forms: Mapping[str, T], hint: str) -> T:
    """The format that a file's ending names.

    Args:
        forms: by their endings, as `.md`, in small letters.

    Raises:
        UsageError: none of them; with the hint.
    """
    form = forms.get(path.suffix.lower())
    if form is None:
        *most, last = forms
        raise UsageError(
            f"the ending of '{path.name}' does not say a format", f"{', '.join(most)} or {last}. {hint}"
        )
    return form
