"""The seam of methods: each is opened on a pool and then answers prompts, one at a time."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from ..config import Config
from ..events import Result
from .model_pool import ModelPool

#: From a prompt and the knobs of this sample, its seed among them, to a result.
Answerer = Callable[[str, Config], Result]


class Method(BaseModel, ABC):
    """A way of answering. Its fields are its own parameters; the rest are the knobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    #: The knobs that name the models it loads, apart from those that its parameters name.
    roles: ClassVar[tuple[str, ...]] = ("draft", "anchor")

    def config(self, base: Config) -> Config:
        """The knobs as this method runs with them."""
        return base

    def models(self, config: Config) -> dict[str, str | None]:
        """By role the models that it loads with these knobs; None where none is named."""
        return {role: getattr(config, role) for role in self.roles}

    @abstractmethod
    def open(self, config: Config, pool: ModelPool) -> Answerer:
        """Load what is needed; what an answerer returns depends on prompt and knobs alone.

        Raises:
            UsageError, ModelError: a model that is not named, not there, or does not fit.
        """
