"""Model files from the Hugging Face Hub."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from ..errors import UsageError
from ..paths import ensure_dir, write_atomic
from .entry import Hub
from .hub_client import endpoint, hub_library
from .source import SLACK, PullProgress, SourceError, check_space, tell


@dataclass(frozen=True)
class HubSource:
    """A file of a Hugging Face repository; HF_ENDPOINT and HF_TOKEN are honoured."""

    hub: Hub
    name: str = "hub"

    @property
    def identity(self) -> str:
        return f"hub:{self.hub.repo}/{self.hub.file}"

    def fetch(self, folder: Path, expected_bytes: int | None, progress: PullProgress) -> Path:
        try:
            metadata = self.metadata()
        except UsageError as error:
            raise SourceError(error.message, error.hint) from error
        size = metadata.size if metadata.size is not None else expected_bytes
        partial_file = self._partial(folder, str(metadata.etag), size)
        done = partial_file.stat().st_size if partial_file.exists() else 0
        check_space(folder, (size or 0) - done + SLACK)
        with partial_file.open("ab") as file:
            told = partial(tell, progress, self.name, "1/1", size)
            self._download(_Counted(file, done, size, told), done, size)
        return partial_file

    def metadata(self) -> Any:
        """One HEAD request: the size, and the etag that tells whether a partial file can go on.

        Raises:
            SourceError, UsageError: the hub does not answer, or has no such file.
        """
        hub, url = hub_library(), self._url()
        try:
            return hub.get_hf_file_metadata(url, token=hub.get_token())
        except hub.errors.GatedRepoError as error:
            raise SourceError(
                f"{self.hub.repo} is gated: its owner wants its terms accepted",
                "Accept them on the repository's page, then set HF_TOKEN to a token of that account.",
            ) from error
        except hub.errors.RepositoryNotFoundError as error:
            raise SourceError(
                f"repository {self.hub.repo} does not exist, or is private", "A private one needs HF_TOKEN."
            ) from error
        except hub.errors.EntryNotFoundError as error:
            raise SourceError(f"{self.hub.repo} has no file {self.hub.file}") from error
        except Exception as error:  # whatever else goes wrong on the way, the next source is tried
            raise SourceError(f"the hub did not answer: {_first_line(error)}") from error

    def _partial(self, folder: Path, etag: str, size: int | None) -> Path:
        """The growing file, emptied if it is of another revision or longer than it can be."""
        file, note = ensure_dir(folder) / "hub.partial", folder / "hub.etag"
        same = note.exists() and note.read_text(encoding="utf-8", errors="replace") == etag
        if not same or (size is not None and file.exists() and file.stat().st_size > size):
            file.unlink(missing_ok=True)
            write_atomic(note, etag)
        return file

    def _download(self, file: "_Counted", done: int, size: int | None) -> None:
        import huggingface_hub as hub
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        token = hub.get_token()
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {})
        disable_progress_bars()
        try:
            http_get(
                self._url(),
                file,  # type: ignore[arg-type]  # a BinaryIO in all that http_get does with it
                resume_size=done,
                headers=headers,
                expected_size=size,
            )
        except Exception as error:
            raise SourceError(f"the connection to the hub broke: {_first_line(error)}") from error

    def _url(self) -> str:
        return str(hub_library().hf_hub_url(self.hub.repo, self.hub.file, endpoint=endpoint()))


class _Counted:
    """A file that tells how far it has come, and takes no more than it must hold."""

    def __init__(self, file: IO[bytes], done: int, most: int | None, told: Callable[[int], None]) -> None:
        self._file = file
        self._done = done
        self._most = most
        self._told = told

    def write(self, data: bytes) -> int:
        if self._most is not None and self._done + len(data) > self._most:
            raise OSError(f"it sends more than the {self._most} bytes of the file")
        self._done += self._file.write(data)
        self._told(self._done)
        return len(data)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int) -> int:
        self._done = self._file.seek(offset)
        return self._done

    def truncate(self) -> int:
        return self._file.truncate()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
