"""`alignbeam config`: the file that holds the user's knobs."""

import os
from typing import Annotated

import typer

from alignbeam_local.errors import UsageError
from alignbeam_local.models.registry import Registry
from alignbeam_local.paths import config_file, write_named
from alignbeam_local.settings import resolve

from ..config_template import config_template
from ..console.terminal import say
from ..session import config_json, config_table

config_app = typer.Typer(
    no_args_is_help=True, help="Begin the configuration file, or show what it and the rest come to."
)


@config_app.command()
def init(
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="replace the file that is there")
    ] = False,
) -> None:
    """Write a configuration file with every knob, its meaning and its default, all of it commented out.

    ```sh
    alignbeam config init && "$EDITOR" "$(alignbeam config path)"
    ```
    """
    path = config_file()
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", "Edit it, or replace it with --force.")
    write_named(path, config_template())
    say(f"written: {path}")


@config_app.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="print one JSON object")] = False,
) -> None:
    """Every knob, its value, and where that came from.

    The same as `--show-config` of `ask`, `filter` and `chat`, which heeds their flags too.

    ```sh
    alignbeam config show | grep -v default
    ```
    """
    settings = resolve({}, Registry.load(), os.environ)
    print(config_json(settings) if as_json else config_table(settings))


@config_app.command()
def path() -> None:
    """Where the configuration file is, or would be."""
    print(config_file())
