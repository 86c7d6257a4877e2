"""An engine that answers from the prompt's own words, for the tests of the command line."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import sleep
from types import TracebackType
from typing import Self

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.engine.background import Background
from alignbeam_local.engine.snapshot import Snapshot
from alignbeam_local.errors import ContextFull, ModelError
from alignbeam_local.events import (
    AnswerText,
    BeamText,
    Done,
    Event,
    Judged,
    Notice,
    Phase,
    Step,
    TopToken,
    Winner,
    Withdrawn,
)
from alignbeam_local.models.registry import Registry
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import (
    BeamResult,
    BridgeResult,
    FinishReason,
    Refusal,
    Result,
    Timings,
    Usage,
    Verdict,
)

STEP = Step(0, 0, 7, 5, 3, "Hi", "Yo", "Hi", "anchor", 0.5, 0.2, 0.8, 0.9, (TopToken(7, "Hi", 0.5),))
REFUSED = "I'm sorry, but I can't help with that."
#: Three beams, three mixed tokens each, and who won those of the first beam.
BEAMS = ("No, that is unfair.", "As a tutor I help.", "Yes, \x1b[31mlike this:\n\n日本")
WINNERS: tuple[Winner, ...] = ("anchor", "both", "draft")


class FakeEngine:
    """`echo: X` answers X, `refuse` is blocked, `full` fails, `withdraw` is, `beams` are three.

    `slow` and `hang` go on until Ctrl-C; of `slow` something has been decided by then.
    """

    def __init__(
        self, config: Config, _: Registry | None = None, cancellation: Cancellation | None = None
    ) -> None:
        self.config = config
        self.cancellation = cancellation or Cancellation()
        self.background = Background(self.cancellation)
        self.asked: list[tuple[list[Message], Config]] = []
        self.closed = False
        self._is_loaded = False

    has_examples_to_read = True
    judge_record = None
    is_remote = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True

    def load(self, config: Config | None = None, *, judge_later: bool = False) -> Iterator[Event]:
        if not self._is_loaded:
            self._is_loaded = True
            yield Phase("load")
            yield Notice("the judge is not calibrated")

    def left_out(self, turns: Sequence[Message], config: Config, already: int) -> int:
        return already

    def read_ahead(self, turns: Sequence[Message], config: Config) -> None:
        pass

    def snapshot(self, turns: Sequence[Message], config: Config) -> Snapshot:
        return Snapshot()

    def restore(self, snapshot: Snapshot) -> bool:
        return True

    def change(self, config: Config) -> Iterator[Event]:
        """A draft called `missing` is."""
        if config.draft == "missing":
            raise ModelError("missing is not here yet", "Pull it.")
        self.config = config
        yield Phase("load")

    def stream(self, messages: Sequence[Message], config: Config | None = None) -> Iterator[Event]:
        config = config or self.config
        self.asked.append((list(messages), config))
        prompt = messages[-1].content
        if prompt == "full":
            raise ContextFull("the prompt is too long", "Shorten it.")
        if prompt not in ("beams", "hang"):
            yield from (Phase("prefill"), Phase("mix"), STEP, BeamText(0, "Hi", True))
        if prompt == "slow":
            yield AnswerText("begun")
            self._wait()
            yield Done(fake_result("begun", config, "cancelled"))
        elif prompt == "hang":
            yield from running_beams()
            self._wait()
            yield Done(fake_result("", config, "cancelled"))
        elif prompt == "beams":
            yield from (*running_beams(), *judged_beams(config))
        elif prompt == "refuse":
            yield from (AnswerText(REFUSED), Done(fake_result(REFUSED, config, "blocked")))
        elif prompt == "withdraw":
            yield from (AnswerText("bad"), Withdrawn(REFUSED))
            yield Done(fake_result(REFUSED, config, "withdrawn"))
        else:
            text = prompt.removeprefix("echo: ")
            yield from (Phase("judge"), AnswerText(text), Done(fake_result(text, config)))

    def answer(self, messages: Sequence[Message], config: Config | None = None) -> Result:
        return next(e.result for e in self.stream(messages, config) if isinstance(e, Done))

    def forget(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def _wait(self) -> None:
        while not self.cancellation.is_set:
            sleep(0.01)


def running_beams() -> Iterator[Event]:
    """`BEAMS` up to their ends: a token a word, the first three mixed."""
    yield from (Phase("prefill"), Phase("mix"))
    words = [[f"{word} " for word in text.split(" ")] for text in BEAMS]
    for position in range(max(map(len, words))):
        if position == len(WINNERS):
            yield Phase("complete")
        for beam, pieces in enumerate(words):
            if position < len(pieces):
                yield from _token(beam, position, pieces[position])


def _token(beam: int, position: int, piece: str) -> Iterator[Event]:
    if position < len(WINNERS):
        winner = WINNERS[(beam + position) % len(WINNERS)]
        draft, anchor = ("Sure" if winner == "anchor" else piece), ("Nope" if winner == "draft" else piece)
        token = 7 if draft == piece else 8
        top = (TopToken(token, piece, 0.51), TopToken(9, "Hm", 0.2))
        yield Step(position, beam, token, 7, 3, piece, draft, anchor, winner, 0.51, 0.25, 0.77, 0.9, top)
    yield BeamText(beam, piece, position < len(WINNERS))


def judged_beams(config: Config) -> Iterator[Event]:
    """The verdicts on them; the first is the answer."""
    scores = (1.25, 3.5, None)
    verdicts = [
        Verdict(s, s, {}, "unscored" if s is None else "safe" if s < 2.5 else "unsafe") for s in scores
    ]
    yield Phase("judge")
    yield from (Judged(beam, verdict) for beam, verdict in enumerate(verdicts))
    beams = tuple(
        BeamResult(beam, text, len(text.split(" ")), 3, "stop", -1.5 - beam, False, verdict)
        for beam, (text, verdict) in enumerate(zip(BEAMS, verdicts, strict=True))
    )
    yield AnswerText(BEAMS[0])
    yield Done(replace(fake_result(BEAMS[0], config), beams=beams, refusal=Refusal(True, "mix")))


def fake_result(text: str, config: Config, finish: FinishReason = "stop") -> Result:
    """A result with this text."""
    blocked = finish in ("blocked", "withdrawn")
    verdict = Verdict(1.2, float("nan"), {"1": 0.9}, "safe")
    return Result(
        text=text,
        reasoning=None,
        finish_reason=finish,
        chosen=None if blocked else 0,
        refusal=Refusal(blocked, "judge" if blocked else None),
        beams=(BeamResult(0, text, 3, 1, "stop", -0.5, not text, verdict),),
        bridge=BridgeResult(1, 0, 50, 45, 5, 0.9),
        usage=Usage(10, 3),
        timings=Timings(total_ms=1200.0),
        config=config.model_dump(),
        models={"draft": None, "anchor": None, "judge": None},
        version="0",
        llama_cpp="0",
    )
