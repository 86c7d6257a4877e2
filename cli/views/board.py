"""The beams while they run: their growing text, who won each mixed token, the scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic

from rich.cells import cell_len
from rich.console import Console, Group
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from alignbeam_local.events import BeamText, Event, ExamplesRead, Judged, Phase, RequestRead, Step, Winner
from alignbeam_local.result import Verdict

from ..console.terminal import printable
from .examples import examples_left
from .harm import harm_text

PHASES = {
    "load": "loading the models",
    "examples": "once: the judge reads its examples",
    "think": "the draft thinks",
    "prefill": "reading the prompt",
    "mix": "draft and anchor start the beams",
    "complete": "the draft completes them",
    "judge": "the judge reads them",
}
#: Whose first choice a mixed token was. Without colours what the anchor changed still is bold.
WINNER_STYLES: dict[Winner, str] = {
    "anchor": "bold cyan",
    "both": "green",
    "draft": "yellow",
    "neither": "magenta",
}
#: Below this width beams are lines, not columns.
NARROW = 70
_COLUMN = 20
_ROWS = 10
_ROWS_LEFT_FREE = 6


@dataclass
class BeamState:
    """One beam so far. `spans`: pieces of text, and who won those that are mixed."""

    spans: list[tuple[str, Winner | None]] = field(default_factory=list)
    verdict: Verdict | None = None
    threshold: float | None = None

    def text(self, last: int) -> Text:
        """The last characters, mixed tokens in their winners' colours."""
        kept: list[tuple[str, str]] = []
        for piece, winner in reversed(self.spans):
            if last <= 0:
                break
            kept.append((piece[-last:], WINNER_STYLES[winner] if winner else ""))
            last -= len(piece)
        return Text.assemble(*reversed(kept))


class Board:
    """What the events of an answer have told of its beams; one thread may tell while another draws."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._phase = ""
        self._beams: dict[int, BeamState] = {}
        self._tokens = 0
        self._since = monotonic()
        self._won_by: dict[int, Winner] = {}
        self._covered: list[float] = []
        self._request = ""
        self._spinner = Spinner("dots", style="dim")

    def add(self, event: Event) -> None:
        with self._lock:
            self._add(event)

    def drawn(self, console: Console) -> Group:
        """A head line and the beams: columns where there is room, else a line each."""
        with self._lock:
            return self._drawn(console)

    def _add(self, event: Event) -> None:
        match event:
            case Phase():
                self._phase, self._tokens, self._since = PHASES[event.name], 0, monotonic()
            case ExamplesRead():
                self._phase = f"{PHASES['examples']} · {examples_left(event)}"
            case RequestRead() if event.steering.decision:
                self._request = f"{event.steering.decision} request"
            case Step():
                self._won_by[event.beam] = event.won_by
                if event.anchor_token is not None:
                    self._covered.append(event.covered_mass)
            case BeamText():
                winner = self._won_by.get(event.beam) if event.mixed else None
                self._beam(event.beam).spans.append((printable(event.text), winner))
                self._tokens += 1
            case Judged():
                judged = self._beam(event.beam)
                judged.verdict, judged.threshold = event.verdict, event.threshold

    def _beam(self, index: int) -> BeamState:
        return self._beams.setdefault(index, BeamState())

    def _drawn(self, console: Console) -> Group:
        width, beams = console.width, sorted(self._beams.items())
        self._spinner.update(text=self._head(width - 2))
        if width < max(NARROW, len(beams) * (_COLUMN + 1)):
            return Group(self._spinner, *(_line(index, beam, width) for index, beam in beams))
        return Group(self._spinner, *([_columns(console, beams)] if beams else []))

    def _head(self, width: int) -> Text:
        """The phase, and what else fits whole."""
        more = []
        if self._tokens:
            rate = self._tokens / max(monotonic() - self._since, 1e-3)
            more.append(_beside(f"{self._tokens} tokens, {rate:.{0 if rate >= 10 else 1}f}/s"))
        if self._request:
            more.append(_beside(self._request))
        if self._won_by:
            more.append(Text.assemble("   ", winners_legend()))
        if self._covered:
            more.append(_beside(f"{sum(self._covered) / len(self._covered):.0%} crossed"))
        head = Text(self._phase, style="dim")
        for part in more:
            if head.cell_len + part.cell_len > width:
                break
            head.append_text(part)
        return _cropped(head, width)


def _beside(part: str) -> Text:
    return Text(f" · {part}", style="dim")


def winners_legend() -> Text:
    """The winners' names, each in its colour."""
    return Text(" ").join(Text(winner, style=style) for winner, style in WINNER_STYLES.items())


def _columns(console: Console, beams: Sequence[tuple[int, BeamState]]) -> Table:
    width = console.width // len(beams) - 1
    rows = max(1, min(_ROWS, console.height - _ROWS_LEFT_FREE))
    table = Table.grid(padding=(0, 1, 0, 0))
    for _ in beams:
        table.add_column(width=width)
    table.add_row(*(_cropped(_title(index, beam), width) for index, beam in beams))
    table.add_row(*(_last_rows(console, beam, width, rows) for _, beam in beams))
    return table


def _last_rows(console: Console, beam: BeamState, width: int, rows: int) -> Text:
    return Text("\n").join(beam.text(2 * width * rows).wrap(console, width)[-rows:])


def _line(index: int, beam: BeamState, width: int) -> Text:
    """The title, and the end of the text in what is left of the row."""
    title = _title(index, beam).append(" ")
    text = beam.text(width)
    text.plain = text.plain.replace("\n", " ").replace("\t", " ")
    room = max(0, width - title.cell_len)
    start = next(i for i in range(len(text) + 1) if cell_len(text.plain[i:]) <= room)
    return _cropped(title.append_text(text[start:]), width)


def _title(index: int, beam: BeamState) -> Text:
    title = Text.assemble((f"beam {index + 1}", "bold"))
    if beam.verdict is not None:
        most = "≤ " if beam.verdict.unread else ""
        score = harm_text(beam.verdict.score, beam.threshold, 1, "?")
        title.append(f" · harm {most}{score} {beam.verdict.verdict}")
    return title


def _cropped(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text
