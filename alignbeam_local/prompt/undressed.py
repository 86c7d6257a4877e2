"""What a request says that is written otherwise, where a small model does not see what is asked.

Codes of bytes (Base64, hexadecimal and binary digits), ciphers of letters (Caesar's, ROT13 among them, and
reversed), words spelt in digits, set apart or in letters of another width, and quoted pieces to be put
together. Whatever else there is stays hidden.
"""

import re
import unicodedata
from base64 import b64decode
from collections.abc import Callable, Iterator
from string import ascii_lowercase, ascii_uppercase

#: How many tokens a model needs for a text.
NumTokens = Callable[[str], int]

_BREAK = r"[ \t]*\r?\n[ \t]*"
_BASE64 = re.compile(rf"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]++(?:{_BREAK}[A-Za-z0-9+/_-]++)*+")
_HEX_BYTE = r"(?:\\[xX]|0[xX]|\\u00|&#x|[%x])?([0-9A-Fa-f]{2})[\s:,;|.-]*+"
_BINARY_BYTE = r"(?:0b)?([01]{8})[\s:,;|.-]*+"
#: Characters of the shortest Base64 that is decoded, and of the shortest text of pieces that is one.
_LEAST_CODED, _LEAST_JOINED = 20, 16
_LEAST_BYTES = 10
#: So many bytes of a text are characters to be read: the rest are what stood beside its code.
_MOSTLY = 0.8
_WORD = re.compile(r"[^\W\d_]{2,}")

#: One of several quoted pieces: an apostrophe within a word ends none.
_QUOTED = re.compile(
    r"(?<![\w\\])'((?:[^'\\\n]|\\.|(?<=\w)'(?=\w))*+)'(?!\w)"
    r'|(?<!\\)"((?:[^"\\\n]|\\.)*+)"'
    r"|[“„]([^“”„\n]*+)[”“]"
    r"|«([^«»\n]*+)»"
)

#: What is set apart, and is no piece of another text.
_SET_OFF = re.compile(r"`([^`\n]*+)`|‘([^‘’\n]*+)’|「([^「」\n]*+)」")
#: A piece of a text that may be in a cipher, while the rest says so.
_PIECE_END = re.compile(r"(?<=[.!?…:])\s+|(?<=[。！？；：])\s*|\n+")
#: Bytes of the shortest one that is looked at: tokens tell little of a shorter one.
_LEAST_PIECE = 16
#: Plain text takes no more tokens, so many characters each.
_CHARACTERS_A_TOKEN = 3.0
#: What is plainer takes at most this share of the tokens: with as many characters, and with other ones.
_PLAINER, _PLAINER_RESPELT = 0.9, 0.6
_DIGITS = str.maketrans("013457", "oieast")
_SET_APART = re.compile(r"(?<=\w)[\W_]{1,3}(?=\w)")
#: Characters that are no letters, again and again: they take few tokens, and say nothing.
_REPEATED = re.compile(r"([\W_])\1{3,}")


def undressed(text: str, num_tokens: NumTokens) -> Iterator[str]:
    """What stands in a text, or is the text, in plain words; nothing of most.

    `num_tokens` is the model's that is to read it: what is plainer takes it fewer.
    """
    yield from uncoded(text, num_tokens)
    quoted = _quoted(text)
    if len(quoted) > 1 and len("".join(quoted)) >= _LEAST_JOINED:
        yield "".join(quoted)


def uncoded(text: str, num_tokens: NumTokens) -> Iterator[str]:
    """The same but for quoted pieces: what is in a code, a cipher or another spelling."""
    for found in _decoded(text):
        yield found
        yield from deciphered(found, num_tokens)
    yield from deciphered(text, num_tokens)


def deciphered(text: str, num_tokens: NumTokens) -> Iterator[str]:
    """Its pieces, quoted ones among them, that are plainer in another spelling; see `undressed`."""
    pieces = (*_PIECE_END.split(text), *_quoted(text), *_quoted(text, _SET_OFF))
    for piece in dict.fromkeys(pieces):
        yield from _plainer(_REPEATED.sub(r"\1", piece), num_tokens)


def _quoted(text: str, marks: re.Pattern[str] = _QUOTED) -> list[str]:
    return ["".join(groups) for groups in marks.findall(text)]


def _decoded(text: str) -> Iterator[str]:
    for run in _BASE64.findall(text):
        lines = run.split()
        for coded in dict.fromkeys(("".join(lines), *lines)):
            if len(coded) >= _LEAST_CODED:
                yield from _of_base64(coded)
    for byte, base in ((_HEX_BYTE, 16), (_BINARY_BYTE, 2)):
        for run in re.finditer(rf"(?:{byte}){{{_LEAST_BYTES},}}+", text):
            yield from _said(bytes(int(digits, base) for digits in re.findall(byte, run.group())))


def _of_base64(run: str) -> Iterator[str]:
    """A word may stand before the code, so that it begins at any of four places."""
    coded = run.translate(str.maketrans("-_", "+/"))
    for start in range(4):
        rest = coded[start:]
        whole = rest[:-1] if len(rest) % 4 == 1 else rest
        if found := next(_said(b64decode(whole + "=" * (-len(whole) % 4))), None):
            yield found
            return


def _said(data: bytes) -> Iterator[str]:
    """The text that bytes are, if most of them are one: of two words, or in a script without spaces."""
    data = data.strip(b"\0\xff ")
    decoded = data.decode(errors="ignore")
    text = "".join(c for c in decoded if c.isprintable() or c.isspace()).strip()
    foreign = sum(c.isalpha() and not c.isascii() for c in text)
    if len(text.encode()) >= _MOSTLY * len(data) and (len(_WORD.findall(text)) > 1 or foreign > 3):
        yield text


def _plainer(piece: str, num_tokens: NumTokens) -> Iterator[str]:
    """The plainest of what the piece may say, if that is plainer than itself."""
    if len(piece.encode(errors="replace")) < _LEAST_PIECE or not any(map(str.isalpha, piece)):
        return
    own = num_tokens(piece)
    if len(piece) > _CHARACTERS_A_TOKEN * own:
        return
    shares = [
        (num_tokens(other) / own / most, other)
        for most, others in ((_PLAINER, _ciphers(piece)), (_PLAINER_RESPELT, _respelt(piece)))
        for other in dict.fromkeys(others)
    ]
    share, plainest = min(shares)
    if share <= 1 and plainest.strip():
        yield plainest


def _ciphers(piece: str) -> Iterator[str]:
    yield piece[::-1]
    for shift in range(1, len(ascii_lowercase)):
        shifted = ascii_lowercase[shift:] + ascii_lowercase[:shift]
        yield piece.translate(str.maketrans(ascii_lowercase + ascii_uppercase, shifted + shifted.upper()))


def _respelt(piece: str) -> Iterator[str]:
    yield piece.translate(_DIGITS)
    yield _SET_APART.sub("", piece)
    yield "".join(c for c in unicodedata.normalize("NFKC", piece) if unicodedata.category(c) != "Cf")
