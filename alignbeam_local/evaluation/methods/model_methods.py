"""Methods that decode single models by themselves: several prompts at once, each in a slot."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from ...config import Config
from ...engine.open_models import Model
from ...engine.scheduler import SlotScheduler, SlotWork
from ...errors import AlignBeamError
from ...events import Done, Event
from ...lm.slots import SharedContext
from ...result import Result
from .method import Answerer, Asked, Method
from .model_pool import ModelPool
from .prompt import Prompt

#: Models by role, in the order of `Method.models`.
Models = Mapping[str, Model]


class ModelMethod(Method):
    """Answers with the models that it names, one sequence of each for every prompt."""

    def open(self, config: Config, pool: ModelPool) -> Answerer:
        return in_slots(self.answer, pool.models(config, self.models(config)), config.parallel)

    @abstractmethod
    def answer(self, models: Models, prompt: Prompt, config: Config) -> Result:
        """An answer to one prompt; the models hold nothing yet. Raises: AlignBeamError."""


def in_slots(answer: Callable[[Models, Prompt, Config], Result], models: Models, num_slots: int) -> Answerer:
    """Answers so many prompts at once: what all wait for of one model is decoded in one batch."""
    contexts = {role: SharedContext(model.lm, num_slots) for role, model in models.items()}
    slots = [
        {role: replace(model, lm=contexts[role].slots[slot]) for role, model in models.items()}
        for slot in range(num_slots)
    ]
    scheduler = SlotScheduler(list(reversed(contexts.values())), num_slots)

    def work(asked: Asked) -> SlotWork:
        def run(slot: int) -> Iterator[Event]:
            yield Done(answer(slots[slot], *asked))

        return run

    def answers(asked: Sequence[Asked]) -> Sequence[Result | AlignBeamError]:
        for model in (model for slot in slots for model in slot.values()):
            model.lm.truncate(0, 0)
        return scheduler.run_all([work(each) for each in asked])

    return answers
