"""The seam of methods: each is opened on a pool and then answers prompts, one at a time or some at once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from ..config import Config
from ..errors import AlignBeamError
from ..events import Result
from .model_pool import ModelPool

#: From a prompt and the knobs of this sample, its seed among them, to a result.
Answerer = Callable[[str, Config], Result]
#: The same for several prompts at once; an error takes the place of its answer.
GroupAnswerer = Callable[[Sequence[tuple[str, Config]]], Sequence[Result | AlignBeamError]]


class Method(BaseModel, ABC):
    """A way of answering. Its fields are its own parameters; the rest are the knobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    #: The knobs that name the models it loads, apart from those that its parameters name.
    roles: ClassVar[tuple[str, ...]] = ("draft", "anchor")

    def config(self, base: Config) -> Config:
        """The knobs as this method runs with them; those that answer prompts one by one share no batches."""
        return base.with_values({"parallel": 1})

    def models(self, config: Config) -> dict[str, str | None]:
        """By role the models that it loads with these knobs; None where none is named."""
        return {role: getattr(config, role) for role in self.roles}

    @abstractmethod
    def open(self, config: Config, pool: ModelPool) -> Answerer:
        """Load what is needed; what an answerer returns depends on prompt and knobs alone.

        Raises:
            UsageError, ModelError: a model that is not named, not there, or does not fit.
        """

    def num_together(self, config: Config) -> int:
        """How many prompts it answers at once."""
        return 1

    def open_group(self, config: Config, pool: ModelPool) -> GroupAnswerer:
        """The same for so many prompts; what is returned depends on these, their order and knobs alone."""
        answer = self.open(config, pool)

        def answers(asked: Sequence[tuple[str, Config]]) -> Sequence[Result | AlignBeamError]:
            return [_answered(answer, *one) for one in asked]

        return answers


def _answered(answer: Answerer, prompt: str, config: Config) -> Result | AlignBeamError:
    try:
        return answer(prompt, config)
    except AlignBeamError as error:
        return error
