"""A whole training: data and base read, states kept, steps, and the adapter in both formats."""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

from .. import __version__
from ..config import Config, knobs_of
from ..events import Notice
from ..llama.library import build
from ..machine.machine import peak_memory
from ..models.hashes import file_sha256
from ..models.registry import Registry
from ..paths import cache_dir
from .adapter import lora
from .adapter.adapter_gguf import write_adapter
from .adapter.matrices import num_parameters
from .adapter.peft_folder import PeftAdapter, peft_files
from .adapter.trained_on import TRAINED_ON, trained_on
from .base import Base, read_base
from .dequantised import Agreement, agreement, folder_sha256, load_model, require_agreement, require_folder
from .looks.asking import Asking
from .looks.loss_row import LossRow, Shares
from .looks.verdict import faults, require_runs
from .loop import Data, StepDone, Trainer, steps
from .need import TrainingNeed, require_room, training_need
from .prepared import PreparedFolder
from .request import TrainingRequest
from .run_files import RunFiles, told_if_full
from .samples import read_conversations
from .trunk import Trunk

ADAPTER = "adapter.gguf"
PEFT_FOLDER = "adapter"
#: The adapter of a checkpoint: while it is asked, and where it is kept.
_ASKED, _KEPT = ".asked.gguf", "step-{}.gguf"
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Stage:
    """What is being done now."""

    text: str


@dataclass(frozen=True)
class Prepared:
    """So many samples' states are kept, of so many."""

    done: int
    total: int


@dataclass(frozen=True)
class Finished:
    """The adapter is there; `was_done` says that it was before."""

    adapter: Path
    result: dict[str, Any]
    was_done: bool


Event = Stage | Notice | TrainingNeed | Agreement | Shares | Prepared | StepDone | Finished


def train(request: TrainingRequest, config: Config, registry: Registry) -> Iterator[Event]:
    """Train an adapter on the draft of a configuration; stopped anywhere, the same call goes on.

    Raises:
        UsageError, ModelError: data, base or settings that cannot be.
        AlignBeamError: no room on the disk, or a loss that is not a number.
    """
    if request.weights:
        require_folder(request.weights)
    config = _plain(config)
    rows = read_conversations(request.data)
    held_out = read_conversations(request.held_out) if request.held_out else []
    if both := len({row[1:] for row in rows} & {row[1:] for row in held_out}):
        yield Notice(f"held-out rows that are in --data too: {both}; their loss says less")
    yield Stage("reading the data with the base model")
    base = read_base(request, config, registry, rows, held_out)
    files = RunFiles(request.out)
    asking = Asking(request.asked, config, registry)
    manifest = _manifest(request, base, asking)
    with files.opened(manifest):
        if found := files.result():
            yield Finished(request.out / ADAPTER, found, was_done=True)
            return
        yield from _Run(request, base, files, asking).events(manifest)


