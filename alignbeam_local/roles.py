"""What the parts are called that models play in an answer: one draft, one judge, anchors and their twins."""

from typing import Literal, get_args

ModelRole = Literal["draft", "anchor", "judge"]
ROLES: tuple[ModelRole, ...] = get_args(ModelRole)

#: The most anchors of one answer: each is a model in memory, and a decode a mixed token.
MOST_ANCHORS = 8
#: Behind an anchor's role: the same file once more, behind another prompt.
_TWIN = "_twin"


def anchor_role(number: int) -> str:
    """The role of an anchor, from 0: `anchor`, `anchor2`, `anchor3`."""
    return "anchor" if number == 0 else f"anchor{number + 1}"


def twin_role(role: str) -> str:
    """The role of an anchor's twin: the same file, behind another prompt."""
    return f"{role}{_TWIN}"


def untwinned(role: str) -> str:
    """The role whose file plays this one too: an anchor's for its twin, else the role itself."""
    return role.removesuffix(_TWIN)


def is_twin(role: str) -> bool:
    """Whether this role is an anchor's twin's."""
    return role.endswith(_TWIN)


def is_anchor(role: str) -> bool:
    """Whether this role is an anchor's, or a twin's."""
    number = untwinned(role).removeprefix("anchor")
    return role.startswith("anchor") and (not number or number.isdecimal())


def anchor_number(role: str) -> int:
    """Which anchor plays this role, from 0."""
    return int(untwinned(role).removeprefix("anchor") or 1) - 1


def part_of(role: str) -> str:
    """The part whose flags hold for a role: an anchor's for every anchor and its twin."""
    return "anchor" if is_anchor(role) else role
