"""What judge and answer head say of the beams of one answer."""

from collections.abc import Sequence
from functools import reduce

from ...config import Config
from ...heads.answer_head import worse
from ...heads.features import turn_end
from ...heads.reading import read_answers
from ...judge.calibration import Asked
from ...judge.judge import Judge
from ...judge.quoting import with_reasoning
from ...knobs.judging import LateReader
from ...lm.grammar import grammar_of
from ...prompt.message import Message
from ...refusals.detector import declines
from ...result import Verdict
from ...search.beam import Beam
from ...search.choices import Candidate
from ...search.refusals import is_degenerate
from ...search.steering import asked_of
from ..open_models import OpenModels
from .prompts import AnswerPrompts


class Verdicts:
    """The last verdict on each beam, and what a choice between beams goes by."""

    def __init__(self, models: OpenModels, config: Config, prompts: AnswerPrompts) -> None:
        """Nothing is judged yet."""
        self._models = models
        self._config = config
        self._prompts = prompts
        self._has_grammar = bool(grammar_of(config))
        self.by_beam: dict[int, Verdict] = {}
        self._worst: Verdict | None = None  # once it is known to be safe

    @property
    def allow_refusal(self) -> bool:
        """Whether the reader tells harmful from harmless well enough for no beam to be taken."""
        record = self._models.judge_record
        return record is not None and record.allows_refusal(self._config.threshold)

    @property
    def _asked(self) -> Asked | None:
        return asked_of(self._config.scored_by, self._prompts.steering)

    @property
    def window_reader(self) -> LateReader:
        """Who reads late harm: the head too where it is the judge, and then all that was said so far."""
        return "head" if self._models.judge is None else self._config.late

    def judge(
        self, turns: Sequence[Message], beams: Sequence[Beam], *, is_clear: bool = False
    ) -> list[Verdict]:
        """The judge's verdicts, or the answer head's; of both the worse.

        Args:
            is_clear: these answer a clear request, which may leave no answer unsafe: see `read_clear`.
        """
        found: list[list[Verdict]] = []
        if judge := self._models.judge:
            worst = self.safe_at_worst(judge, turns) if is_clear else None
            found.append([worst] * len(beams) if worst else self._by_judge(judge, turns, beams))
        if self._config.reads_answers:
            found.append(self._by_head(beams))
        verdicts = [reduce(worse, each) for each in zip(*found, strict=True)]
        self.by_beam.update((beam.index, verdict) for beam, verdict in zip(beams, verdicts, strict=True))
        return verdicts

    def _by_judge(self, judge: Judge, turns: Sequence[Message], beams: Sequence[Beam]) -> list[Verdict]:
        texts = [self._read_of(beam) for beam in beams]
        return judge.judge(turns, texts, self._config.threshold, self._asked)

    def safe_at_worst(self, judge: Judge, turns: Sequence[Message]) -> Verdict | None:
        """The verdict on every answer to a request that leaves none unsafe; None: it may, or all are read."""
        if self._config.read_clear == "always":
            return None
        if self._worst is None:
            worst = judge.worst(turns, self._config.threshold, self._asked)
            self._worst = worst if worst and worst.verdict == "safe" else None
        return self._worst

    def judge_window(self, turns: Sequence[Message], beam: Beam, window: str) -> Verdict:
        """The verdict of late harm's reader: nothing else has a say, and what can't be read is unscored.

        Args:
            window: what the window that grows now says.
        """
        judge, by = self._models.judge, self.window_reader
        if by == "head" or judge is None:
            return self._by_head([beam])[0]
        said = window if by == "window" else self._read_of(beam)
        return judge.judge(turns, [said], self._config.threshold, self._asked)[0]

    def candidates(self, beams: Sequence[Beam]) -> list[Candidate]:
        """Judged beams as a choice sees them."""
        return [self._candidate(beam) for beam in beams]

    def is_no_answer(self, beam: Beam) -> bool:
        """Whether it is empty or loops; with a grammar, which may want a loop, whether it is cut."""
        if self._has_grammar:
            return not beam.text.strip() or beam.finish == "length"
        return is_degenerate(beam.tokens, beam.text)

    def _candidate(self, beam: Beam) -> Candidate:
        return Candidate(
            beam.index,
            self.by_beam[beam.index],
            beam.logprob,
            self.is_no_answer(beam),
            declines(beam.text),
            beam.mixture_logprob,
            beam.anchor_logprob,
            beam.p_first,
        )

    def _read_of(self, beam: Beam) -> str:
        """What a judge reads of a beam: with what its draft thought before, and what it was made to say."""
        return with_reasoning(self._prompts.thought.text, (self._config.prefill or "") + beam.text)

    def _by_head(self, beams: Sequence[Beam]) -> list[Verdict]:
        head, draft = self._models.answer_head, self._models.draft
        assert head is not None
        if head.model_sha256 != draft.card.weights_sha256:  # another model is in the draft's place
            return [Verdict(None, None, {}, "unscored") for _ in beams]
        answers = {beam.sequence: [*self._prompts.prompt, *beam.tokens] for beam in beams}
        states = read_answers(draft.lm, answers, turn_end(draft.format, draft.lm.vocabulary))
        return [head.verdict(states[beam.sequence], self._config.threshold) for beam in beams]
