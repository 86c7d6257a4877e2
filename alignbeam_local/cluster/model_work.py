"""Work with models: they are found, checked and opened on the worker's machine."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..cancellation import Cancellation
from ..config import Config
from ..engine.about_model import about_model, adapters_of
from ..engine.engine import Engine
from ..errors import AlignBeamError
from ..models.hashes import file_sha256
from ..models.registry import Registry
from ..prompt.message import Message
from ..result import Result
from ..search.safety_tokens import token_path
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
        return builds()

    @abstractmethod
    def make(self, payload: Any) -> Any: ...


def roles_about(config: Config, registry: Registry) -> Json:
    """By role the model's hash and what is on record of it, the draft's with its safety tokens.

    Raises:
        UsageError, ModelError: a model or the file of these tokens is not here.
    """
    files = {role: registry.require(config.model_named(role)) for role in config.roles}
    about = {
        role: about_model(file, role, adapters_of(role, config, registry)) for role, file in files.items()
    }
    if config.goes_by_tokens:
        about["draft"]["safety_tokens"] = file_sha256(token_path(config))
    return about


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

    def about(self) -> Json:
        """With what is known of each role's model on this machine, where they are open then.

        One that can't hold them is left out: its errors would be the answers of whatever it takes.
        """
        for _ in self._engine.load():
            pass
        return {**super().about(), "roles": roles_about(self.config, self.stock.registry)}

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
