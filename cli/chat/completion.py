"""Completion of what begins with a slash: commands, knobs and values, models, roles, conversations, paths."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from alignbeam_local.config import KNOBS, Config, canonical
from alignbeam_local.errors import AlignBeamError

from ..named_texts import KEPT_ROLES
from ..options import knob_choices
from .actions.knobs import ROLES
from .chat import Chat
from .commands import COMMANDS


class ChatCompleter(Completer):
    """Completes the line of a chat."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._paths = PathCompleter(expanduser=True)
        self._words: dict[str, Callable[[Sequence[str], str], Iterable[str]]] = {
            "/help": lambda _, __: [*(name.removeprefix("/") for name in COMMANDS), *KNOBS],
            "/set": self._settings,
            "/retry": self._assignments,
            "/model": self._models,
            "/lora": lambda _, __: ("none", *self._chat.registry.models),
            "/role": lambda before, _: () if before else _roles(),
            "/load": self._conversations,
            "/trace": lambda _, __: ("on", "off"),
            "/history": lambda _, __: ("all",),
            "/why": lambda _, __: ("all",),
        }

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        command, *words = text.split(" ")
        if not words:
            yield from _matching(COMMANDS, command)
        elif command in ("/export", "/file") or (command == "/system" and words[0].startswith("@")):
            path = " ".join(words).removeprefix("@")
            yield from self._paths.get_completions(Document(path), complete_event)
        elif command in self._words:
            yield from _matching(self._words[command](words[:-1], words[-1]), words[-1])

    def _settings(self, before: Sequence[str], _: str) -> Iterable[str]:
        return _values(before[0]) if before else KNOBS

    def _assignments(self, _: Sequence[str], word: str) -> Iterable[str]:
        knob, sign, _value = word.partition("=")
        if sign:
            return (f"{knob}={value}" for value in _values(knob))
        return (f"{knob}=" for knob in KNOBS)

    def _models(self, before: Sequence[str], _: str) -> Iterable[str]:
        registry = self._chat.registry
        if before:
            return registry.profiles if before[0] == "profile" else registry.models
        return (*ROLES, *registry.models)

    def _conversations(self, _: Sequence[str], __: str) -> Iterable[str]:
        """None where the log can't be read: an error here would be printed over what the user types."""
        log = self._chat.transcript.log
        try:
            return [one.name or one.id for one in log.conversations()] if log else ()
        except AlignBeamError:
            return ()


def _roles() -> Iterable[str]:
    """None where they can't be read, as with conversations."""
    try:
        return KEPT_ROLES.names()
    except AlignBeamError:
        return ()


def _values(knob: str) -> Iterable[str]:
    field = Config.model_fields.get(canonical(knob))
    return knob_choices(field) if field else ()


def _matching(words: Iterable[str], begun: str) -> Iterator[Completion]:
    return (Completion(word, -len(begun)) for word in words if word.startswith(begun))
