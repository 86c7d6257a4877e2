"""How a training looks: lines on stderr while it runs, what came of it on stdout."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from alignbeam_local.events import Notice
from alignbeam_local.machine.memory import gib
from alignbeam_local.training.dequantised import Agreement
from alignbeam_local.training.looks.loss_row import Shares
from alignbeam_local.training.looks.verdict import ANEW
from alignbeam_local.training.loop import StepDone
from alignbeam_local.training.need import TrainingNeed
from alignbeam_local.training.run import Event, Finished, Prepared, Stage

from ..console.terminal import for_stream, is_dumb, is_terminal, printable, say
from ..console.waiting import waiting

#: Lines of progress in a file are no closer than this.
_SECONDS_A_LINE = 10.0
Progress = Stage | Prepared | StepDone


def show(events: Iterator[Event], base: str, *, as_json: bool) -> None:
    """Go through a training to its end."""
    try:
        with _telling() as tell:
            for event in events:
                if isinstance(event, Finished):
                    finished = event
                elif isinstance(event, Notice | TrainingNeed | Agreement | Shares):
                    say(_fact(event))
                else:
                    tell(event)
    except KeyboardInterrupt:
        say("stopped; the same command goes on from the last checkpoint")
        raise
    _show_finished(finished, base, as_json=as_json)


@contextmanager
def _telling() -> Iterator[Callable[[Progress], None]]:
    """What is done now: a line that moves on a terminal, in a file whole lines, few of them."""
    if is_terminal(sys.stderr) and not is_dumb():
        with waiting("training") as tell:
            yield lambda event: tell(_progress(event))
        return
    told = -_SECONDS_A_LINE

    def line(event: Progress) -> None:
        nonlocal told
        if isinstance(event, Stage) or _is_last(event) or monotonic() - told >= _SECONDS_A_LINE:
            told = monotonic()
            say(_progress(event))

    yield line


def _is_last(event: Prepared | StepDone) -> bool:
    if isinstance(event, Prepared):
        return event.done == event.total
    return event.row.step == event.num_steps


def _fact(event: Notice | TrainingNeed | Agreement | Shares) -> str:
    if isinstance(event, Notice):
        return f"note: {event.message}"
    if isinstance(event, Shares):
        return f"the base: {_shares(event)}"
    if isinstance(event, TrainingNeed):
        parts = f"{gib(event.loading)} while the model is loaded, {gib(event.training)} while it is trained"
        return f"it takes about {gib(event.memory)} of memory ({parts}) and {gib(event.disk)} of disk"
    return (
        f"transformers against llama.cpp on {event.num_rows} positions: KL {event.kl:.4f}, "
        f"the same first token on {event.same_top:.0%}"
    )


def _progress(event: Progress) -> str:
    if isinstance(event, Stage):
        return event.text
    if isinstance(event, Prepared):
        return f"states below the trained layers: {event.done} of {event.total} samples"
    row = event.row
    own = f", own term {row.own:.3g}" if row.own else ""
    asked = f", {text}" if (text := _shares(row.shares)) else ""
    return (
        f"step {row.step} of {event.num_steps}: task loss {row.task:.3f}{own}{asked}, "
        f"{row.seconds:.1f} s a step, {_duration(event.seconds_left)} left"
    )


def _shares(shares: Shares) -> str:
    told = zip(("harmful refused", "benign refused", "solved"), shares, strict=True)
    return ", ".join(f"{name} {share:.0%}" for name, share in told if share is not None)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _show_finished(finished: Finished, base: str, *, as_json: bool) -> None:
    result = finished.result
    if as_json:
        print(for_stream(json.dumps({"adapter": str(finished.adapter), **result}), sys.stdout))
        return
    if finished.was_done:
        say("this training is done already")
    print(printable(_text(result)))
    print(printable(f"{finished.adapter}"))
    for fault in result.get("faults", ()):
        say(f"warning: {fault}")
    say(ANEW if result.get("faults") else f"Use it: alignbeam chat --draft {base} --lora {finished.adapter}")


def _text(result: dict[str, Any]) -> str:
    held_out = result["held_out_loss"]
    before = result.get("held_out_loss_before")
    begun = f" {before:.3f} to" if before is not None else ""
    seen = f", held out{begun} {held_out:.3f}" if held_out is not None else ""
    asked = f"; {_shares(Shares(**result['asked']['last']))}" if "asked" in result else ""
    return (
        f"{result['steps']} steps, task loss {result['task_loss_first']:.3f} to "
        f"{result['task_loss_last']:.3f}{seen}{asked}; {_duration(result['seconds'])}, "
        f"{result['seconds_a_step']:.1f} s a step, {gib(result['peak_memory_bytes'])} of memory at most"
    )
