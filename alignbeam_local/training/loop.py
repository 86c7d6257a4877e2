"""The steps of a training: batches in an order that the seed gives, AdamW, checkpoints."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from ..errors import AlignBeamError
from ..events import Notice
from .adapter.lora import Adapter, is_finite, parameters
from .looks.loss_row import LossRow, Shares
from .objective import AnswerRows, Losses, ReferenceRows, SafetyTokens, losses
from .prepared import Prepared, PreparedFolder
from .run_files import RunFiles
from .samples import Sample
from .settings import TrainingSettings
from .token_set import TokenSet
from .trunk import Trunk

#: Steps that the time left is told from.
_RECENT = 20


@dataclass(frozen=True)
class StepDone:
    """A step was taken; `seconds_left` is a guess from the last ones."""

    row: LossRow
    num_steps: int
    seconds_left: float


@dataclass(frozen=True)
class Data:
    """Samples and their kept states, in the same order."""

    samples: Sequence[Sample]
    states: PreparedFolder


class Trainer:
    """A model above its cut, its adapter and the optimiser's state."""

    def __init__(
        self, trunk: Trunk, adapter: Adapter, settings: TrainingSettings, tokens: TokenSet | None
    ) -> None:
        self.adapter = adapter
        self._trunk, self._settings = trunk, settings
        self._tokens = _tensors(tokens) if tokens else None
        self._optimiser = torch.optim.AdamW(
            parameters(adapter), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def step(self, data: Data, indices: Sequence[int]) -> Losses:
        """One step on these samples."""
        self._optimiser.zero_grad(set_to_none=True)
        found = self.losses(data, indices)
        found.total.backward()
        torch.nn.utils.clip_grad_norm_(list(parameters(self.adapter)), self._settings.clip)
        self._optimiser.step()
        return Losses(*(float(value.detach()) for value in found))

    def losses(self, data: Data, indices: Sequence[int]) -> Losses:
        """The losses of these samples together."""
        states = [data.states[index] for index in indices]
        samples = [data.samples[index] for index in indices]
        hidden = self._hidden(states)
        ends = [len(state.below) for state in states]
        rows = [
            row[end - len(sample.answer) : end]
            for row, end, sample in zip(hidden, ends, samples, strict=True)
        ]
        labels = torch.tensor([token for sample in samples for token in sample.answer])
        answer_rows = AnswerRows(
            logits=self._trunk.logits(torch.cat(rows)),
            labels=labels,
            positions=torch.cat([torch.arange(len(sample.answer)) for sample in samples]),
            num_answers=len(samples),
            reference=self._reference(states, labels) if self._settings.method != "sft" else None,
        )
        return losses(answer_rows, self._settings, self._tokens)

    def task_loss(self, data: Data) -> float:
        """Cross-entropy a token over all samples, without a step."""
        total = tokens = 0.0
        with torch.no_grad():
            for index, sample in enumerate(data.samples):
                total += len(sample.answer) * float(self.losses(data, [index]).task)
                tokens += len(sample.answer)
        return total / tokens

    def state(self) -> dict[str, Any]:
        """All that further steps depend on."""
        pairs = {name: tuple(half.detach() for half in pair) for name, pair in self.adapter.items()}
        return {"adapter": pairs, "optimiser": self._optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, pair in self.adapter.items():
                for half, kept in zip(pair, state["adapter"][name], strict=True):
                    half.copy_(kept)
        self._optimiser.load_state_dict(state["optimiser"])

    def _hidden(self, states: Sequence[Prepared]) -> Any:
        """(B, L, width): the samples side by side, the shorter ones padded at their end."""
        padded = torch.nn.utils.rnn.pad_sequence([state.below for state in states], batch_first=True)
        lengths = torch.tensor([len(state.below) for state in states])
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        return self._trunk.above(padded, mask)

    def _reference(self, states: Sequence[Prepared], labels: Any) -> ReferenceRows:
        full = torch.cat([state.full for state in states])
        posts = [state.post for state in states if state.post is not None]
        ids = torch.tensor([], dtype=torch.long) if self._tokens is None else self._tokens.ids
        with torch.no_grad():
            return ReferenceRows(
                full=self._trunk.some_logits(full, ids),
                post=self._trunk.some_logits(torch.cat(posts), ids) if posts else None,
                log_sums=torch.cat([state.log_sums for state in states]),
                labels=self._trunk.own_logits(full, labels),
            )


def num_steps(settings: TrainingSettings, num_samples: int) -> int:
    """The steps of a whole training."""
    return settings.epochs * -(-num_samples // settings.batch)


def batch_of(step: int, settings: TrainingSettings, num_samples: int) -> list[int]:
    """Which samples a step is on, counted from 0: each epoch has an order of its own, by the seed."""
    a_round = -(-num_samples // settings.batch)
    epoch, number = divmod(step, a_round)
    order = np.random.default_rng([settings.seed, epoch]).permutation(num_samples)
    return [int(i) for i in order[number * settings.batch : (number + 1) * settings.batch]]


def steps(
    trainer: Trainer,
    data: Data,
    settings: TrainingSettings,
    files: RunFiles,
    *,
    held_out: Data | None = None,
    look: Callable[[int], Shares] = lambda step: Shares(),
) -> Generator[Notice | StepDone, None, list[LossRow]]:
    """Train to the end, from the last checkpoint if there is one; the last step is saved too.

    Args:
        held_out: samples that are looked at with every checkpoint.
        look: called with every checkpoint's step: what the adapter then makes of some prompts.

    Returns:
        Every step's losses, from the first.

    Raises:
        AlignBeamError: no room on the disk, a damaged checkpoint, or a loss or an adapter that is no number:
            then the last checkpoint stays as it was.
    """
    history = _restored(trainer, files)
    total = num_steps(settings, len(data.samples))
    if history:
        yield Notice(f"going on from the checkpoint of step {len(history)} of {total}")
    while len(history) < total:
        step, start = len(history), perf_counter()
        found = trainer.step(data, batch_of(step, settings, len(data.samples)))
        is_look = (step + 1) % settings.save_every == 0 or step + 1 == total
        taken = perf_counter() - start
        _require_numbers(trainer, step + 1, found.total, settings)
        seen = trainer.task_loss(held_out) if held_out and is_look else None
        _require_numbers(trainer, step + 1, seen or 0.0, settings)
        history.append(LossRow(step + 1, *found, seen, taken, *(look(step + 1) if is_look else Shares())))
        if is_look:
            files.save_checkpoint(trainer.state(), history)
        recent = [row.seconds for row in history[-_RECENT:]]
        yield StepDone(history[-1], total, (total - len(history)) * sum(recent) / len(recent))
    return history


def _tensors(tokens: TokenSet) -> SafetyTokens:
    return SafetyTokens(torch.tensor(tokens.ids), torch.tensor(tokens.differences))


def _restored(trainer: Trainer, files: RunFiles) -> list[LossRow]:
    saved = files.checkpoint()
    if saved is None:
        return []
    trainer.restore(saved)
    return [LossRow(*row) for row in saved["history"]]


def _require_numbers(trainer: Trainer, step: int, loss: float, settings: TrainingSettings) -> None:
    """Raises: AlignBeamError: this loss, or what a step made of the adapter, is not a number."""
    if not (np.isfinite(loss) and is_finite(trainer.adapter)):
        own = ", or a lower λ (--weight)" if settings.needs_tokens else ""
        raise AlignBeamError(
            f"the training diverged: at step {step} its loss or its adapter is not a number",
            f"Train anew in another --out with a --learning-rate below {settings.learning_rate:g}{own}.",
        )
