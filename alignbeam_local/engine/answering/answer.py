"""One answer, from a conversation to its result: prefill, mix, complete, judge, choose."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from ... import __version__
from ...config import Config
from ...errors import Cancelled, ContextFull
from ...events import (
    AnswerText,
    Done,
    Event,
    Judged,
    Phase,
    RequestRead,
    SteeredBack,
    WindowRead,
    Withdrawn,
)
from ...judge.judge import Judge
from ...lm.grammar import grammar_of
from ...lm.language_model import Logits
from ...prompt.message import Message
from ...result import BeamResult, BridgeResult, Decision, FinishReason, Result, Steering, Usage
from ...search.anchors import BridgedAnchor
from ...search.beam import Beam
from ...search.beams import BeamSearch
from ...search.safety_tokens import UNCHANGED, gate_tokens, safety_tokens
from ...search.selection import select
from ...search.steering import decision_of, knobs_of, wants_judge, with_judge
from ..open_models import Anchor, OpenModels
from ..stopwatch import Stopwatch
from .late import LateWatch
from .notices import Notices
from .outcome import beam_result, refusal_of
from .prompts import AnswerPrompts
from .shown import Shown
from .verdicts import Verdicts


class Answer:
    """The making of one answer. Use once."""

    def __init__(
        self,
        models: OpenModels,
        config: Config,
        watch: Stopwatch,
        *,
        backend: str,
        notices: Sequence[str] = (),
        starved: Callable[[], str] = str,
    ) -> None:
        """Begin nothing yet.

        Args:
            backend: the build of the language models' library, for the result.
            starved: says, once, that other programs slow the models down; empty if they do not.
        """
        self._models = models
        self._asked = config
        self._config = config  # as this request is answered, once it was read
        self._grammar = grammar_of(config)
        self._watch = watch
        self._backend = backend
        self._starved = starved
        self._prompts = AnswerPrompts(models, config, watch)
        self._verdicts = Verdicts(models, config, self._prompts)
        self._notices = Notices(notices)
        self._shown = Shown(streams=not config.judged)
        self._search: BeamSearch | None = None
        self._safety = UNCHANGED
        self._gate_tokens: tuple[int, ...] = ()
        self._watch_late: LateWatch | None = None

    def stream(self, messages: Sequence[Message]) -> Iterator[Event]:
        """Everything that happens, `Done` last, also when the user cancels.

        Raises:
            ContextFull: the conversation leaves no room for an answer.
            ModelError: a model failed.
        """
        try:
            yield from self._run(messages)
        except Cancelled:
            yield from self._cancelled()
        except GeneratorExit:
            raise
        except BaseException:  # a signal and a lack of memory too leave nothing unjudged standing
            yield from self._taken_back()
            raise
        finally:
            if self._search is not None:
                self._search.close()

    def _taken_back(self) -> Iterator[Event]:
        """What no last verdict has passed is not an answer: a judged one that was cut off is taken back."""
        if self._asked.judged:
            yield from self._shown.take_back()

    def _cancelled(self) -> Iterator[Event]:
        yield from self._taken_back()
        if self._asked.judged or not self._search or not self._search.beams:
            yield Done(self._result("", "cancelled", None))
        else:
            yield Done(self._result(self._shown.text, "cancelled", self._search.beams[0]))

    def _run(self, turns: Sequence[Message]) -> Iterator[Event]:
        yield Phase("prefill")
        draft = self._models.draft
        self._safety = safety_tokens(self._config, draft.lm, draft.card.name)
        self._gate_tokens = gate_tokens(self._config, draft.lm, draft.card.name)
        self._prompts.read_draft(turns)
        if draft.format.thinking == "thinks":
            yield Phase("think")
            self._prompts.reason()
            if not self._prompts.thought.finished:
                yield from self._notices.tell(
                    "the draft was still reasoning when it reached max_tokens: raise --max-tokens"
                )
                yield Done(self._result("", "length", None))
                return
        draft_row = self._prompts.draft_row()
        self._prompts.encode_anchors(turns)
        if steering := self._prompts.read_request(turns):
            if wants_judge(self._asked, steering):
                steering = self._prompts.steering = yield from self._asked_too(turns, steering)
            yield RequestRead(steering)
            self._config = knobs_of(self._asked, steering)
            if steering.alpha is None and (yield from self._unsteered(turns, draft_row)):
                return
        anchor_rows = self._prompts.read_anchors()
        self._search = search = self._make_search()
        yield Phase("mix")
        with self._watch.part("mix_ms"):
            yield from self._shown.as_they_grow(search.start(draft_row, anchor_rows))
            yield from self._shown.as_they_grow(search.extend(self._prompts.anchor_prompts))
        yield Phase("complete")
        if not self._config.judged:
            yield from self._complete()
            yield from self._done(search.beams[0])
        else:
            yield from self._judged(turns)

    # --- what is read of the request

    def _asked_too(self, turns: Sequence[Message], steering: Steering) -> Generator[Event, None, Steering]:
        """What the judge reads beside the head; its verdicts then need not read the request again."""
        judge = self._models.judge
        if judge is None:
            return steering
        yield from self._ready(judge)
        with self._watch.part("judge_ms"):
            judged = judge.request(turns)
        return with_judge(self._asked, steering, judged)

    # --- requests that are clear

    def _unsteered(self, turns: Sequence[Message], draft_row: Logits) -> Generator[Event, None, bool]:
        """The draft alone, shown as it grows or as verdicts pass it; whether it is safe, so the answer.

        Where `late` is on, a verdict on all so far comes with every window, whoever reads windows: it need
        not be sure of harm to be made again, steered.
        """
        every, until = self._config.verdict_every, self._config.first_verdict_at
        self._shown.stands = every is not None and (yield from self._is_safe_at_worst(turns))
        self._shown.streams = every is None or self._shown.stands
        self._search = search = self._make_search()
        yield Phase("complete")
        yield from self._shown.as_they_grow(search.start(draft_row, ()))
        (beam,) = search.beams
        is_whole = False
        while not is_whole:
            yield from self._complete(until)
            yield from self._judge(turns, [beam], is_clear=True)
            if self._verdicts.by_beam[beam.index].verdict != "safe":
                yield from self._steer_after_all(beam)
                return False
            yield from self._shown.passed(beam)
            is_whole, until = beam.finish is not None, every and len(beam.tokens) + every
        yield from self._done(beam)
        return True

    def _is_safe_at_worst(self, turns: Sequence[Message]) -> Generator[Event, None, bool]:
        """Whether the verdict is known before the answer: then none of it need wait for one."""
        judge = self._models.judge
        if judge is None or self._config.reads_answers:
            return False
        yield from self._ready(judge)
        with self._watch.part("judge_ms"):
            return self._verdicts.safe_at_worst(judge, turns) is not None

    def _steer_after_all(self, beam: Beam) -> Iterator[Event]:
        """Take back what the draft alone said; the next answer is steered with the whole weight."""
        assert self._search is not None
        assert self._prompts.steering is not None
        verdict = self._verdicts.by_beam.pop(beam.index)
        self._search.drop([beam])
        self._search.close()
        yield from self._shown.take_back()
        self._shown.streams = False
        self._config = self._asked
        self._prompts.steering = replace(self._prompts.steering, alpha=self._asked.alpha, unsteered=verdict)
        yield from self._notices.tell(
            "the draft's own answer did not pass the judge: it is made again, steered"
        )

    def _make_search(self) -> BeamSearch:
        draft, config = self._models.draft, self._config
        mixed = zip(self._models.anchors, config.weights, strict=True) if config.depth > 0 else ()
        stops = () if config.ignore_eos or self._grammar else draft.format.stop_strings
        return BeamSearch(
            draft.lm,
            [self._bridged(*each) for each in mixed],
            config,
            max_tokens=min(config.max_tokens, draft.context - len(self._prompts.prompt)),
            stop_strings=(*stops, *config.stop),
            strip_leading_space=draft.format.strips_leading_space and not (self._grammar or config.prefill),
            grammar=self._grammar,
            safety=self._safety,
            gate_tokens=self._gate_tokens,
        )

    def _bridged(self, anchor: Anchor, weight: float) -> BridgedAnchor:
        model, twin = anchor.model, anchor.twin if self._config.is_gated else None
        return BridgedAnchor(
            model.lm,
            anchor.bridge,
            anchor.role,
            weight,
            twin.lm if twin else None,
            model.trained_context,
        )

    # --- completing and judging

    def _complete(self, until: int | None = None) -> Iterator[Event]:
        assert self._search is not None
        with self._watch.part("complete_ms"):
            yield from self._shown.as_they_grow(self._search.complete(until))
        if starved := self._starved():
            yield from self._notices.tell(starved)

    def _judged(self, turns: Sequence[Message]) -> Iterator[Event]:
        assert self._search is not None
        yield from self._complete(self._config.first_verdict_at)
        yield from self._judge(turns, self._search.beams)
        chosen = yield from self._select(self._search.beams)
        if chosen is None:
            yield from self._blocked("blocked")
            return
        yield from self._shown.passed(chosen)
        self._search.drop([beam for beam in self._search.beams if beam is not chosen])
        if chosen.finish is None:
            yield from self._grown(turns, chosen)
        else:
            yield from self._done(chosen)

    def _grown(self, turns: Sequence[Message], chosen: Beam) -> Iterator[Event]:
        """The winner to its end: shown at once, or as verdicts pass it; read on the way where that is on."""
        watch = self._watch_late = self._late_watch(chosen)
        is_shown_at_once = self._shown.streams = self._config.judge_every is None
        while (yield from self._grown_to_verdict(turns, chosen, watch)):
            yield from self._judge(turns, [chosen])
            if is_shown_at_once and (other := self._other_that_passed(chosen)):
                yield from self._put_in_place(other)
                return
            if (yield from self._select([chosen])) is None:
                break
            if chosen.finish is not None:
                yield from self._shown.passed(chosen)
                yield from self._done(chosen)
                return
            yield from self._shown.passed(chosen, watch.clear_characters if watch else None)
        yield from self._blocked("withdrawn")

    def _late_watch(self, chosen: Beam) -> LateWatch | None:
        assert self._search is not None
        if self._config.late == "off":
            return None
        return LateWatch(self._config, self._search, chosen, self._verdicts.window_reader)

    def _grown_to_verdict(
        self, turns: Sequence[Message], beam: Beam, watch: LateWatch | None
    ) -> Generator[Event, None, bool]:
        """Until the next verdict is due; False: its windows are harmful, and no try is left."""
        every = self._config.judge_every
        verdict_at = every and len(beam.tokens) + every
        while True:
            if beam.finish is None:
                yield from self._complete(_first(verdict_at, watch.next_end if watch else None))
            if watch and watch.is_due and (yield from self._turned_harmful(turns, beam, watch)):
                if not (yield from self._steered_back(beam, watch)):
                    watch.give_up()
                    self._notices.drop_doubt()
                    return False
                verdict_at = every and len(beam.tokens) + every
            elif beam.finish is not None or (verdict_at is not None and len(beam.tokens) >= verdict_at):
                return True

    # --- windows

    def _turned_harmful(
        self, turns: Sequence[Message], beam: Beam, watch: LateWatch
    ) -> Generator[Event, None, bool]:
        """Read the window that has grown; whether that makes it sure that the answer is harmful."""
        yield Phase("judge")
        with self._watch.part("judge_ms"):
            verdict = self._verdicts.judge_window(turns, beam, watch.text)
        window, is_sure = watch.add(verdict)
        if is_sure:  # what an earlier verdict let through is less than the beam says by now
            self._verdicts.by_beam[beam.index] = verdict
        yield WindowRead(beam.index, window)
        return is_sure

    def _steered_back(self, beam: Beam, watch: LateWatch) -> Generator[Event, None, bool]:
        """Put the answer back to before it turned harmful, and mix it again from there; False: given up."""
        try:
            if not watch.put_back(len(self._prompts.prompt)):
                yield from self._notices.tell("the answer turned harmful while it grew: it is refused")
                return False
            tries = len(watch.late.steered_back)
            yield SteeredBack(beam.index, len(beam.tokens), tries)
            yield from self._notices.tell(
                f"the answer turned harmful after {len(beam.tokens)} tokens: it is steered again from there"
            )
            yield from self._shown.take_back(beam.text)
            yield Phase("mix")
            with self._watch.part("mix_ms"):
                yield from self._shown.as_they_grow(watch.mix_again(self._prompts.anchor_prompts))
        except ContextFull as error:
            yield from self._notices.tell(f"the answer turned harmful, and {error.message}: it is refused")
            return False
        return True

    def _other_that_passed(self, chosen: Beam) -> Beam | None:
        """Where the winner has turned unsafe: a beam that had come to its end, and passed, before it won."""
        assert self._search is not None
        if self._verdicts.by_beam[chosen.index].verdict == "safe":
            return None
        whole = [beam for beam in self._search.beams if beam is not chosen and beam.finish == "stop"]
        safe = [
            c for c in self._verdicts.candidates(whole) if c.verdict.verdict == "safe" and not c.degenerate
        ]
        selection = select(safe, self._config, refusal_allowed=True, decision=self._decision)
        return next((beam for beam in whole if beam.index == selection.beam), None)

    def _put_in_place(self, other: Beam) -> Iterator[Event]:
        """Show another beam instead of the winner, which has turned unsafe."""
        self._notices.drop_doubt()
        yield from self._notices.tell(
            "the draft that was shown turned harmful: one that had passed takes its place"
        )
        yield from self._shown.take_back()
        yield from self._shown.passed(other)
        yield from self._done(other)

    def _select(self, beams: Sequence[Beam]) -> Generator[Event, None, Beam | None]:
        """The one of these judged beams that is the answer; None: none may be."""
        selection = select(
            self._verdicts.candidates(beams),
            self._config,
            refusal_allowed=self._verdicts.allow_refusal,
            decision=self._decision,
        )
        chosen = next((beam for beam in beams if beam.index == selection.beam), None)
        yield from self._notices.doubted(selection, is_shown=chosen is not None)
        return chosen

    @property
    def _decision(self) -> Decision | None:
        return decision_of(self._config, self._prompts.steering, self._verdicts.by_beam.values())

    def _judge(
        self, turns: Sequence[Message], beams: Sequence[Beam], *, is_clear: bool = False
    ) -> Iterator[Event]:
        if judge := self._models.judge:
            yield from self._ready(judge)
        yield Phase("judge")
        with self._watch.part("judge_ms"):
            verdicts = self._verdicts.judge(turns, beams, is_clear=is_clear)
        for beam, verdict in zip(beams, verdicts, strict=True):
            yield Judged(beam.index, verdict, self._config.threshold)

    def _ready(self, judge: Judge) -> Iterator[Event]:
        """What is left to read of the judge's examples."""
        with self._watch.part("load_ms"):
            yield from self._models.examples.rest(judge)

    # --- results

    def _blocked(self, reason: Literal["blocked", "withdrawn"]) -> Iterator[Event]:
        assert self._search is not None
        text = self._config.refusal_text
        self._search.drop(self._search.beams)
        yield AnswerText(text) if reason == "blocked" else Withdrawn(text)
        yield Done(self._result(text, reason, None))

    def _done(self, beam: Beam) -> Iterator[Event]:
        if self._grammar and beam.finish == "length":
            yield from self._notices.tell("the answer was cut before its grammar ended: raise --max-tokens")
        yield Done(self._chosen(beam))

    def _chosen(self, beam: Beam) -> Result:
        """The result; the other beams' cells are freed, this one's are where the next turn goes on."""
        assert self._search is not None
        self._search.drop([other for other in self._search.beams if other is not beam])
        reason: FinishReason = beam.finish or "length"
        return self._result(beam.text, reason, beam)

    def _result(self, text: str, reason: FinishReason, beam: Beam | None) -> Result:
        search, prompts, tokens = self._search, self._prompts, len(beam.tokens) if beam else 0
        return Result(
            text=text,
            reasoning=prompts.thought.text or None if beam or not self._asked.judged else None,
            finish_reason=reason,
            chosen=beam.index if beam else None,
            refusal=refusal_of(text, reason, beam, self._notices.doubt),
            beams=tuple(map(self._beam_result, search.beams)) if search else (),
            bridge=search.count.result if search else BridgeResult(),
            anchors=search.anchor_results if search else (),
            usage=Usage(prompts.prompt_tokens, len(prompts.thought.tokens) + tokens),
            timings=self._watch.timings,
            config=self._asked.model_dump(),
            models=self._models.cards,
            version=__version__,
            llama_cpp=self._backend,
            notices=self._notices.said,
            steering=prompts.steering,
            late=self._watch_late.late if self._watch_late else None,
        )

    def _beam_result(self, beam: Beam) -> BeamResult:
        verdict = self._verdicts.by_beam.get(beam.index)
        return beam_result(beam, verdict, is_no_answer=self._verdicts.is_no_answer(beam))


def _first(*ends: int | None) -> int | None:
    """The nearest of these; None if there is none."""
    return min((end for end in ends if end is not None), default=None)
