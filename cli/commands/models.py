"""`alignbeam models`: what there is, and getting it."""

import json
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from alignbeam_local.errors import ModelError
from alignbeam_local.models.adapter import Adapter, is_adapter, read_adapter
from alignbeam_local.models.gguf_header import GgufHeader, read_header
from alignbeam_local.models.importing import Verified, import_model, verify
from alignbeam_local.models.registry import ModelFile, Registry
from alignbeam_local.models.removing import removable, remove
from alignbeam_local.paths import user_path

from ..completion import model_names, profile_names
from ..console.asking import confirm_deletion
from ..console.terminal import for_stream, say
from ..console.waiting import waiting
from ..pulling import keep_examples, pull_with_progress
from ..views.models import in_megabytes, print_models, print_profiles

models_app = typer.Typer(no_args_is_help=True, help="List, fetch, check and remove model files.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Offline = Annotated[bool, typer.Option("--offline", help="Fetch nothing from the network.")]


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """The profiles and the models that have a name, and which of them this project never ran.

    ```sh
    alignbeam models list
    ```
    """
    registry = Registry.load()
    if as_json:
        _echo_json(_listing(registry))
        return
    print_profiles(registry)
    print_models(registry)


@models_app.command("pull")
def pull_models(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names, or hf:owner/repo/file.gguf.", autocompletion=model_names),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="pull all models of this profile, besides those named", autocompletion=profile_names
        ),
    ] = None,
    offline: Offline = False,
) -> None:
    """Fetch models; without a name, those of the default profile.

    ```sh
    alignbeam models pull gemma-3-270m
    alignbeam models pull --profile starter
    alignbeam models pull hf:owner/repo/file.gguf
    ```
    """
    registry = Registry.load()
    wanted = list(names or [])
    if profile or not wanted:
        wanted += registry.profile_models(profile or registry.default_profile)
    for spec, file in zip(dict.fromkeys(wanted), pull_with_progress(registry, wanted, offline), strict=True):
        typer.echo(file.path)
        if not file.entry.roles:
            _tell_next(spec, is_adapter=file.present and is_adapter(file.path))
    if profile or not names:
        keep_examples(registry, profile or registry.default_profile)


