"""Where this program keeps its files, and how it writes them."""

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from filelock import FileLock
from platformdirs import user_cache_path, user_config_path, user_data_path

from .errors import AlignBeamError, UsageError

APP = "alignbeam"


def config_dir() -> Path:
    """The user's configuration: ALIGNBEAM_CONFIG_DIR, else the platform's place."""
    return _overridden("ALIGNBEAM_CONFIG_DIR") or _platform(user_config_path)


def config_file() -> Path:
    """The user's knobs."""
    return config_dir() / "config.toml"


def data_dir() -> Path:
    """What should outlive an update: ALIGNBEAM_DATA_DIR, else the platform's place."""
    return _overridden("ALIGNBEAM_DATA_DIR") or _platform(user_data_path)


def cache_dir() -> Path:
    """What can be deleted at any time: ALIGNBEAM_CACHE_DIR, else the platform's place."""
    return _overridden("ALIGNBEAM_CACHE_DIR") or _platform(user_cache_path)


def models_dir() -> Path:
    """The pulled model files: ALIGNBEAM_MODELS_DIR, else `models` in the data directory."""
    return _overridden("ALIGNBEAM_MODELS_DIR") or data_dir() / "models"


def _path_of_url(text: str) -> str:
    try:
        return unquote(urlsplit(text).path)
    except ValueError as error:
        raise UsageError(f"{text} is no file's address: {error}", "Give the file's path.") from None


def user_path(text: str) -> Path:
    """The file that a user means: `~` and `~name` at its start are home directories, `./~x` is a file here.

    Raises:
        UsageError: an address; no such user, or a home directory that is not known.
    """
    if text.startswith("file://"):
        text = _path_of_url(text)
    if "://" in text:
        raise UsageError(
            f"{text} is an address, not a file",
            "Download it first; a model of the hub: alignbeam models pull hf:owner/repo/file.gguf.",
        )
    path = os.path.expanduser(text)  # Path would first make `~x` of `./~x`
    if text.startswith("~") and path == text:
        raise UsageError(
            f"{text}: there is no home directory {text.partition(os.sep)[0]}",
            f"./{text} names a file of this folder.",
        )
    return Path(path)


def no_home() -> AlignBeamError:
    """The error where files belong into the home directory, and nobody knows where that is."""
    return AlignBeamError(
        "your home directory is not known, so there is no place for this program's files",
        "Set HOME; or set ALIGNBEAM_CONFIG_DIR, ALIGNBEAM_DATA_DIR and ALIGNBEAM_CACHE_DIR.",
    )


def ensure_dir(path: Path) -> Path:
    """`path`, created with its parents if it is not there, readable by the user alone."""
    if not path.is_dir():
        ensure_dir(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_atomic(path: Path, text: str) -> None:
    """Write a small text file, whole or not at all; readers see the old or the new one."""
    with open_atomic(path) as file:
        file.write(text.encode())


def write_named(path: Path, text: str) -> None:
    """Write a file that the user named, whole or not at all.

    A link stays a link, and a device or a pipe takes the text.

    Raises:
        OSError: it can't be written.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    try:
        target = path.resolve()
    except RuntimeError:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None
    write_atomic(target, text)


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """A file to write, readable by the user alone; it takes its name at the end, if there was no error."""
    with replacing(path) as temporary, open(temporary, "xb", opener=_private) as file:
        yield file


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Another name to write under, with the mode that the umask gives; it becomes `path` without an error."""
    ensure_dir(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path, timeout: float = -1) -> Iterator[None]:
    """While inside, no other process that asks for it has it: for files that are read and then written.

    Raises:
        TimeoutError: another one had it for so many seconds; a negative `timeout` waits for ever.
    """
    ensure_dir(path.parent)
    with FileLock(path.with_name(f".{path.name}.lock"), timeout, mode=0o600):
        yield


def _overridden(variable: str) -> Path | None:
    value = os.environ.get(variable)
    try:
        return user_path(value) if value else None
    except UsageError as error:
        raise UsageError(f"environment {variable}: {error.message}", error.hint) from None


def _platform(place: Callable[..., Path]) -> Path:
    """Raises: AlignBeamError: the place is in the home directory, and nobody knows where that is."""
    try:
        path = place(APP, appauthor=False)
    except RuntimeError:
        path = Path()
    if not path.is_absolute():
        raise no_home()
    return path
