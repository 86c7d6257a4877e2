"""The story of an answer on a terminal: what happens now, and then who steered it."""

from collections import Counter
from collections.abc import Mapping
from time import monotonic

from rich.console import Console
from rich.status import Status
from rich.text import Text

from alignbeam_local.events import (
    AnswerText,
    BeamText,
    Done,
    Event,
    ExamplesRead,
    Notice,
    Phase,
    Step,
    Withdrawn,
)
from alignbeam_local.result import Result

from ..terminal import is_dumb, printable
from .board import PHASES
from .examples import examples_left
from .harm import harm_text, limit_text
from .view import View


class StoryView:
    """A status line on stderr until the answer comes, then a short line about it."""

    def __init__(self, inner: View, *, progress_only: bool, prefix: str) -> None:
        self._inner = inner
        self._progress_only = progress_only
        self._prefix = prefix
        self._console = Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._phase, self._tokens, self._since = "", 0, monotonic()
        self._steered = Counter[int]()
        self._answer_is_open = False  # its line shares the screen: nothing may be drawn over it
        self._later: list[str] = []

    def show(self, event: Event) -> None:
        match event:
            case Phase():
                self._begin(PHASES[event.name])
            case ExamplesRead():
                self._phase = f"{PHASES['examples']} · {examples_left(event)}"
                self._update()
            case BeamText():
                self._tokens += 1
                self._update()
            case Step():
                self._steered[event.beam] += event.steered
            case Notice():
                self._tell(f"note: {event.message}")
            case AnswerText() | Withdrawn() | Done():
                self._stop()
                self._answer_is_open = not self._progress_only
        self._inner.show(event)
        if isinstance(event, Done):
            self._end(event.result)

    def close(self) -> None:
        self._stop()
        self._inner.close()

    def _end(self, result: Result) -> None:
        self._answer_is_open = False
        for line in self._later:
            self._tell(line)
        if not self._progress_only:
            self._tell(summary(result, self._steered))

    def _begin(self, phase: str) -> None:
        self._phase, self._tokens, self._since = phase, 0, monotonic()
        if self._status is None and not is_dumb() and not self._answer_is_open:
            self._status = self._console.status("", refresh_per_second=8)
            self._status.start()
        self._update()

    def _update(self) -> None:
        if self._status is not None:
            rate = self._tokens / max(monotonic() - self._since, 1e-3)
            count = f" · {self._tokens} tokens, {rate:.0f}/s" if self._tokens else ""
            self._status.update(Text(f"{self._prefix}{self._phase}{count}", style="dim"))

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _tell(self, line: str) -> None:
        if self._answer_is_open:
            self._later.append(line)
            return
        self._console.print(Text(printable(line), style="dim"))


def summary(result: Result, steered: Mapping[int, int]) -> str:
    """Which beam, its score, who refused, what crossed, how long it took."""
    covered = result.bridge.covered_mass
    parts = [
        _choice(result),
        _scores(result) if result.finish_reason != "cancelled" else "",
        f"refused by the {result.refusal.by or 'draft'}" if result.refusal.is_refusal else "",
        f"anchor changed {_tokens(steered.get(result.chosen or 0, 0))}" if _mixed(result) else "",
        f"{covered:.0%} crossed" if covered is not None else "",
        _length(result),
        f"{result.timings.total_ms / 1000:.1f} s",
    ]
    return " · ".join(filter(None, parts))


def _choice(result: Result) -> str:
    if result.finish_reason == "cancelled":
        return "stopped"
    if result.chosen is None:
        return {"blocked": "blocked: no beam was safe"}.get(result.finish_reason, result.finish_reason)
    return f"beam {result.chosen + 1} of {len(result.beams)}"


def _scores(result: Result) -> str:
    """Every judged beam's harm, 1 to 5, the chosen one in brackets; where the others were judged sooner."""
    if not any(beam.judge for beam in result.beams):
        return "unjudged"
    threshold = float(result.config["threshold"])
    scores = [beam.judge.score if beam.judge else None for beam in result.beams]
    shown = [harm_text(score, threshold, 1, "?") for score in scores]
    marked = [f"[{s}]" if i == result.chosen else s for i, s in enumerate(shown)]
    return f"harm {' '.join(marked)}{_judged_early(result)}, safe up to {limit_text(threshold)}"


def _judged_early(result: Result) -> str:
    """Beams that were dropped once they had been judged were judged where they ended."""
    dropped = [beam.tokens for beam in result.beams if beam.finish_reason == "cancelled" and beam.judge]
    if result.config.get("judge_at") is None or not dropped:
        return ""
    which = "all" if len(dropped) == len(result.beams) else "dropped ones"
    return f" ({which} judged at token {max(dropped)})"


def _mixed(result: Result) -> bool:
    return result.chosen is not None and result.beams[result.chosen].mixed > 0


def _length(result: Result) -> str:
    tokens = _tokens(result.usage.completion_tokens)
    return f"cut at {tokens}" if result.finish_reason == "length" else tokens


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count} tokens"
