"""A model alone, to read requests or answers with; or two of them, to hold one against the other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ..cancellation import Cancellation
from ..config import Config
from ..errors import ModelError
from ..heads.features import RequestReader
from ..heads.head import REQUEST_HEADS, RequestHead
from ..heads.reading import reading_of_states
from ..machine.context_size import ContextSize, reader_context_size
from ..models.registry import Registry
from ..prompt.message import Message
from ..result import ModelCard, Steering
from ..roles import ModelRole
from ..search.steering import steering_of
from .loader import Loader, require_silent_chat
from .open_models import Model


class OpenHead(NamedTuple):
    """A head, and its model opened to read at the head's layer."""

    head: RequestHead
    reader: RequestReader

    def steering(self, config: Config, turns: Sequence[Message]) -> Steering | None:
        """What the head makes of a conversation's request, without a system prompt of ours.

        None: a state is no number.

        Raises:
            ContextFull, Cancelled, ModelError: as `RequestReader.read`.
        """
        found = reading_of_states(self.head, self.reader.read(turns))
        limits = self.head.thresholds
        return steering_of(config, found.worst, found.whole, limits.low, limits.high) if found else None


@contextmanager
def open_head(config: Config, registry: Registry) -> Iterator[OpenHead]:
    """The head of a configuration's anchor, closed at the end.

    Raises:
        UsageError, ModelError: as `open_reader`, or there is no head for this file and template.
    """
    with open_reader(config, registry) as (reader, card):
        head = REQUEST_HEADS.find(card.sha256, reader.key)
        if head is None:
            raise ModelError(
                f"there is no head for {card.name} with this template",
                f"alignbeam heads fit {config.model_named('anchor')}",
            )
        reader.read_at(head.layers)
        yield OpenHead(head, reader)


@contextmanager
def open_reader(
    config: Config, registry: Registry, role: ModelRole = "anchor"
) -> Iterator[tuple[RequestReader, ModelCard]]:
    """The model that a configuration names for a role, as a reader, closed at the end.

    Raises:
        UsageError, ModelError: it is not named, not there, damaged, or can't play this role.
    """
    loader = Loader(config, registry, Cancellation())
    size = reader_context_size(config)
    try:
        file = loader.find(role)
        loader.place({role: (file.path, size)})
        list(loader.prepare(file.path))
        model = loader.open(role, file, size, reads=True)
        if role != "draft":
            require_silent_chat(role, model.card.name, model.format)
        yield RequestReader(model.lm, model.format), model.card
    finally:
        loader.close()


@contextmanager
def open_two(
    config: Config, registry: Registry, num_sequences: int, cancellation: Cancellation
) -> Iterator[tuple[Model, Model]]:
    """The anchor that a configuration names, and its draft with its adapters, closed at the end.

    A file in both roles is loaded once.

    Raises:
        UsageError, ModelError: one is not named, not there or damaged, or an adapter does not fit.
    """
    loader = Loader(config, registry, cancellation)
    size = ContextSize(1, config.context, config.context).times(num_sequences)
    try:
        files = {role: loader.find(role) for role in ("anchor", "draft")}
        loader.place({role: (file.path, size) for role, file in files.items()})
        list(loader.prepare(*(file.path for file in files.values())))
        anchor, draft = (loader.open(role, file, size) for role, file in files.items())
        yield anchor, draft
    finally:
        loader.close()
