"""A model alone, to read requests with."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..cancellation import Cancellation
from ..config import Config
from ..heads.features import NUM_SEQUENCES, RequestReader
from ..lm.sequences import BATCH_TOKENS
from ..machine.context_size import ContextSize
from ..models.registry import Registry
from ..result import ModelCard
from .loader import Loader, require_silent_chat


@contextmanager
def open_reader(config: Config, registry: Registry) -> Iterator[tuple[RequestReader, ModelCard]]:
    """The anchor that a configuration names, as a reader of requests, closed at the end.

    Raises:
        UsageError, ModelError: it is not named, not there, damaged, or no anchor.
    """
    loader = Loader(config, registry, Cancellation())
    size = ContextSize(NUM_SEQUENCES, config.context + BATCH_TOKENS, NUM_SEQUENCES * config.context)
    try:
        file = loader.find("anchor")
        loader.place({"anchor": (file.path, size)})
        list(loader.prepare(file.path))
        model = loader.open("anchor", file, size)
        require_silent_chat("anchor", model.card.name, model.format)
        yield RequestReader(model.lm, model.format), model.card
    finally:
        loader.close()
