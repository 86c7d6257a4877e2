"""Completion of a model: known names, and paths of GGUF files."""

import os
from collections.abc import Iterator

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from alignbeam_local.models.registry import Registry


class ModelCompleter(Completer):
    """Completes a line that names a model."""

    def __init__(self, registry: Registry) -> None:
        self._names = sorted(registry.models)
        self._paths = PathCompleter(expanduser=True, file_filter=_may_lead_to_a_model)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        begun = document.text_before_cursor
        for name in self._names:
            if name.startswith(begun):
                yield Completion(name, -len(begun))
        yield from self._paths.get_completions(document, complete_event)


def _may_lead_to_a_model(path: str) -> bool:
    return os.path.isdir(path) or path.endswith(".gguf")
