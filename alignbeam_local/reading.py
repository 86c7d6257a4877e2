"""Text that comes in, from files and from stdin: UTF-8, or what a byte order mark says; never the mark."""

import codecs
from pathlib import Path

from .errors import UsageError, reason_of

#: The longest first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UTF8 = "utf-8"
_NO_TEXT = b"\xff"  # what stands, in UTF-8, for bytes that are none


def decoded(raw: bytes, what: str, encoding: str = _UTF8, hint: str = "Convert it.") -> str:
    """A part of a text, or one without a mark. Raises: UsageError: not in this encoding."""
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding[:6].rstrip("-").upper()
        raise UsageError(f"{what} is not {name}: {error.reason} at byte {error.start}", hint) from None


def whole_text(raw: bytes, what: str, hint: str = "Convert it.") -> str:
    """A text from its first byte on, in UTF-8 or in the encoding that its mark names.

    Raises:
        UsageError: it is not in that encoding.
    """
    mark, encoding = _marked(raw)
    return decoded(raw.removeprefix(mark), what, encoding, hint)


def read_text(path: Path, hint: str, *, waits: bool = True) -> str:
    r"""The same of a file; lines end in \n.

    `waits`: a pipe too, however long nobody writes to it.

    Raises:
        UsageError: it can't be read, or is not in its encoding; `hint` says what to give.
    """
    if not waits and path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path} is a pipe, a socket or a device", hint)
    try:
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}", hint) from None
    return whole_text(raw, str(path), hint).replace("\r\n", "\n").replace("\r", "\n")


class Utf8Stream:
    """Turns a stream of bytes into UTF-8 without a mark, as it comes.

    What is no text in its encoding comes out as bytes that are no UTF-8 either, for `decoded` to refuse.
    """

    def __init__(self) -> None:
        self._head = b""
        self._is_begun = False
        self._decoder: codecs.IncrementalDecoder | None = None  # none: it is UTF-8 already

    def push(self, chunk: bytes) -> bytes:
        """What these bytes add; nothing at first while they may become a mark. An empty chunk is the end."""
        if self._is_begun:
            return self._utf8(chunk)
        self._head += chunk
        if chunk and any(mark.startswith(self._head) for mark, _ in _MARKS):
            return b""
        mark, encoding = _marked(self._head)
        if encoding != _UTF8:
            self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._is_begun, begun = True, self._utf8(self._head.removeprefix(mark))
        return begun if chunk else begun + self._utf8(b"")

    def _utf8(self, chunk: bytes) -> bytes:
        if self._decoder is None:
            return chunk
        try:
            return self._decoder.decode(chunk, not chunk).encode(_UTF8, "surrogatepass")
        except UnicodeDecodeError:
            self._decoder.reset()
            return _NO_TEXT


def _marked(raw: bytes) -> tuple[bytes, str]:
    """The mark at the beginning, and the encoding; none is UTF-8."""
    return next(((mark, name) for mark, name in _MARKS if raw.startswith(mark)), (b"", _UTF8))
