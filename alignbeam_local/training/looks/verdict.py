"""What is wrong with an adapter that was trained: losses that rose, and what llama.cpp makes of its file."""

from collections.abc import Sequence
from pathlib import Path

from ...errors import ModelError
from ...machine.probe import TriedAdapter, require_adapters
from ...models.hashes import file_sha256
from .loss_row import LossRow

#: Nats a token by which held-out answers may become less likely: a perplexity higher by a tenth.
_HELD_OUT_RISE = 0.1
#: The same of the task loss, from the first batch, which is the base's, to the mean of the last ones.
_TASK_RISE, _LAST_STEPS = 1.0, 20
#: What to do about an adapter that diverged.
ANEW = "Train anew in another --out with a lower --learning-rate, fewer --epochs or more rows."


def faults(history: Sequence[LossRow], before: float | None) -> list[str]:
    """What a training's losses say against its adapter, a sentence each; none: nothing.

    Args:
        before: the held-out rows' loss of the base without an adapter; None: there are none.
    """
    found = []
    after = history[-1].held_out
    if before is not None and after is not None and after > before + _HELD_OUT_RISE:
        found.append(f"the held-out loss is worse than before the training: {before:.3f} to {after:.3f}")
    last = [row.task for row in history[-_LAST_STEPS:]]
    first, mean = history[0].task, sum(last) / len(last)
    if mean > first + _TASK_RISE:
        found.append(f"the training diverged: its task loss rose from {first:.3f} to {mean:.3f}")
    return found


def require_runs(base: Path, adapter: Path) -> None:
    """Let llama.cpp open a new adapter on its base, in a child process.

    Raises:
        ModelError: it refuses the adapter, crashes, or computes no numbers.
    """
    try:
        require_adapters(base, [TriedAdapter(adapter, file_sha256(adapter), 1.0)])
    except ModelError as error:
        raise ModelError(f"the new adapter cannot be used: {error.message}", ANEW) from None
