"""The seam of methods: each is opened on a pool, then answers as many prompts at once as `parallel` says."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from ...config import Config
from ...errors import AlignBeamError
from ...result import Result
from .model_pool import ModelPool
from .prompt import Prompt

#: A prompt and the knobs of this sample, its seed among them.
Asked = tuple[Prompt, Config]
#: From at most `parallel` prompts to their results; an error takes the place of its answer.
Answerer = Callable[[Sequence[Asked]], Sequence[Result | AlignBeamError]]


class Method(BaseModel, ABC):
    """A way of answering. Its fields are its own parameters; the rest are the knobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    #: The knobs that name the models it loads, apart from those that its parameters name.
    roles: ClassVar[tuple[str, ...]] = ("draft", "anchor")
    #: Whether the knobs of the draft's safety tokens and the anchors' rows hold for it.
    steers_rows: ClassVar[bool] = False
    #: The knobs about mixing, beams and their choice that its own code reads, if it is no pair's answer.
    reads: ClassVar[tuple[str, ...]] = ()

    def config(self, base: Config) -> Config:
        """The knobs as this method runs with them."""
        return base

    def settled(self, base: Config) -> Config:
        """The same, without what does nothing here: it is not recorded, and an error where it is named."""
        config = self.config(base)
        return config if self.steers_rows else config.without_safety_tokens

    def needs_tokens(self, config: Config) -> bool:
        """Whether the file of safety tokens is part of what it answers, with knobs that are settled."""
        is_gated = self.steers_rows and config.is_gated
        return "safety_file" in self.reads or is_gated or config.safety_tokens != "none"

    def models(self, config: Config) -> dict[str, str | None]:
        """By role the models that it loads with these knobs; None where none is named."""
        return {role: config.named(role) for role in self.roles}

    @abstractmethod
    def open(self, config: Config, pool: ModelPool) -> Answerer:
        """Load what is needed; what is returned depends on the prompts, their order and knobs alone.

        Raises:
            UsageError, ModelError: a model that is not named, not there, or does not fit.
        """
