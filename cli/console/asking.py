"""Asking a person before something is gone for good."""

import sys

import typer

from alignbeam_local.errors import UsageError

from .terminal import is_terminal


def confirm_deletion(what: str) -> None:
    """Go on only if a person says yes.

    Raises:
        UsageError: there is nobody to ask.
        typer.Abort: the answer is no.
    """
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise UsageError(f"this would delete {what}", "Add --yes to delete without being asked.")
    typer.confirm(f"Delete {what} for good?", abort=True, err=True)
