"""Opens the models that methods need, one set at a time."""

from collections.abc import Callable, Mapping

from ...cancellation import Cancellation
from ...config import Config
from ...engine.engine import Engine, changed_loading_knobs
from ...engine.loader import Loader, require_silent_chat
from ...engine.open_judge import judge_on
from ...engine.open_models import Model
from ...errors import ModelError
from ...judge.judge import Judge
from ...machine.context_size import ContextSize, context_sizes
from ...models.registry import Registry
from ...prompt.formats import REASONS_HINT
from ...result import ModelCard

EngineFactory = Callable[[Config, Registry, Cancellation], Engine]


class ModelPool:
    """What is open: an engine, which methods with the same models share, or single models."""

    def __init__(self, registry: Registry, cancellation: Cancellation, open_engine: EngineFactory) -> None:
        self._registry = registry
        self._cancellation = cancellation
        self._open_engine = open_engine
        self._engine: Engine | None = None
        self._loader: Loader | None = None

    def engine(self, config: Config) -> Engine:
        """The open engine if it has loaded by the same knobs, and for as much size, else a new one.

        What is open never shrinks, and on a GPU its layers stay: answers would depend on who answered before.
        """
        if self._engine is None or not _is_alike(self._engine.config, config):
            self.close()
            self._engine = self._open_engine(config, self._registry, self._cancellation)
        return self._engine

    def models(self, config: Config, specs: Mapping[str, str | None]) -> dict[str, Model]:
        """Single models by role, each with size for `parallel` conversations and their answers.

        Raises:
            UsageError, ModelError: one is not named, not there, damaged, reasons before it answers, or is an
                anchor without a chat template; they need too much memory.
        """
        self.close()
        loader = self._loader = Loader(config, self._registry, self._cancellation)
        cells = config.context + min(config.max_tokens, config.context)
        size = ContextSize(1, cells, cells).times(config.parallel)
        files = {role: loader.find(role, spec) for role, spec in specs.items()}
        loader.place({role: (file.path, size) for role, file in files.items()})
        list(loader.prepare(*(file.path for file in files.values())))
        models = {role: loader.open(role, file, size) for role, file in files.items()}
        for role, model in models.items():
            _require_at_once(role, model)
        return models

    def judge(self, config: Config) -> tuple[Judge, ModelCard]:
        """A judge, beside the models that are open. Raises: as `models`."""
        assert self._loader is not None, "models are opened first"
        self._loader.adopt(config)
        return judge_on(self._loader, config)

    def close(self) -> None:
        """Free everything; the pool can be used again."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if self._loader is not None:
            self._loader.close()
            self._loader = None


def _is_alike(opened: Config, wanted: Config) -> bool:
    return not any(changed_loading_knobs(opened, wanted)) and context_sizes(opened) == context_sizes(wanted)


def _require_at_once(role: str, model: Model) -> None:
    """Raises: ModelError: these methods choose an answer's first tokens, and this model would think first."""
    if role == "anchor":
        require_silent_chat(role, model.card.name, model.format)
    if model.format.thinking == "thinks":
        raise ModelError(
            f"{model.card.name} reasons before it answers: this method can't be measured on it",
            f"Take alignbeam, draft or best-of-k, which let it reason first. {REASONS_HINT}",
        )
