"""A loader of models without weights, so that a real engine runs over them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.engine.engine import Engine
from alignbeam_local.engine.open_models import Model
from alignbeam_local.errors import ModelError
from alignbeam_local.events import Notice
from alignbeam_local.lm.starvation import Starvation
from alignbeam_local.lm.vocabulary import Vocabulary
from alignbeam_local.machine.context_size import ContextSize
from alignbeam_local.models.registry import ModelFile, Registry
from alignbeam_local.prompt.formats import prompt_format
from alignbeam_local.result import ModelCard
from tests.fake_lm import FakeLM, Row
from tests.templates import CHATML


@dataclass(frozen=True)
class FakeModel:
    """What a name stands for."""

    vocabulary: Vocabulary
    row: Row
    template: str = CHATML
    kv: Literal["seq", "state"] = "seq"
    trained_context: int = 1 << 20
    hidden: Row | None = None
    saves: bool = True


class FakeLoader:
    """`Loader` over named fake models; `opened` has every context by its model's name, in order."""

    def __init__(self, models: Mapping[str, FakeModel]) -> None:
        self.models = dict(models)
        self.opened: dict[str, list[FakeLM]] = {name: [] for name in models}
        self.has_memory = True
        self.starvation = Starvation()
        self.spare_needed: int | None = None  # without memory: bytes that suffice if they are let go

    def __call__(self, config: Config, _: Registry, cancellation: Cancellation) -> "FakeLoader":
        self._config, self._cancellation = config, cancellation
        return self

    def adopt(self, config: Config) -> None:
        self._config = config

    def keep_only(self, paths: Iterable[Path]) -> None:
        pass

    def find(self, role: str, spec: str | None = None) -> ModelFile:
        name = spec or self._config.model_named(role)
        if name not in self.models:
            raise ModelError(f"{name} is not here yet")
        return ModelFile(name, Path(name))

    def place(self, needs: Mapping[str, tuple[Path, ContextSize]], *, spare: int = 0) -> bool:
        if not self.has_memory and (self.spare_needed is None or spare < self.spare_needed):
            raise ModelError("not enough memory")
        return self.has_memory

    def prepare(self, *models: Path) -> Iterator[Notice]:
        yield Notice("this machine is slow")

    def open(self, role: str, file: ModelFile, size: ContextSize, *, reads: bool = False) -> Model:
        model = self.models[file.name]
        lm = FakeLM(
            model.vocabulary,
            model.row,
            num_sequences=size.num_sequences,
            num_cells=size.shared_cells if model.kv == "seq" else size.copied_cells,
            kv_strategy=model.kv,
            key=file.name,
            cancellation=self._cancellation,
            hidden=model.hidden,
            saves=model.saves,
            reads_layers=reads,
        )
        self.opened[file.name].append(lm)
        context = min(self._config.context, model.trained_context)
        card = ModelCard(file.name, file.name, "0" * 64, "Q4")
        return Model(lm, prompt_format(model.template, model.vocabulary), card, context, context)

    def close_contexts(self) -> None:
        for contexts in self.opened.values():
            for lm in contexts:
                lm.close()

    def close(self) -> None:
        self.close_contexts()

    def prefilled(self, name: str) -> int:
        """Tokens that went into a model's prompt, since the first context on it was opened."""
        return sum(batch.get(0, 0) for lm in self.opened[name] for batch in lm.batches)

    def decoded(self, name: str) -> int:
        return sum(lm.decoded_tokens for lm in self.opened[name])


def fake_engine(monkeypatch: pytest.MonkeyPatch, loader: FakeLoader, **knobs: Any) -> tuple[Engine, Config]:
    """A real engine over these models, called draft, anchor and judge unless knobs say otherwise."""
    monkeypatch.setattr("alignbeam_local.engine.engine.Loader", loader)
    roles = {"draft": "draft", "anchor": "anchor", "judge": "judge"}
    config = Config.of({**roles, "temperature": 0, "repeat_penalty": 1.0, "force": True, **knobs})
    return Engine(config, Registry({}, {}, "")), config
