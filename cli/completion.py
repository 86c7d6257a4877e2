"""What the shell completes besides commands and flags."""

import re
from collections.abc import Callable

from alignbeam_local.conversation.log import ConversationLog
from alignbeam_local.conversation.log_file import default_path
from alignbeam_local.errors import AlignBeamError
from alignbeam_local.models.registry import Registry

from .named_texts import KEPT_ROLES, KEPT_TEMPLATES

Completions = list[tuple[str, str]]

# zsh evaluates what it is offered: a word that needs quoting, or a backslash before a quote, could run.
_SAFE = re.compile(r"[\w.-]+")


def model_names(incomplete: str) -> Completions:
    """Named models, with a word about each; a path is the shell's to complete."""
    return _begun(incomplete, lambda: {file.name: file.entry.about for file in Registry.load().files()})


def profile_names(incomplete: str) -> Completions:
    """Profiles, with a word about each."""
    return _begun(incomplete, lambda: {name: p.about for name, p in Registry.load().profiles.items()})


def role_names(incomplete: str) -> Completions:
    """Roles that are kept."""
    return _begun(incomplete, lambda: dict.fromkeys(KEPT_ROLES.names(), ""))


def template_names(incomplete: str) -> Completions:
    """Templates that are kept; any other text is the user's to write."""
    return _begun(incomplete, lambda: dict.fromkeys(KEPT_TEMPLATES.names(), ""))


def conversation_names(incomplete: str) -> Completions:
    """Kept conversations, by name or by id."""
    return _begun(incomplete, _conversations)


def _conversations() -> dict[str, str]:
    """A file that is not there is not made."""
    if not default_path().exists():
        return {}
    with ConversationLog() as log:
        kept = log.conversations()
    return {one.name if one.name and _SAFE.fullmatch(one.name) else one.id: "" for one in kept}


def _begun(incomplete: str, words: Callable[[], dict[str, str]]) -> Completions:
    """Those that begin so; an error here would be printed between what the user types."""
    try:
        known = words()
    except AlignBeamError:
        return []
    return [
        (word, about.replace("\\", ""))
        for word, about in known.items()
        if word.startswith(incomplete) and _SAFE.fullmatch(word)
    ]
