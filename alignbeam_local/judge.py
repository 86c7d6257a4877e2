"""Scores answers for harm with a small instruct model: one prefix for all requests, one batch for all."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256

from .calibration import Calibration
from .errors import ContextFull
from .events import Verdict
from .judge_labels import LabelTokens
from .judge_readers import Reader, Reading, label_reading
from .lm import LanguageModel, Logits, common_prefix
from .prompt import Message, PromptFormat
from .rubric import cut_middle

PREFIX, REQUEST, FIRST_ANSWER = 0, 1, 2

#: Cells left free for what encoding a cut text anew may add.
SPARE_TOKENS = 16
MIN_WINDOW = 32


class Judge:
    """One judge model with its way of asking and, where it was measured, its calibration.

    Sequence 0 holds what is the same in every request, 1 the request, the others the answers forked from it.
    """

    def __init__(
        self,
        lm: LanguageModel,
        prompt_format: PromptFormat,
        reader: Reader,
        record: Calibration | None = None,
    ) -> None:
        """`lm` needs three sequences or more, and is the judge's own."""
        self.lm = lm
        self.record = record
        self._format = prompt_format
        self._reader = reader
        self._labels = LabelTokens.of(reader.labels, lm.vocabulary)

    @cached_property
    def prefix(self) -> list[int]:
        """What every prompt of this judge begins with: rubric and examples."""
        one, other = (self._encode([Message("user", text)], text) for text in ("One?", "Another!"))
        return one[: common_prefix(one, other)]

    @cached_property
    def key(self) -> str:
        """A hash of all that is read around a request and an answer: rubric, examples, template, labels."""
        probe = self._encode([Message("user", "One?")], "Another!")
        return sha256(repr((self._reader.name, dict(self._reader.labels), probe)).encode()).hexdigest()

    def judge(
        self, conversation: Sequence[Message], answers: Sequence[str], threshold: float
    ) -> list[Verdict]:
        """A verdict on each answer to the last user turn; at or under the threshold is safe.

        Raises:
            ContextFull: the model's context is too small for any request.
            Cancelled, ModelError: as the model's `extend`.
        """
        return [self._verdict(reading, threshold) for reading in self.readings(conversation, answers)]

    def readings(self, conversation: Sequence[Message], answers: Sequence[str]) -> list[Reading]:
        """What the judge says of each answer; the worst of its windows. Raises as `judge`."""
        turns = self._cut_turns(conversation)
        windows = {answer: self._windows(turns, answer) for answer in dict.fromkeys(answers)}
        prompts = {text: self._encode(turns, text) for texts in windows.values() for text in texts}
        read = self._read(prompts)
        worst = {
            answer: max((read[text] for text in texts), key=self._harm) for answer, texts in windows.items()
        }
        return [worst[answer] for answer in answers]

    def score(self, reading: Reading) -> float:
        """Calibrated where there is a record, else the raw expectation."""
        return self.record.score(reading.features) if self.record else reading.raw

    def _harm(self, reading: Reading) -> float:
        return self.score(reading) if reading.is_scored else float("inf")

    def _verdict(self, reading: Reading, threshold: float) -> Verdict:
        if not reading.is_scored:
            return Verdict(None, None, {}, "unscored")
        score = self.score(reading)
        return Verdict(score, reading.raw, reading.probabilities, "safe" if score <= threshold else "unsafe")

    def _encode(self, turns: Sequence[Message], answer: str) -> list[int]:
        return self._reader.encode(turns, answer, self._format, self.lm.vocabulary)

    # --- room

    def _cut_turns(self, conversation: Sequence[Message]) -> list[Message]:
        """The conversation in at most half of the free cells: what is over-long loses its middle."""
        *earlier, last = [turn for turn in conversation if turn.role != "system"]
        left = max((self.lm.num_cells - len(self.prefix)) // 2, MIN_WINDOW)
        turns: list[Message] = []
        for turn in (last, *reversed(earlier)):
            content = cut_middle(turn.content, left, self.lm.vocabulary)
            left -= len(self.lm.vocabulary.encode(content))
            turns.insert(0, Message(turn.role, content))
            if left < MIN_WINDOW:
                break
        return turns

    def _windows(self, turns: Sequence[Message], answer: str) -> list[str]:
        """The answer, or where it does not fit beside the request, its parts."""
        vocabulary = self.lm.vocabulary
        ids = vocabulary.encode(answer)
        around = len(self._encode(turns, "")) + SPARE_TOKENS
        size = self.lm.num_cells - self._held_cells(around) - (around if self._copies else 0)
        if len(ids) <= size:
            return [answer]
        if size < MIN_WINDOW:
            raise ContextFull("the judge's context is too small", "Raise --context.")
        parts = [ids[start : start + size] for start in range(0, len(ids), size)]
        return [vocabulary.pieces(part).decode("utf-8", "replace") for part in parts]

    @property
    def _copies(self) -> bool:
        return self.lm.kv_strategy == "state"

    def _held_cells(self, request: int) -> int:
        """Cells that prefix and request take, the latter of so many tokens with its prefix."""
        return request + len(self.prefix) if self._copies else request

    # --- asking

    def _read(self, prompts: Mapping[str, list[int]]) -> dict[str, Reading]:
        """Ask about each text; its prompt's ids are given."""
        if not prompts:
            return {}
        shared = self._hold_request(list(prompts.values()))
        readings: dict[str, Reading] = {}
        for group in self._groups(prompts, shared):
            readings |= self._read_group({text: prompts[text][shared:] for text in group})
        return readings

    def _hold_request(self, prompts: Sequence[Sequence[int]]) -> int:
        """Make sequence 1 hold what all the prompts begin with; returns how many tokens that is."""
        lm, first = self.lm, prompts[0]
        shared = min(min(common_prefix(first, ids), len(ids) - 1) for ids in prompts)
        if list(lm.tokens(PREFIX)) != self.prefix:
            self._clear(REQUEST)
            lm.set_tokens({PREFIX: self.prefix})
            lm.checkpoint(PREFIX)
        lm.fork(PREFIX, [REQUEST])
        if list(first[:shared]) != self.prefix:
            lm.set_tokens({REQUEST: first[:shared]})
        return shared

    def _groups(self, prompts: Mapping[str, Sequence[int]], shared: int) -> Iterator[list[str]]:
        """As many texts at a time as there are sequences and cells for."""
        lm, group, used = self.lm, list[str](), 0
        free = lm.num_cells - self._held_cells(shared)
        for text, ids in prompts.items():
            cost = len(ids) if self._copies else len(ids) - shared
            if group and (used + cost > free or len(group) == lm.num_sequences - FIRST_ANSWER):
                yield group
                group, used = [], 0
            group.append(text)
            used += cost
        yield group

    def _read_group(self, tails: Mapping[str, Sequence[int]]) -> dict[str, Reading]:
        lm = self.lm
        sequences = dict(enumerate(tails, FIRST_ANSWER))
        try:
            lm.fork(REQUEST, sequences)
            lm.extend({sequence: tails[text] for sequence, text in sequences.items()})
            rows = {sequence: lm.logits(sequence).copy() for sequence in sequences}
            return {text: self._reading(sequence, rows[sequence]) for sequence, text in sequences.items()}
        finally:
            self._clear(FIRST_ANSWER)

    def _reading(self, sequence: int, row: Logits) -> Reading:
        return label_reading(self._reader.labels, self._labels.log_likelihoods(self.lm, sequence, row))

    def _clear(self, start: int) -> None:
        for sequence in range(start, self.lm.num_sequences):
            self.lm.truncate(sequence, 0)
