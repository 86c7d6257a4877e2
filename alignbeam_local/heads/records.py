"""Which records of heads a model's answers may depend on."""

from hashlib import sha256

from ..paths import data_dir
from ..roles import is_anchor
from . import answer_head, head

#: By the role that a model plays: the user's own records, and the shipped ones.
_FOLDERS = {"anchor": ("heads", head), "draft": ("heads/answers", answer_head)}


def heads_hash(role: str, weights_sha256: str) -> str | None:
    """A hash of all records that may be this model's in this role: what is found depends on nothing else.

    With adapters on it a model has records of its own (`adapted_sha256`). None if there are none.
    """
    kind = "anchor" if is_anchor(role) else role
    if kind not in _FOLDERS:
        return None
    own, module = _FOLDERS[kind]
    found = []
    for folder in (data_dir() / own, module.SHIPPED):
        contents = (path.read_bytes() for path in sorted(folder.glob("*.json")))
        found += [content for content in contents if weights_sha256.encode() in content]
    return sha256(b"\n".join(found)).hexdigest() if found else None
