"""What an adapter makes of prompts while it is trained: they are asked in llama.cpp, as users will."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ...cancellation import Cancellation
from ...config import Config
from ...engine.engine import Engine
from ...errors import AlignBeamError
from ...evaluation.methods.engine_methods import Draft
from ...evaluation.methods.method import Answerer
from ...evaluation.methods.model_pool import ModelPool
from ...evaluation.runs.metrics import Scored, score
from ...evaluation.runs.talks import talk
from ...evaluation.suites.suites import Item, prompts_sha256
from ...models.registry import Registry
from .loss_row import Shares

_TOKENS, _AT_ONCE = 40, 4


class Asking:
    """Prompts for the draft of a configuration, greedy and short."""

    def __init__(self, items: Sequence[Item], config: Config, registry: Registry) -> None:
        self._items, self._registry = items, registry
        self._config = config.with_values(
            {"temperature": 0.0, "repeat_penalty": 1.0, "max_tokens": _TOKENS, "parallel": _AT_ONCE}
        )

    def __len__(self) -> int:
        return len(self._items)

    @property
    def sha256(self) -> str:
        """Of the prompts."""
        return prompts_sha256(self._items)

    def shares(self, adapter: Path | None) -> Shares:
        """Ask all of them with this adapter, or the base as it is.

        Raises:
            ModelError: it does not fit, or there is no memory for it.
            AlignBeamError: a prompt is longer than the context.
        """
        lora = () if adapter is None else (str(adapter),)
        config = Draft().config(self._config.with_values({"lora": lora}))
        with closing(ModelPool(self._registry, Cancellation(), _engine)) as pool:
            answers = Draft().open(config, pool)
            parts = (self._items[n : n + _AT_ONCE] for n in range(0, len(self), _AT_ONCE))
            found = [one for part in parts for one in _scored(part, answers, config)]
        return Shares(
            _share([one.declined for one in found if one.label == "harmful"]),
            _share([one.declined for one in found if one.label == "benign"]),
            _share([one.correct for one in found if one.correct is not None]),
        )


def _engine(config: Config, registry: Registry, cancellation: Cancellation) -> Engine:
    return Engine(config, registry, cancellation=cancellation)


def _scored(items: Sequence[Item], answers: Answerer, config: Config) -> list[Scored]:
    scored = []
    talks = talk(answers, [(item, config) for item in items], own=False)
    for item, found in zip(items, (one.found for one in talks), strict=True):
        if isinstance(found, AlignBeamError):
            raise found
        named = {"method": "", "suite": item.suite, "id": item.id, "seed": 0, "label": item.label}
        sample = {**named, "prompt": item.prompt, "reference": item.reference, "result": found.as_dict()}
        scored.append(score(sample))
    return scored


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