class _Run:
    """What the stages of one training share."""

    def __init__(self, request: TrainingRequest, base: Base, files: RunFiles, asking: Asking) -> None:
        self._request, self._base, self._files, self._asking = request, base, files, asking
        self._weights = request.weights or base.model.path
        self._first = first = request.settings.first_layer(base.size.layers)
        key = base.card.sha256 if request.weights is None else folder_sha256(request.weights)
        start = base.start if request.settings.needs_post else None
        parent = cache_dir() / "training"
        self._data = Data(base.samples, PreparedFolder(parent, key, first, base.samples, start))
        self._held_out = Data(base.held_out, PreparedFolder(parent, key, first, base.held_out, start))

    def events(self, manifest: Mapping[str, Any]) -> Iterator[Event]:
        """All of it; the manifest is written once nothing speaks against these settings any more."""
        settings, began = self._request.settings, monotonic()
        need = self._need()
        yield need
        require_room(need, self._files.path, self._data.states.path)
        before = None
        if len(self._asking):
            yield Stage(f"asking the base {len(self._asking)} prompts")
            before = self._asking.shares(None)
            yield before
        yield Stage(f"loading {self._weights.name} into transformers")
        model = load_model(self._weights)
        found = agreement(model, self._base.probes)
        yield found
        require_agreement(found, settings.max_kl, self._weights)
        trunk = Trunk(model, settings.layers)
        yield from self._prepare(trunk)
        adapter = lora.attach(
            trunk.trained_layers,
            settings.targets,
            rank=settings.rank,
            alpha=settings.alpha,
            seed=settings.seed,
        )
        self._files.begin(manifest)
        trainer = Trainer(trunk, adapter, settings, self._base.tokens)
        held_out = self._held_out if self._held_out.samples else None
        held_out_before = trainer.task_loss(held_out) if held_out else None
        history = yield from steps(
            *(trainer, self._data, settings, self._files),
            held_out=held_out,
            look=lambda step: self._look(adapter, step),
        )
        yield Stage("trying the adapter in llama.cpp")
        self._export(adapter)
        result = self._result(history, found, held_out_before, monotonic() - began)
        if before:
            last = history[-1].shares._asdict()
            result["asked"] = {"prompts": len(self._asking), "base": before._asdict(), "last": last}
        self._files.finish(result, history, before)
        yield Finished(self._files.path / ADAPTER, result, was_done=False)

    def _need(self) -> TrainingNeed:
        settings, size = self._request.settings, self._base.size
        every = [*self._base.samples, *self._base.held_out]
        states = sum(data.states.size(size.width) for data in (self._data, self._held_out))
        trained = size.layers - self._first
        adapter = num_parameters(settings, self._base.model, size.layers)
        # It holds each number thrice, and is written anew beside the old one.
        checkpoint = 6 * _FLOAT_BYTES * adapter
        return training_need(
            size,
            trained,
            adapter=adapter,
            batch=settings.batch,
            longest=max(len(sample.ids) for sample in every),
            longest_answer=max(len(sample.answer) for sample in every),
            disk=states + checkpoint,
            file=self._base.model.path.stat().st_size,
        )

    def _prepare(self, trunk: Trunk) -> Iterator[Event]:
        total, before = len(self._base.samples) + len(self._base.held_out), 0
        for data in (self._data, self._held_out):
            for done in data.states.make(trunk):
                yield Prepared(before + done, total)
            before += len(data.samples)
        trunk.forget_below()

    def _look(self, adapter: lora.Adapter, step: int) -> Shares:
        """What the adapter as it is makes of the prompts, in llama.cpp; it is kept if that was asked for."""
        keep = self._request.keep_adapters
        if not (keep or len(self._asking)):
            return Shares()
        path = self._files.path / (_KEPT.format(step) if keep else _ASKED)
        try:
            self._write(path, self._own(adapter))
            return self._asking.shares(path) if len(self._asking) else Shares()
        finally:
            if not keep:
                path.unlink(missing_ok=True)

    def _export(self, adapter: lora.Adapter) -> None:
        own = self._own(adapter)
        for name, content in peft_files(own, self._base.card.name).items():
            self._files.write(f"{PEFT_FOLDER}/{name}", content)
        about = trained_on(self._base.model, self._base.card.name)
        self._files.write(f"{PEFT_FOLDER}/{TRAINED_ON}", about)
        self._write(self._files.path / ADAPTER, own)
        require_runs(self._base.model.path, self._files.path / ADAPTER)

    def _own(self, adapter: lora.Adapter) -> PeftAdapter:
        pairs = {name: (p.a.detach().numpy(), p.b.detach().numpy()) for name, p in adapter.items()}
        return PeftAdapter(self._request.settings.rank, self._request.settings.alpha, pairs)

    def _write(self, path: Path, adapter: PeftAdapter) -> None:
        name = f"{self._base.card.name} {self._request.settings.method}"
        with told_if_full(path):
            write_adapter(path, adapter, self._base.model, name)

    def _result(
        self, history: list[LossRow], found: Agreement, held_out_before: float | None, seconds: float
    ) -> dict[str, Any]:
        last = history[-1]
        return {
            "steps": len(history),
            "task_loss_first": history[0].task,
            "task_loss_last": last.task,
            "held_out_loss_before": held_out_before,
            "held_out_loss": last.held_out,
            "faults": faults(history, held_out_before),
            "seconds": round(seconds, 1),
            "seconds_a_step": sorted(row.seconds for row in history)[len(history) // 2],
            "peak_memory_bytes": peak_memory(),
            "threads": self._request.threads,
            "agreement": found._asdict(),
            "adapter_sha256": file_sha256(self._files.path / ADAPTER),
        }


def _manifest(request: TrainingRequest, base: Base, asking: Asking) -> dict[str, Any]:
    """All that the outcome depends on."""
    packages = ("torch", "transformers", "numpy")
    manifest = {
        "what": "a LoRA adapter, trained by alignbeam train",
        "version": __version__,
        "base": {"name": base.card.name, "sha256": base.card.sha256},
        "weights": request.weights and folder_sha256(request.weights),
        "data": {"sha256": _sha256(request.data), "rows": len(base.samples)},
        "held_out": request.held_out and {"sha256": _sha256(request.held_out), "rows": len(base.held_out)},
        "tokens": base.tokens and {"ids": base.tokens.ids, "differences": base.tokens.differences},
        "asked": {"sha256": asking.sha256, "prompts": len(asking)} if len(asking) else None,
        "settings": request.settings.as_json(),
        "versions": {name: version(name) for name in packages}
        | {"llama.cpp": build(), "python": platform.python_version()},
    }
    return dict(json.loads(json.dumps(manifest)))  # as it is read again


def _plain(config: Config) -> Config:
    """The model and how it is run here: what else changes answers is not of the training."""
    return Config.of({name: getattr(config, name) for name in ("draft", *knobs_of("Machine"))})


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
