"""Which base an adapter's folder was trained on: what ours says beside PEFT's files, or the name PEFT has."""

import json
import re
from pathlib import Path
from typing import Any

from ...errors import ModelError
from ...models.registry import ModelFile, Registry
from ...reading import read_text
from .adapter_gguf import BaseModel
from .peft_folder import CONFIG

#: Beside PEFT's files, for its readers know no other key in theirs.
TRAINED_ON = "alignbeam.json"

_NAME = "base_model_name_or_path"
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
#: What a name has behind it where the same weights are kept in another way.
_KEPT_AS = re.compile(r"(-(gguf|hf|bf16|fp16|f16|f32|(unsloth-)?bnb-[48]bit|(ud-)?i?q\d\w*))+$")
_OTHER = "Give the file that it was trained on as --base, or train it again on this one."


def trained_on(base: BaseModel, name: str) -> bytes:
    """What stands in our folders beside PEFT's files."""
    found = {"base": {"name": name, "sha256": base.sha256, "architecture": base.architecture}}
    return json.dumps(found, indent=2).encode() + b"\n"


def require_trained_on(folder: Path, base: BaseModel, file: ModelFile, registry: Registry) -> str:
    """Hold what a folder says of its base against the base that it is exported for.

    Args:
        file: what the base is called, and where it is from.

    Returns:
        Why it is not known whether this is its base; empty if it is, by its hash or by its name.

    Raises:
        ModelError: it was trained on another base, or what it says of that is damaged.
    """
    if (folder / TRAINED_ON).exists():
        _require_same(folder, base, _ours(folder / TRAINED_ON))
        return ""
    name = json.loads(read_text(folder / CONFIG, "")).get(_NAME)
    if not isinstance(name, str) or not name.strip():
        return f"{folder} does not say which base it was trained on: it may be another than {base.path}"
    known = _names(base, file)
    if _plain(name) in map(_plain, [*known, file.name]):
        return ""
    if known and _is_comparable(name, registry):
        raise ModelError(
            f"the adapter {folder} was trained on {name[:128]!r}, and {base.path} is {' or '.join(known)}",
            f"{_OTHER} If both are one model all the same, write this one's name as {_NAME} in its {CONFIG}.",
        )
    return f"it is not known whether {folder} was trained on {base.path}: it says {name[:128]!r}"


def _require_same(folder: Path, base: BaseModel, theirs: dict[str, str]) -> None:
    own = (base.sha256, base.architecture)
    if own != (theirs["sha256"], theirs["architecture"]):
        raise ModelError(
            f"the adapter {folder} was trained on another base than {base.path}: on "
            f"{_told(theirs['name'], theirs['architecture'], theirs['sha256'])}, not on "
            f"{_told(base.path.name, base.architecture, base.sha256)}",
            _OTHER,
        )


def _told(name: str, architecture: str, sha256: str) -> str:
    return f"{name[:64]} ({architecture[:32]}, sha256 {sha256[:12]}…)"


def _ours(path: Path) -> dict[str, str]:
    hint = "It is damaged: copy the folder again."
    try:
        found: Any = json.loads(read_text(path, hint))["base"]
        ours = {key: found[key] for key in ("name", "sha256", "architecture")}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"{path} does not say what the adapter was trained on", hint) from None
    if not all(isinstance(value, str) and value for value in ours.values()):
        raise ModelError(f"{path} does not say what the adapter was trained on", hint)
    return ours


def _names(base: BaseModel, file: ModelFile) -> list[str]:
    """What the base calls itself, and the repository that it is from, as far as that is known."""
    hub = file.entry.hub.repo if file.entry.hub else ""
    return list(dict.fromkeys(name for name in (base.name, hub) if name))


def _plain(name: str) -> str:
    """A name without its owner, and without how the weights are kept: only its letters and digits."""
    last = re.sub(r"[\s_]+", "-", name.strip().rstrip("/").rpartition("/")[2].lower())
    return re.sub(r"[^a-z0-9.]", "", _KEPT_AS.sub("", last.removesuffix(".gguf")))


def _is_comparable(name: str, registry: Registry) -> bool:
    """Whether it is a name that others know it by too, not a folder of whoever trained it."""
    return name in registry.models or bool(_HUB.fullmatch(name))
