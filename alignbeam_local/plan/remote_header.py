"""The beginning of a GGUF file on the hub, read in parts: what it is, without its weights."""

from contextlib import closing
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from ..errors import ModelError
from ..models.entry import Hub
from ..models.gguf_reader import Contents, contents_of
from ..models.hub import HubSource
from ..models.hub_client import endpoint, hub_library, network_hint
from ..models.source import SourceError

_SECONDS = 30.0
_PARTIAL = 206


class _Place(NamedTuple):
    """Where a file's bytes are: its address, how many there are, and the token to show there."""

    url: str
    size: int
    token: str | None


class _Ranges:
    """A file's bytes from its first on, each read a request for just these."""

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._offset = 0

    def read(self, size: int) -> bytes:
        """Raises: OSError, HTTPException: the request failed."""
        end = min(self._offset + size, self._place.size)
        if end <= self._offset:
            return b""
        headers = {"Range": f"bytes={self._offset}-{end - 1}", "Accept-Encoding": "identity"}
        if self._place.token:
            headers["Authorization"] = f"Bearer {self._place.token}"
        with closing(urlopen(Request(self._place.url, headers=headers), timeout=_SECONDS)) as answer:
            if answer.status != _PARTIAL:
                raise OSError("it sends whole files only, and this reads a part")
            data: bytes = answer.read(end - self._offset)
        self._offset += len(data)
        return data


def remote_contents(hub: Hub) -> Contents:
    """The metadata of a file of the hub.

    Raises:
        ModelError: the hub does not answer, has no such file, or it is no GGUF file.
    """
    name = f"hf:{hub.repo}/{hub.file}"
    try:
        place = _place(hub)
        return contents_of(_Ranges(place), place.size, name)
    except SourceError as error:
        raise ModelError(f"{name}: {error.message}", error.hint or network_hint()) from None
    except (OSError, ValueError, HTTPException) as error:
        reason = f"HTTP {error.code}" if isinstance(error, HTTPError) else getattr(error, "reason", error)
        raise ModelError(f"{name} can't be read: {reason}", network_hint()) from None


def _place(hub: Hub) -> _Place:
    """The token is for the hub itself: where it sends to another host, the address is all that is needed."""
    metadata: Any = HubSource(hub).metadata()
    library = hub_library()
    url = str(metadata.location or library.hf_hub_url(hub.repo, hub.file, endpoint=endpoint()))
    is_hub = urlsplit(url).hostname == urlsplit(endpoint()).hostname
    return _Place(url, int(metadata.size or 0), library.get_token() if is_hub else None)
