"""A worker of a run: holds the models of one method at a time, and answers groups of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ...cancellation import Cancellation
from ...cluster.model_work import ModelWork
from ...config import Config
from ...engine.engine import Engine
from ...models.registry import Registry
from ..methods.method import Answerer
from ..methods.model_pool import ModelPool
from ..methods.specs import MethodSpec
from ..runs.run_directory import Json
from ..runs.runner import methods_about, outcomes
from ..runs.talks import Turns
from ..suites.suites import Item

#: The place of a method in the plan, whose earlier answers are read, and the prompts and seeds of a group.
GroupPayload = tuple[int, Turns, Sequence[tuple[Item, int]]]


@dataclass(frozen=True)
class GroupWork(ModelWork):
    """Makes what `runner.run` makes of a group; payloads are as `GroupPayload`.

    Attributes:
        entries: the methods of the plan, in its order.
    """

    entries: tuple[MethodSpec, ...]

    @cached_property
    def _pool(self) -> ModelPool:
        return ModelPool(self.stock.registry, Cancellation(), _engine)

    @cached_property
    def _opened(self) -> dict[int, Answerer]:
        """The method that is open, by its place."""
        return {}

    def about(self) -> Json:
        """With what a manifest says of the methods, as it is on this machine."""
        return {**super().about(), "methods": methods_about(self.entries, self.stock.registry)}

    def make(self, payload: GroupPayload) -> list[Json]:
        place, turns, asked = payload
        entry = self.entries[place]
        if place not in self._opened:
            self._opened.clear()
            self._opened[place] = entry.method.open(entry.config, self._pool)
        return outcomes(self._opened[place], entry.config, asked, turns)


def _engine(config: Config, registry: Registry, cancellation: Cancellation) -> Engine:
    return Engine(config, registry, cancellation=cancellation)
