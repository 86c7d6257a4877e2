"""What the parts are called that models play in an answer: one draft, one judge, anchors.

An anchor's file may be opened more than once: its twin reads another prompt, its reader reads requests.
"""

from typing import Literal, get_args

ModelRole = Literal["draft", "anchor", "judge"]
ROLES: tuple[ModelRole, ...] = get_args(ModelRole)

#: The most anchors of one answer: each is a model in memory, and a decode a mixed token.
MOST_ANCHORS = 8
#: Behind an anchor's role: the same file once more.
_TWIN, _READER = "_twin", "_reader"


def anchor_role(number: int) -> str:
    """The role of an anchor, from 0: `anchor`, `anchor2`, `anchor3`."""
    return "anchor" if number == 0 else f"anchor{number + 1}"


def twin_role(role: str) -> str:
    """The role of an anchor's twin: the same file, behind another prompt."""
    return f"{role}{_TWIN}"


def reader_role(role: str) -> str:
    """The role of an anchor's reader: the same file, opened to read requests."""
    return f"{role}{_READER}"


def is_reader(role: str) -> bool:
    """Whether this role is an anchor's reader's."""
    return role.endswith(_READER)


def file_role(role: str) -> str:
    """The role whose file plays this one too: an anchor's for its twin and its reader, else itself."""
    return role.removesuffix(_TWIN).removesuffix(_READER)


def is_anchor(role: str) -> bool:
    """Whether this role is an anchor's, or one of those that its file plays too."""
    number = file_role(role).removeprefix("anchor")
    return role.startswith("anchor") and (not number or number.isdecimal())


def anchor_number(role: str) -> int:
    """Which anchor plays this role, from 0."""
    return int(file_role(role).removeprefix("anchor") or 1) - 1


def part_of(role: str) -> str:
    """The part whose flags hold for a role: an anchor's for every one, its twin and its reader."""
    return "anchor" if is_anchor(role) else role