@models_app.command("import")
def import_file(
    path: Annotated[Path, typer.Argument(parser=user_path, metavar="PATH", help="A .gguf file.")],
    name: Annotated[str | None, typer.Option(help="Its name; from the file's, if not given.")] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the file, even where a hard link would do.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give a GGUF file a name of its own among the models; a LoRA adapter too.

    ```sh
    alignbeam models import ./my-model.gguf --name my-model
    ```
    """
    with waiting(f"reading {path}"):
        file = import_model(Registry.load(), path, name, "copy" if copy else "link")
    if as_json:
        _echo_json(_model(file))
    else:
        typer.echo(f"{file.name}: {file.path}")
        _tell_next(file.name, is_adapter=is_adapter(file.path))


@models_app.command("rm")
def remove_models(
    names: Annotated[
        list[str], typer.Argument(help="Names of pulled or imported models.", autocompletion=model_names)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete model files that were pulled or imported.

    It asks first; where nobody can answer, it wants `--yes`. A file outside the models directory is refused.

    ```sh
    alignbeam models rm my-model
    ```
    """
    registry = Registry.load()
    files = list({file.path: file for file in (removable(registry, name) for name in names)}.values())
    if not yes:
        size = sum(file.path.stat().st_size for file in files)
        confirm_deletion(f"{', '.join(file.name for file in files)} ({in_megabytes(size)})")
    gone = [remove(file) for file in files]
    if as_json:
        _echo_json([one._asdict() for one in gone])
    for one in () if as_json else gone:
        why = "" if one.freed_bytes else ": another link to the file, or to its bytes, is left"
        typer.echo(for_stream(f"{one.name}: {in_megabytes(one.freed_bytes)} freed{why}", sys.stdout))


@models_app.command("path")
def show_path(
    name: Annotated[str, typer.Argument(help="A model's name.", autocompletion=model_names)],
) -> None:
    """Print where a model's file is.

    ```sh
    alignbeam models path smollm2-135m-instruct
    ```
    """
    typer.echo(Registry.load().require(name).path)


@models_app.command("verify")
def verify_models(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names; without one, all that are on this machine.", autocompletion=model_names),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute the sha256 and compare it with the expected one.

    Every file gets its verdict; if one is damaged the exit code is 3.

    ```sh
    alignbeam models verify
    ```
    """
    registry = Registry.load()
    wanted = names or [file.name for file in registry.files() if file.present]
    for name in wanted:  # one that is misspelt is told before any file is read
        registry.resolve(name)
    checked = [_verified(registry, name, quiet=as_json) for name in wanted]
    if as_json:
        _echo_json([{**result._asdict(), "ok": result.ok} for result in checked])
    if bad := [result.name for result in checked if result.ok is False]:
        raise ModelError(
            f"damaged, missing or not the expected file: {', '.join(bad)}",
            "Delete the file (`models path`) and pull it again.",
        )


@models_app.command("inspect")
def inspect_model(
    model: Annotated[
        str, typer.Argument(help="A name, or a path of a .gguf file.", autocompletion=model_names)
    ],
    as_json: AsJson = False,
) -> None:
    """What a GGUF file says about itself: a model, or a LoRA adapter.

    ```sh
    alignbeam models inspect ./my-model.gguf
    ```
    """
    path = Registry.load().require(model).path
    about = _adapter(read_adapter(path)) if is_adapter(path) else _header(read_header(path))
    if as_json:
        _echo_json(about)
        return
    for key, value in about.items():
        typer.echo(for_stream(f"{key:<16} {_short(value)}", sys.stdout))


def _tell_next(spec: str, *, is_adapter: bool) -> None:
    """A newcomer's next command; beside the output, which stays what a script reads."""
    models = f"--draft BASE --lora {shlex.quote(spec)}" if is_adapter else f"--draft {shlex.quote(spec)}"
    say(f"next: alignbeam chat {models} --profile recommended")


def _verified(registry: Registry, name: str, quiet: bool) -> Verified:
    with waiting(name) as tell:
        result = verify(registry, name, lambda done, total: tell(f"{name}: {done / max(total, 1):.0%}"))
    if not quiet:
        verdict = {True: "ok", False: "WRONG", None: "unknown"}[result.ok]
        why = f": {result.error}" if result.error else ""
        line = f"{verdict:<8} {result.sha256 or '-':<64}  {result.name}{why}"
        typer.echo(for_stream(line, sys.stdout))
    return result


def _listing(registry: Registry) -> dict[str, Any]:
    profiles = {name: {"about": p.about, **p.knobs} for name, p in registry.profiles.items()}
    models = [_model(file) for file in registry.files()]
    return {"models": models, "profiles": profiles, "default_profile": registry.default_profile}


def _model(file: ModelFile) -> dict[str, Any]:
    entry = file.entry.model_dump(
        include={"about", "tested", "licence", "roles", "bytes", "sha256", "format"}
    )
    return {"name": file.name, "path": str(file.path), "present": file.present, **entry}


def _header(header: GgufHeader) -> dict[str, Any]:
    values = {field.name: getattr(header, field.name) for field in fields(header)}  # asdict breaks a Counter
    values |= {"path": str(header.path), "block_bytes": dict(sorted(header.block_bytes.items()))}
    return values | {role: token and token._asdict() for role, token in _special_tokens(header)}


def _adapter(adapter: Adapter) -> dict[str, Any]:
    values = {field.name: getattr(adapter, field.name) for field in fields(adapter) if field.name != "pairs"}
    values |= {"path": str(adapter.path), "type": "adapter", "ranks": adapter.ranks}
    return values | {"parameters": adapter.parameters, "targets": dict(sorted(adapter.targets.items()))}


def _special_tokens(header: GgufHeader) -> list[tuple[str, Any]]:
    return [("bos", header.bos), ("eos", header.eos), ("eot", header.eot)]


def _short(value: Any) -> str:
    if isinstance(value, dict) and "piece" in value:
        return f"{value['id']} {value['piece']!r}"
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return ", ".join(f"{name} x {count}" for name, count in value.items())
    if isinstance(value, dict):
        return f"{sum(value.values()):,} in all"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = "-" if value in (None, "") else str(value)
    return text if "\n" not in text and len(text) <= 100 else f"{text[:80]!r}... ({len(text)} characters)"


def _echo_json(value: Any) -> None:
    print(for_stream(json.dumps(value, indent=2, ensure_ascii=False), sys.stdout))
