"""Which conversations a chat has open: no other chat goes on with them meanwhile."""

from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout

from ..paths import ensure_dir


class Claims:
    """Locks of the operating system, each on an empty file: a process that was killed holds none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, FileLock] = {}

    def take(self, *keys: str) -> bool:
        """Hold these too; False, and nothing is changed, if another chat has one of them."""
        taken: dict[str, FileLock] = {}
        for key in keys:
            if key not in self._held:
                lock = FileLock(self._folder / f"{sha256(key.encode()).hexdigest()[:32]}.lock", mode=0o600)
                if not _is_acquired(lock):
                    _release(taken)
                    return False
                taken[key] = lock
        self._held |= taken
        return True

    def are_free(self, *keys: str) -> bool:
        """Whether no chat has any of these; none of them is held before or after."""
        is_taken = self.take(*keys)
        self._let_go(self._held.keys() & set(keys))
        return is_taken

    def keep_only(self, *keys: str) -> None:
        """Let go of all others."""
        self._let_go(self._held.keys() - set(keys))

    def close(self) -> None:
        self._let_go(set(self._held))

    def _let_go(self, keys: set[str]) -> None:
        _release({key: self._held.pop(key) for key in keys})


def claimed_by(conversation: str, name: str | None) -> tuple[str, ...]:
    """The keys of a conversation: its id, and its name, which the log may not know yet."""
    return (f"id {conversation}", *([f"name {name}"] if name else []))


def _is_acquired(lock: FileLock) -> bool:
    """False: another one has it. On a disk that knows no locks nobody ever does."""
    try:
        ensure_dir(Path(lock.lock_file).parent)
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except (OSError, NotImplementedError):
        return True
    return True


def _release(locks: dict[str, FileLock]) -> None:
    for lock in locks.values():
        if lock.is_locked:
            with suppress(OSError):
                Path(lock.lock_file).unlink()  # they would add up
            lock.release()
