"""Methods that decode single models by themselves: several prompts at once, each in a lane."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from greenlet import greenlet

from ...config import Config
from ...engine.open_models import Model
from ...errors import AlignBeamError
from ...events import Result
from ...lm.slots import SharedContext
from .method import Answerer, Asked, Method
from .model_pool import ModelPool

#: Models by role, in the order of `Method.models`.
Models = Mapping[str, Model]


class ModelMethod(Method):
    """Answers with the models that it names, one sequence of each for every prompt."""

    def open(self, config: Config, pool: ModelPool) -> Answerer:
        return in_lanes(self.answer, pool.models(config, self.models(config)), config.parallel)

    @abstractmethod
    def answer(self, models: Models, prompt: str, config: Config) -> Result:
        """An answer to one prompt; the models hold nothing yet. Raises: AlignBeamError."""


def in_lanes(answer: Callable[[Models, str, Config], Result], models: Models, num_lanes: int) -> Answerer:
    """Answers so many prompts at once: what all wait for of one model is decoded in one batch."""
    contexts = {role: SharedContext(model.lm, num_lanes) for role, model in models.items()}
    lanes = [
        {role: replace(model, lm=contexts[role].lanes[lane]) for role, model in models.items()}
        for lane in range(num_lanes)
    ]

    def answers(asked: Sequence[Asked]) -> Sequence[Result | AlignBeamError]:
        found: dict[int, Result | AlignBeamError] = {}
        for model in (model for lane in lanes for model in lane.values()):
            model.lm.truncate(0, 0)

        def run(key: int) -> None:
            try:
                found[key] = answer(lanes[key], *asked[key])
            except AlignBeamError as error:
                found[key] = error

        for key in range(len(asked)):
            greenlet(run).switch(key)
        while waited := next((context for context in reversed(contexts.values()) if context.is_wanted), None):
            waited.decode()
        return [found[key] for key in range(len(asked))]

    return answers
