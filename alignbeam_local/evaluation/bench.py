"""Opens the models that methods need, one set at a time."""

from collections.abc import Callable, Sequence

from ..cancellation import Cancellation
from ..config import Config
from ..engine import LOADING_KNOBS, Engine
from ..events import ModelCard
from ..judge import Judge
from ..judge_loading import make_judge
from ..loading import Loader
from ..parts import Model, Room, judge_room
from ..registry import Registry

EngineFactory = Callable[[Config, Registry, Cancellation], Engine]


class Bench:
    """What is open: an engine, which methods with the same models share, or single models."""

    def __init__(self, registry: Registry, cancellation: Cancellation, open_engine: EngineFactory) -> None:
        self._registry = registry
        self._cancellation = cancellation
        self._open_engine = open_engine
        self._engine: Engine | None = None
        self._loader: Loader | None = None

    def engine(self, config: Config) -> Engine:
        """The open engine if it has loaded by the same knobs, else a new one."""
        if self._engine is None or any(
            getattr(self._engine.config, knob) != getattr(config, knob) for knob in LOADING_KNOBS
        ):
            self.close()
            self._engine = self._open_engine(config, self._registry, self._cancellation)
        return self._engine

    def models(self, config: Config, specs: Sequence[str | None]) -> list[Model]:
        """Single models, each with room for one conversation and its answer.

        Raises:
            UsageError, ModelError: one is not named, not there, damaged, or they need too much memory.
        """
        self.close()
        loader = self._loader = Loader(config, self._registry, self._cancellation)
        cells = config.context + min(config.max_tokens, config.context)
        room = Room(1, cells, cells)
        files = []
        for spec in specs:
            loader.adopt(config.with_values({"draft": spec}))
            files.append(loader.find("draft"))
        loader.check_memory([(file.path, room) for file in files])
        list(loader.prepare(*(file.path for file in files)))
        return [loader.open(file, room) for file in files]

    def judge(self, config: Config) -> tuple[Judge, ModelCard]:
        """A judge, beside the models that are open. Raises: as `models`."""
        loader = self._loader
        assert loader is not None, "models are opened first"
        loader.adopt(config)
        file, room = loader.find("judge"), judge_room(config)
        loader.check_memory([(file.path, room)])
        list(loader.prepare(file.path))
        model = loader.open(file, room)
        return make_judge(model, file.entry.judge), model.card

    def close(self) -> None:
        """Free everything; the bench can be used again."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if self._loader is not None:
            self._loader.close()
            self._loader = None
