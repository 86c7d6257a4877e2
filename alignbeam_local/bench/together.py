"""Several prompts at once against one by one, and against the draft alone both ways."""

from collections.abc import Callable
from time import perf_counter

from ..config import Config
from ..engine.engine import Engine
from ..engine.prompters import draft_prompter
from ..errors import AlignBeamError
from ..llama.plain import PlainDraft
from ..lm.language_model import SamplerSettings
from ..prompt.message import Message
from ..result import Result
from .cases import Case
from .runs import require_whole

Task = Callable[[], float]  # seconds for all prompts


class Together:
    """The tasks that are compared: pairs of one by one and at once."""

    def __init__(
        self, engine: Engine, plain: PlainDraft, config: Config, ask: Callable[[], list[list[Message]]]
    ) -> None:
        """`config` is what the engine is open for; `ask` makes conversations, no two alike, one a slot."""
        self._engine = engine
        self._plain = plain
        self._config = config
        self._ask = ask

    def alone(self) -> tuple[Task, Task]:
        """The draft by itself on plain llama.cpp."""
        settings = SamplerSettings.of(self._config, self._config.max_tokens)
        plain, length = self._plain, self._config.max_tokens
        return (
            lambda: _seconds(lambda: [plain.complete(ids, settings, length) for ids in self._prompts()]),
            lambda: _seconds(lambda: plain.complete_together(self._prompts(), settings, length)),
        )

    def answered(self, case: Case) -> tuple[Task, Task]:
        """The method."""
        config = case.config.with_values({"parallel": self._config.parallel})

        def one_by_one() -> None:
            for messages in self._ask():
                self._engine.forget()
                _check(self._engine.answer(messages, config), config)

        def at_once() -> None:
            self._engine.forget()
            asked = [(messages, config) for messages in self._ask()]
            for found in self._engine.parallel().answers(asked):
                _check(found, config)

        return lambda: _seconds(one_by_one), lambda: _seconds(at_once)

    def _prompts(self) -> list[list[int]]:
        draft = draft_prompter(self._engine.models, self._config)
        return [draft.encode(messages) for messages in self._ask()]


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def _check(found: Result | AlignBeamError, config: Config) -> None:
    if isinstance(found, AlignBeamError):
        raise found
    require_whole(found, config)
