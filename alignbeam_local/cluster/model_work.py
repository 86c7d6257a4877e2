"""Work with models: they are found, checked and opened on the worker's machine."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..cancellation import Cancellation
from ..config import Config
from ..engine.engine import Engine
from ..errors import AlignBeamError
from ..models.registry import Registry
from ..prompt.message import Message
from ..result import Result
from .builds import builds
from .crew import Json
from .wanted import Stock, WantedModel
from .work import Failed, Piece


@dataclass(frozen=True)
class ModelWork(ABC):
    """What is sent to a worker that answers.

    Attributes:
        models: what it must have.
        names: what models are called where the run began.
        may_pull: models that are missing are fetched, before they are asked for.
    """

    models: tuple[WantedModel, ...]
    names: Registry
    may_pull: bool

    @cached_property
    def stock(self) -> Stock:
        return Stock(self.models, self.names, may_pull=self.may_pull)

    def missing(self) -> Sequence[str]:
        return self.stock.missing()

    def receive(self, piece: Piece) -> None:
        self.stock.receive(piece)

    def about(self) -> Json:
        return {**builds(), "models": {model.spec: model.sha256 for model in self.models}}

    @abstractmethod
    def make(self, payload: Any) -> Any: ...


@dataclass(frozen=True)
class AnswerWork(ModelWork):
    """Answers conversations, one at a time, each as if it were the first: payloads are pairs of both.

    Attributes:
        config: what the engine loads by.
    """

    config: Config

    @cached_property
    def _engine(self) -> Engine:
        return Engine(self.config, self.stock.registry, cancellation=Cancellation())

    def make(self, payload: tuple[Sequence[Message], Config]) -> Result | Failed:
        """An answer, or why this conversation has none. Raises: as `Engine.load`."""
        messages, config = payload
        for _ in self._engine.load(config):
            pass
        self._engine.forget()
        try:
            return self._engine.answer(messages, config)
        except AlignBeamError as error:
            return Failed.of(error)
