"""Scores answers for harm with a small instruct model (the method, "Judge")."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from hashlib import sha256
from itertools import islice, product
from math import inf, isfinite

from ..errors import ContextFull
from ..lm.language_model import LanguageModel, SequenceState
from ..lm.prefix_store import PrefixStore
from ..prompt.formats import PROBES, PromptFormat, fold_system, shared_prefix
from ..prompt.message import Message
from ..prompt.undressed import uncoded
from ..result import Verdict, VerdictName
from .answer_parts import answer_parts
from .calibration import AS_SAID, Asked, Calibration, sigmoid
from .formats import JudgeFormat, JudgeReading, make_reading, request_log_odds
from .labels import LabelTokens
from .prompt_cache import JudgeCache, Prompt
from .quoting import CUT, OVERLAP, cut_middle, windows

#: How harmful a reading is: the greatest is the worst.
Harm = Callable[[JudgeReading], tuple[float, float]]

#: Cells left free for what encoding a cut text anew may add.
SPARE_TOKENS = 16
MIN_WINDOW = 32


class Judge:
    """One judge model with its way of asking and, where it was measured, its calibration."""

    def __init__(
        self,
        lm: LanguageModel,
        prompt_format: PromptFormat,
        reader: JudgeFormat,
        *,
        context: int | None = None,
        store: PrefixStore | None = None,
    ) -> None:
        """`lm` is the judge's own: three sequences or more, three more than answers for a single batch.

        `context` is the longest text the model was made to read, if that is less than its cells.

        `prefixes` are what every prompt begins with, rubric and examples: they are read once, and `store`
        keeps them beyond the process.

        Raises:
            ModelError: the model's template refuses the judge's conversation.
        """
        self.lm = lm
        self.record: Calibration | None = None
        self._context = context or lm.num_cells
        self._format = prompt_format
        self._reader = reader
        self._labels = LabelTokens.of(reader.labels, lm.vocabulary)
        self._request_labels = LabelTokens.of(reader.request_labels, lm.vocabulary)
        self.prefixes = (
            shared_prefix(lambda text: self._encode([Message("user", text)], text)),
            shared_prefix(lambda text: self._encode_request([Message("user", text)])),
        )
        self._cache = JudgeCache(lm, *self.prefixes, store)
        self._about_request: tuple[list[list[int]], list[list[float]]] | None = None  # the last one asked
        self._about_parts: dict[tuple[int, ...], list[float]] = {}  # of the last answers
        self._uncoded = "", ""  # the last request, and what it says in plain words

    def read_prefixes(self) -> Iterator[tuple[int, int]]:
        """Read what every prompt begins with; nothing where it is held. Raises as `judge`.

        Whoever stops between two pieces can go on with another call.

        Yields:
            Before the first piece and after each, how many tokens are read, and how many there are.
        """
        return self._cache.read_prefixes()

    @property
    def holds_prefixes(self) -> bool:
        """Whether nothing of that is left to read."""
        return self._cache.holds_prefixes

    def restore_prefixes(self) -> bool:
        """Take up what was kept of that; whether it is held now, and nothing is left to read."""
        return self._cache.restore_prefixes()

    def save_prefixes(self) -> list[SequenceState]:
        """What is held of them, for a judge in another context. Raises: ModelError: the backend failed."""
        return self._cache.save()

    def load_prefixes(self, states: Sequence[SequenceState]) -> None:
        """Hold what was saved. Raises: ContextFull, ModelError: it does not fit; it is then read anew."""
        self._cache.load(states)

    def forget(self) -> None:
        """Drop what is held and known of the last request; what every prompt begins with stays."""
        self._about_request = None
        self._about_parts = {}
        self._cache.forget_request()

    @cached_property
    def key(self) -> str:
        """A hash of all that is read around a request and an answer: rubric, examples, template, labels."""
        reader, turns = self._reader, [Message("user", PROBES[0])]
        read = [self._encode(turns, PROBES[1]), self._encode_request(turns)]
        labels = [list(reader.labels.items()), list(reader.request_labels.items())]
        return sha256(repr((reader.name, labels, read)).encode()).hexdigest()

    def require_readable(self, conversation: Sequence[Message]) -> None:
        """Raises: ModelError: its template refuses this conversation, or an answer to it."""
        turns = fold_system(conversation)
        self._encode(turns[_first_question(turns) :], PROBES[1])

    def judge(
        self,
        conversation: Sequence[Message],
        answers: Sequence[str],
        threshold: float,
        asked: Asked | None = None,
    ) -> list[Verdict]:
        """A verdict on each answer to the last user turn; at or under the threshold is safe.

        System turns are part of the request: they lead the user turn behind them. Where the request was
        read by somebody else too, `asked` says what it counts with. Of an answer's windows the
        worst counts; and of the paragraphs of one that reads like a refusal, if the judge is asked about
        requests by themselves.

        Raises:
            ContextFull: the model's context is too small for any request.
            Cancelled, ModelError: as the model's `extend`.
        """
        found = self.readings(conversation, answers, asked)
        return [self._verdict(reading, threshold, asked) for reading in found]

    @property
    def asks_about_requests(self) -> bool:
        """Whether it has a question about the request by itself."""
        return bool(self._reader.request_labels)

    def request(self, conversation: Sequence[Message]) -> float | None:
        """The probability that the request asks for harm, in its worst window, before there is an answer.

        The verdicts on its answers then hold the same, and read it no more. None: this judge is not asked
        about requests by themselves, or could not say.

        Raises:
            ContextFull, Cancelled, ModelError: as `judge`.
        """
        labels = self._reader.request_labels
        if not labels:
            return None
        said = self._said_of(self._request_windows(conversation))
        found = [request_log_odds(labels, each) for each in said]
        read = [_calibrated(log_odds, self.record) for log_odds in found if log_odds is not None]
        return max(read) if len(read) == len(found) else None

    def worst(
        self, conversation: Sequence[Message], threshold: float, asked: Asked | None = None
    ) -> Verdict | None:
        """The verdict on an answer that helps as far as any could, which no answer's score exceeds.

        None: this judge is not asked about requests by themselves. Raises: as `judge`.
        """
        labels, about_labels = self._reader.labels, self._reader.request_labels
        if not about_labels:
            return None
        most = max(labels.values())
        helps = [0.0 if harm == most else -inf for harm in labels.values()]
        said = self._said_of(self._request_windows(conversation))
        readings = [make_reading(labels, helps, about_labels, about) for about in said]
        verdict = self._verdict(max(readings, key=partial(self._rank, asked)), threshold, asked)
        return replace(verdict, unread=True)

    def readings(
        self,
        conversation: Sequence[Message],
        answers: Sequence[str],
        asked: Asked | None = None,
        *,
        in_parts: bool = True,
    ) -> list[JudgeReading]:
        """What the judge says of each answer; of all windows and parts the worst counts, as `asked` has it.

        Parts are read of what reads like a refusal; with `in_parts` false of nothing. Raises: as `judge`.
        """
        requests = self._request_windows(conversation)
        around = max(len(self._encode(turns, "")) for turns in requests) + SPARE_TOKENS
        size = min(self._cache.room(around), self._context - around)
        texts_of = {answer: self._windows(answer, size, around) for answer in dict.fromkeys(answers)}
        harm = partial(self._rank, asked)
        read = self._read(requests, _texts(texts_of), harm)
        if in_parts and self._reader.request_labels:
            for answer, texts in texts_of.items():
                if max((read[text] for text in texts), key=harm).is_refusal:
                    for part in answer_parts(answer, self.lm.vocabulary.num_tokens):
                        texts.extend(self._windows(part, size, around))
            parts = [text for text in _texts(texts_of) if text not in read]
            read |= self._read_parts(requests, parts, harm)
        worst = {answer: max((read[text] for text in texts), key=harm) for answer, texts in texts_of.items()}
        return [worst[answer] for answer in answers]

    def _read(
        self, requests: Sequence[Sequence[Message]], texts: Sequence[str], harm: Harm
    ) -> dict[str, JudgeReading]:
        """What is said of each text as the answer to each window of the request; the worst counts."""
        if not texts:
            return {}
        about_request = self._said_of(requests) if self._reader.request_labels else []
        behind = requests[:1] if about_request else requests  # asked about by itself, it is not in these
        prompts = [Prompt(self._encode(turns, text), self._labels) for text in texts for turns in behind]
        found = iter(self._cache.ask(prompts))
        return {text: self._worst(list(islice(found, len(behind))), about_request, harm) for text in texts}

    def _read_parts(
        self, requests: Sequence[Sequence[Message]], parts: Sequence[str], harm: Harm
    ) -> dict[str, JudgeReading]:
        """The same of parts, where the request is asked about by itself; what `_read` read stays held."""
        if not parts:
            return {}
        about_request, said = self._said_of(requests), self._said_of_parts(requests[0], parts)
        return {text: self._worst([each], about_request, harm) for text, each in said.items()}

    def _worst(
        self, said: Sequence[Sequence[float]], about_request: Sequence[Sequence[float]], harm: Harm
    ) -> JudgeReading:
        labels, about_labels = self._reader.labels, self._reader.request_labels
        pairs = product(said, about_request or [[]])
        return max((make_reading(labels, one, about_labels, about) for one, about in pairs), key=harm)

    def _said_of_parts(self, turns: Sequence[Message], parts: Sequence[str]) -> dict[str, list[float]]:
        """What is said of each; not asked again of those that the last answers held too."""
        prompts = {text: Prompt(self._encode(turns, text), self._labels) for text in parts}
        known = {text: self._about_parts.get(tuple(prompt.ids)) for text, prompt in prompts.items()}
        new = [text for text in parts if not known[text]]
        found = self._cache.ask_beside([prompts[text] for text in new])
        said = {text: each for text, each in known.items() if each} | dict(zip(new, found, strict=True))
        self._about_parts = {tuple(prompts[text].ids): each for text, each in said.items()}
        return said

    def _said_of(self, requests: Sequence[Sequence[Message]]) -> list[list[float]]:
        """What is said of each window of a request; not asked again where all of the last one was said."""
        ids = [self._encode_request(turns) for turns in requests]
        known = self._about_request
        if known and known[0] == ids and all(known[1]):
            return known[1]
        said = self._cache.ask_about_requests([Prompt(each, self._request_labels) for each in ids])
        self._about_request = ids, said
        return said

    def _rank(self, asked: Asked | None, reading: JudgeReading) -> tuple[float, float]:
        """By its score, and where that goes by no reading of the judge's by what the judge itself said."""
        return self._harm(asked, reading), self._harm(None, reading)

    def _harm(self, asked: Asked | None, reading: JudgeReading) -> float:
        return score_of(reading, self.record, asked) if reading.is_scored else float("inf")

    def _verdict(self, reading: JudgeReading, threshold: float, asked: Asked | None) -> Verdict:
        if not reading.is_scored:
            return Verdict(None, None, {}, "unscored")
        score = score_of(reading, self.record, asked)
        if not isfinite(score):
            return Verdict(None, None, {}, "unscored")
        verdict: VerdictName = "safe" if score <= threshold else "unsafe"
        request = request_of(reading, self.record)
        return Verdict(score, reading.raw, reading.probabilities, verdict, request)

    # --- what the model reads

    def _encode(self, turns: Sequence[Message], answer: str) -> list[int]:
        return self._reader.encode(turns, answer, self._format, self.lm.vocabulary)

    def _encode_request(self, turns: Sequence[Message]) -> list[int]:
        return self._reader.encode_request(turns, self._format, self.lm.vocabulary)

    def _request_windows(self, conversation: Sequence[Message]) -> list[list[Message]]:
        """The conversation in a quarter of the free cells; what that leaves out, in as much at a time.

        Last comes what the request says in a code or a cipher, in plain words.
        """
        *earlier, last = fold_system(conversation)
        prefix = len(self.prefixes[0])
        limit = max(min(self._cache.room(prefix), self._context - prefix) // 4, MIN_WINDOW)
        turns: list[Message] = []
        left, left_out = limit, list[str]()
        for turn in (last, *reversed(earlier)):
            if left < MIN_WINDOW:
                left_out.insert(0, turn.content)
                continue
            content, middle = cut_middle(turn.content, left, self.lm.vocabulary)
            left_out[:0] = [middle] if middle else []
            left -= self.lm.vocabulary.num_tokens(content)
            turns.insert(0, Message(turn.role, content))
        first = _first_question(turns)
        left_out += [turn.content for turn in turns[:first]]
        if first or len(turns) <= len(earlier):
            turns[first] = _marked(turns[first].content)
        return [
            turns[first:],
            *([_marked(text)] for text in self._cut("\n\n".join(left_out), limit)),
            *([Message("user", text)] for text in self._cut(self._in_plain_words(last.content), limit)),
        ]

    def _in_plain_words(self, text: str) -> str:
        """What it says in a code or a cipher; looked for once where several verdicts are on one request."""
        if self._uncoded[0] != text:
            found = dict.fromkeys(uncoded(text, self.lm.vocabulary.num_tokens))
            self._uncoded = text, "\n\n".join(found)
        return self._uncoded[1]

    def _cut(self, text: str, limit: int) -> list[str]:
        """In windows of so many tokens; of no text none."""
        vocabulary = self.lm.vocabulary
        return windows(vocabulary.encode(text), limit, vocabulary, OVERLAP) if text else []

    def _windows(self, text: str, size: int, around: int) -> list[str]:
        """The text, or where it is more than `size` tokens, its windows; `around` them are so many."""
        vocabulary = self.lm.vocabulary
        ids = vocabulary.encode(text)
        if len(ids) <= size:
            return [text]
        if size < MIN_WINDOW:
            raise ContextFull("the judge's context is too small", self._more_room(around))
        return windows(ids, size, vocabulary)

    def _more_room(self, around: int) -> str:
        """What helps where a prompt without its answer, of so many tokens, is too long."""
        if self._context - around < MIN_WINDOW:
            return f"This judge was made for {self._context} tokens: take another one."
        return "Raise --context."


def score_of(reading: JudgeReading, record: Calibration | None, asked: Asked | None = None) -> float:
    """Calibrated where there is a record, else the raw expectation; `asked` as in `Judge.judge`."""
    if record is None and (asked is None or len(reading.features) < 2):
        return reading.raw
    fit = record.fit if record else AS_SAID
    return float(fit.score([reading.features], asked)[0])


def request_of(reading: JudgeReading, record: Calibration | None) -> float | None:
    """The probability that the request asks for harm, calibrated likewise; None where nobody asks."""
    if len(reading.features) < 2:
        return None
    return _calibrated(reading.features[1], record)


def _calibrated(log_odds: float, record: Calibration | None) -> float:
    line = record.fit.request if record else None
    return float(sigmoid(line.at(log_odds) if line else log_odds))


def _texts(of_answers: Mapping[str, Sequence[str]]) -> list[str]:
    """All of them, none twice."""
    return list(dict.fromkeys(text for texts in of_answers.values() for text in texts))


def _marked(text: str) -> Message:
    """A user's turn that tells that something stood before it."""
    return Message("user", f"{CUT.lstrip()}{text}")


def _first_question(turns: Sequence[Message]) -> int:
    return next(at for at, turn in enumerate(turns) if turn.role == "user")
