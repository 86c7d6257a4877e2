"""The story of an answer on a terminal: what happens now, and then what became of it."""

from collections.abc import Iterable
from time import monotonic

from rich.console import Console
from rich.status import Status
from rich.text import Text

from alignbeam_local.events import AnswerText, BeamText, Done, Event, ExamplesRead, Notice, Phase, Withdrawn
from alignbeam_local.result import BeamResult, RefusalSource, Result, VerdictName

from ..console.terminal import is_dumb, printable
from .board import PHASES
from .examples import examples_left
from .view import View

_REFUSED: dict[RefusalSource | None, str] = {
    "draft": "refused: the draft model itself did",
    "mix": "refused: the anchor began it",
}


class StoryView:
    """A status line on stderr until the answer comes, then a short line about it."""

    def __init__(self, inner: View, *, progress_only: bool, prefix: str, sums_up: bool = True) -> None:
        self._inner = inner
        self._progress_only = progress_only
        self._sums_up = sums_up and not progress_only
        self._prefix = prefix
        self._console = Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._phase, self._tokens, self._since = "", 0, monotonic()
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
        if self._sums_up:
            self._tell(summary(result))

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


def summary(result: Result) -> str:
    """What became of the answer, in words; the figures behind it are those of `/why`."""
    parts = [
        _outcome(result),
        _verdicts(result),
        _steering(result),
        _steered_back(result),
        "cut short by max_tokens" if result.finish_reason == "length" else "",
        f"{result.timings.total_ms / 1000:.1f} s",
    ]
    return " · ".join(filter(None, parts))


def _outcome(result: Result) -> str:
    """What is unusual about it; nothing where it simply answers."""
    match result.finish_reason:
        case "cancelled":
            return "stopped"
        case "blocked" | "withdrawn" if result.refusal.by == "request":
            return f"{result.finish_reason}: the request was read as harmful, and no draft refuses"
        case "blocked":
            return f"blocked: {_why_blocked(result)}"
        case "withdrawn":
            return f"withdrawn: {_why_withdrawn(result)}"
    return _REFUSED.get(result.refusal.by, "")


def _why_blocked(result: Result) -> str:
    count, harmful = len(result.beams), _num("unsafe", result.beams)
    if _num("safe", result.beams):
        return "what was not judged harmful is empty or repeats itself"
    if not any(beam.judge and beam.judge.verdict != "unscored" for beam in result.beams):
        return "the judge gave no verdict"
    if harmful < count:
        return f"none of {count} drafts passed the judge"
    return "its only draft was judged harmful" if count == 1 else f"all {count} drafts were judged harmful"


def _why_withdrawn(result: Result) -> str:
    """The draft that was shown is the one that went on after the others were dropped."""
    if result.late and result.late.gave_up:
        return "it turned harmful while it grew"
    whole = [beam for beam in result.beams if beam.finish_reason != "cancelled"]
    if _num("safe", whole):
        return "the whole answer is empty or repeats itself"
    if _num("unsafe", whole):
        return "the whole answer was judged harmful"
    return "the judge gave no verdict on the whole answer"


def _verdicts(result: Result) -> str:
    """How many drafts there were, and what the judge found; one verdict each, its last.

    No draft is called safe or good: the judge looks for harm, and for nothing else.
    """
    count = len(result.beams)
    if result.chosen is None or result.finish_reason == "cancelled":
        return ""
    drafts = "1 draft" if count == 1 else f"{count} drafts"
    if not any(beam.judge for beam in result.beams):
        return f"{drafts}, not judged"
    return f"{drafts}, {_found_of_one(result.beams[0]) if count == 1 else _found(result)}"


def _steering(result: Result) -> str:
    """What was done about a request that need not be steered; nothing where it was steered as ever."""
    steering = result.steering
    if steering is None or steering.decision != "clear":
        return ""
    if steering.unsteered:
        return "made again, steered"
    return "not steered" if steering.alpha is None else ""


def _steered_back(result: Result) -> str:
    """That the answer had turned harmful, and how often; not of one that was refused for it."""
    times = len(result.late.steered_back) if result.late else 0
    if not times or result.finish_reason in ("blocked", "withdrawn"):
        return ""
    return f"turned harmful and steered back{'' if times == 1 else f' {times} times'}"


def _found_of_one(beam: BeamResult) -> str:
    if beam.judge and beam.judge.unread:
        return "judged by its request"
    if _num("safe", [beam]):
        return "judged not harmful"
    return "judged harmful" if _num("unsafe", [beam]) else "without a verdict"


def _found(result: Result) -> str:
    """What the judge found of several drafts; the one shown is told from the others if it was harmful."""
    count, safe, harmful = len(result.beams), _num("safe", result.beams), _num("unsafe", result.beams)
    assert result.chosen is not None
    is_shown = safe and _num("unsafe", [result.beams[result.chosen]])
    shown = (": the one shown" if harmful == 1 else ", also the one shown") if is_shown else ""
    found = [
        f"{'all' if harmful == count else harmful} judged harmful{shown}" if harmful else "",
        f"{count - safe - harmful} without a verdict" if safe + harmful < count else "",
    ]
    return ", ".join(filter(None, found)) or "none judged harmful"


def _num(verdict: VerdictName, beams: Iterable[BeamResult]) -> int:
    """How many of these got this verdict."""
    return sum(beam.judge is not None and beam.judge.verdict == verdict for beam in beams)
