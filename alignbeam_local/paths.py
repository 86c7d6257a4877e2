"""Where this program keeps its files, and how it writes them."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock
from platformdirs import user_cache_path, user_config_path, user_data_path

APP = "alignbeam"


def config_dir() -> Path:
    """The user's configuration: ALIGNBEAM_CONFIG_DIR, else the platform's place."""
    return _overridden("ALIGNBEAM_CONFIG_DIR") or user_config_path(APP, appauthor=False)


def config_file() -> Path:
    """The user's knobs."""
    return config_dir() / "config.toml"


def data_dir() -> Path:
    """What should outlive an update: ALIGNBEAM_DATA_DIR, else the platform's place."""
    return _overridden("ALIGNBEAM_DATA_DIR") or user_data_path(APP, appauthor=False)


def cache_dir() -> Path:
    """What can be deleted at any time: ALIGNBEAM_CACHE_DIR, else the platform's place."""
    return _overridden("ALIGNBEAM_CACHE_DIR") or user_cache_path(APP, appauthor=False)


def models_dir() -> Path:
    """The pulled model files: ALIGNBEAM_MODELS_DIR, else `models` in the data directory."""
    return _overridden("ALIGNBEAM_MODELS_DIR") or data_dir() / "models"


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
    ensure_dir(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
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
    return Path(value).expanduser() if value else None
