"""Reports that a server shows, by the names of their files."""

from collections.abc import Sequence
from pathlib import Path

from alignbeam_local.errors import UsageError


def reports_by_name(files: Sequence[Path]) -> dict[str, Path]:
    """Raises: UsageError: a file is not there, is no page, or two have one name."""
    found: dict[str, Path] = {}
    for file in files:
        if file.suffix != ".html" or not file.is_file():
            raise UsageError(
                f"--report {file}: no such page", "Make one: alignbeam eval report RUN --out FILE.html"
            )
        if file.stem in found:
            raise UsageError(f"two reports are called {file.stem}", "Rename one of the files.")
        found[file.stem] = file
    return found
