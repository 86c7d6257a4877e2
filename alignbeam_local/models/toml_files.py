"""Reading models.toml: the shipped one, and the user's laid over it key by key."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter, ValidationError

from ..config import Config, by_name
from ..errors import AlignBeamError, UsageError, did_you_mean
from ..paths import config_dir, locked, user_path, write_named
from ..reading import whole_text
from .entry import Hub, JudgeEntry, Mirror, ModelEntry, Name

_DISTRIBUTION = "alignbeam-local"
_TOP_LEVEL = ("models", "profiles", "default_profile")
_NESTED: dict[str, type[BaseModel]] = {"hub": Hub, "mirror": Mirror, "judge": JudgeEntry}


class Profile(NamedTuple):
    """A named set of knobs."""

    name: str
    about: str
    knobs: Mapping[str, Any]


def shipped_file() -> Path:
    """The models.toml of this installation, from the source tree or from the installed data files.

    Raises:
        AlignBeamError: the installation lacks it.
    """
    tree = Path(__file__).resolve().parents[2]
    if (tree / "pyproject.toml").is_file() and (tree / "models.toml").is_file():
        return tree / "models.toml"
    for file in metadata.files(_DISTRIBUTION) or ():
        if file.parts[-3:] == ("share", _DISTRIBUTION, "models.toml"):
            return Path(str(file.locate()))
    raise AlignBeamError("models.toml is missing from this installation", "Install alignbeam-local again.")


def user_file() -> Path:
    return config_dir() / "models.toml"


def append_table(table: str) -> None:
    """Append a table to the user's file: what is there stays as it is.

    Raises:
        UsageError: the file is no TOML, or has that table already.
    """
    file = user_file()
    with locked(file):
        before = whole_text(file.read_bytes(), str(file)) if file.exists() else ""
        after = f"{before.rstrip()}\n\n{table}".lstrip()
        try:
            tomllib.loads(after)
        except tomllib.TOMLDecodeError as error:
            heading = table.partition("\n")[0]
            raise UsageError(f"{heading} cannot be added to {file}: {error}", "Correct that file.") from None
        write_named(file, after)


def remove_table(table: str) -> None:
    """Take a table out of the user's file that stands there just as it was appended; any other stays."""
    file = user_file()
    with locked(file):
        before = whole_text(file.read_bytes(), str(file)) if file.exists() else ""
        if f"\n{table}" not in f"\n{before}":
            return
        head, _, tail = before.partition(table)
        if tail.strip() and not tail.lstrip().startswith("["):  # somebody added keys of their own
            return
        write_named(file, f"{head.rstrip()}\n\n{tail.lstrip()}".strip() + "\n")


class TomlSource(NamedTuple):
    """One models.toml as it was read."""

    path: Path
    data: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "TomlSource":
        """Raises: UsageError: not TOML, not readable, or an unknown key at the top."""
        try:
            data = tomllib.loads(whole_text(path.read_bytes(), str(path)))
        except (ValueError, RecursionError) as error:  # no TOML, or a number of thousands of digits
            raise UsageError(f"{path}: {error}", "The file must be TOML.") from None
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}", "Check its permissions.") from None
        for key in data:
            if key not in _TOP_LEVEL:
                raise _unknown_key(str(path), key, _TOP_LEVEL)
        return cls(path, data)

    def tables(self, section: str) -> dict[str, dict[str, Any]]:
        tables = self.data.get(section, {})
        if isinstance(tables, dict) and all(isinstance(table, dict) for table in tables.values()):
            return tables
        raise UsageError(f"{self.path}: [{section}] must hold tables", f"Write [{section}.NAME].")


def models(sources: Sequence[TomlSource]) -> Mapping[str, ModelEntry]:
    """Every entry, checked."""
    merged: dict[str, dict[str, Any]] = {}
    entries: dict[str, ModelEntry] = {}
    for source in sources:
        for name, table in source.tables("models").items():
            where = f"{source.path}: [models.{name}]"
            merged[name] = {**merged.get(name, {}), **_located(where, table, source.path.parent)}
            entries[name] = _entry(where, name, merged[name])
    return MappingProxyType(entries)


def _located(where: str, table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Its `path`, if it has one, counts from the folder of the file that it stands in."""
    path = table.get("path")
    if not isinstance(path, str):
        return table
    try:
        return {**table, "path": folder / user_path(path)}
    except UsageError as error:
        raise UsageError(f"{where}: path = {error.message}", error.hint) from None


def _entry(where: str, name: str, table: dict[str, Any]) -> ModelEntry:
    try:
        TypeAdapter(Name).validate_python(name)
        return ModelEntry.model_validate(table)
    except ValidationError as error:
        raise _invalid(where, error) from None


def profiles(sources: Sequence[TomlSource]) -> Mapping[str, Profile]:
    """Every profile, its knobs checked."""
    merged: dict[str, Profile] = {}
    for source in sources:
        for name, table in source.tables("profiles").items():
            old = merged.get(name, Profile(name, "", {}))
            where = f"{source.path}: [profiles.{name}]"
            knobs = by_name({key: value for key, value in table.items() if key != "about"}, where)
            _check_knobs(where, knobs)
            about = str(table.get("about", old.about))
            merged[name] = Profile(name, about, MappingProxyType({**old.knobs, **knobs}))
    return MappingProxyType(merged)


def default_profile(sources: Sequence[TomlSource]) -> str:
    """The last one named."""
    return [str(source.data["default_profile"]) for source in sources if "default_profile" in source.data][-1]


def _check_knobs(where: str, knobs: dict[str, Any]) -> None:
    if "profile" in knobs:
        raise UsageError(f"{where}: a profile cannot name a profile", "Copy its knobs.")
    Config.of(knobs, where)


def _invalid(where: str, error: ValidationError) -> UsageError:
    first = error.errors()[0]
    *parents, key = [str(part) for part in first["loc"]] or [""]
    if first["type"] == "extra_forbidden":
        table = _NESTED[parents[0]] if parents else ModelEntry
        return _unknown_key(".".join([where, *parents]), key, tuple(table.model_fields))
    name = ".".join([*parents, key]) or "name"
    return UsageError(
        f"{where}: {name} = {first['input']!r}: {first['msg'].lower()}", "Correct it in that file."
    )


def _unknown_key(where: str, key: str, known: tuple[str, ...]) -> UsageError:
    hint = did_you_mean(key, known, f"Keys: {', '.join(known)}")
    return UsageError(f"{where}: unknown key '{key}'", hint)
