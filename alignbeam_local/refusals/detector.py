"""Whether an answer declines, by what its beginning says and not by the mere words in it.

What is quoted, in code or in a letter is not the answer's own voice. An apology alone declines nothing; nor
does a "no" behind which the thing asked is given. The string match of the paper is `refusals.is_refusal`.
"""

import re
from collections.abc import Iterator

from ..search.refusals import WINDOW, folded
from .rules import LANGUAGES, Rules

_NOT_ITS_OWN = re.compile(
    r'"[^"\n]*(?:"|$)|“[^”\n]*(?:”|$)|„[^“”"\n]*(?:[“”"]|$)|«[^»\n]*(?:»|$)|「[^」\n]*(?:」|$)'
    r"|```.*|`[^`\n]*(?:`|$)|^\W*(?:dear|subject:) .*|\n\W*(?:dear|subject:) .*",
    re.DOTALL,
)


def declining_end(text: str) -> int | None:
    """Where, in characters, an answer's beginning has declined the request; None if it does not decline."""
    start = len(text) - len(text.lstrip())
    head = _own_voice(text[start : start + WINDOW])
    ends = [start + end for rules in LANGUAGES for end in _ends(head, rules)]
    return min(ends, default=None)


def declines(text: str) -> bool:
    """Whether the answer declines the request, by its beginning."""
    return declining_end(text) is not None


def _ends(head: str, rules: Rules) -> Iterator[int]:
    found = rules.declines.search(head)
    if found and not rules.serves.search(head[found.end() :]):
        yield found.end()


def _own_voice(head: str) -> str:
    """Folded, each character at its place; blank where the answer cites instead of speaking."""
    plain = "".join(low if len(low := folded(one)) == 1 else one for one in head)
    return _NOT_ITS_OWN.sub(lambda cited: " " * len(cited[0]), plain)
