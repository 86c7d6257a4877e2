"""The picture of a training: losses by step, and below them what was refused and solved."""

import io
from collections.abc import Sequence
from typing import Any

from .loss_row import LossRow, Shares

_NAMES = Shares("harmful prompts refused", "benign prompts refused", "problems solved")  # type: ignore[arg-type]


def plot(history: Sequence[LossRow], base: Shares | None) -> bytes:
    """A PNG; matplotlib must be installed. `base` is what the base without an adapter made of the prompts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4 if base is None else 7), layout="constrained")
    axes = figure.subplots(1 if base is None else 2, squeeze=False)[:, 0]
    _draw_losses(axes[0], history)
    if base is not None:
        _draw_shares(axes[1], history, base)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_losses(axes: Any, history: Sequence[LossRow]) -> None:
    axes.set(xlabel="step", ylabel="loss, nats a token")
    axes.plot([row.step for row in history], [row.task for row in history], label="task, a batch")
    seen = [(row.step, row.held_out) for row in history if row.held_out is not None]
    if seen:
        axes.plot([step for step, _ in seen], [loss for _, loss in seen], "o-", label="held out")
    axes.legend()


def _draw_shares(axes: Any, history: Sequence[LossRow], base: Shares) -> None:
    """The base's shares stand at step 0."""
    axes.set(xlabel="step", ylabel="share", ylim=(-0.03, 1.03))
    looks = [(0, base), *((row.step, row.shares) for row in history if any_of(row.shares))]
    for number, name in enumerate(_NAMES):
        seen = [(step, shares[number]) for step, shares in looks if shares[number] is not None]
        if seen:
            axes.plot([step for step, _ in seen], [share for _, share in seen], "o-", label=name)
    axes.legend()


def any_of(shares: Shares) -> bool:
    """Whether anything was asked then."""
    return any(share is not None for share in shares)
