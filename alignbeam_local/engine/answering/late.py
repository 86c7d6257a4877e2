"""An answer that is read while it grows: its windows, and the places to which it can be put back."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...config import Config
from ...errors import ContextFull
from ...events import Event
from ...judge.windows import WindowRisk
from ...knobs.judging import LateReader
from ...prompt.text_stream import whole_characters
from ...result import Late, Verdict, Window
from ...search.beam import Beam
from ...search.beams import BeamSearch


class Mark(NamedTuple):
    """Where a window begins: what the beam had by then, in tokens and characters."""

    tokens: int
    characters: int
    mixed: int
    steered_at: int | None

    @classmethod
    def of(cls, beam: Beam) -> "Mark":
        return cls(len(beam.tokens), len(beam.text), beam.mixed, beam.steered_at)


class LateWatch:
    """The windows of one beam, from where it is now; what of it may stand, and how often it was put back."""

    def __init__(self, config: Config, search: BeamSearch, beam: Beam, by: LateReader) -> None:
        """The beam has passed a verdict: what it has so far is not read again. `by` reads its windows."""
        assert by != "off"
        self._config = config
        self._search = search
        self._beam = beam
        self._risk = WindowRisk()
        self._marks = [Mark.of(beam)]  # the last one that was clear, and where windows began since
        self._late = Late(by)
        self._mixed_again = 0  # tokens, at the last try
        self._keep()

    @property
    def late(self) -> Late:
        """What happened, for the result."""
        return self._late

    @property
    def next_end(self) -> int:
        """The token at which the window that grows now ends."""
        return self._marks[-1].tokens + self._config.late_every

    @property
    def is_due(self) -> bool:
        """Whether a window is whole; at the answer's end half of one is enough."""
        own = len(self._beam.tokens) - self._marks[-1].tokens
        return own >= self._config.late_every or (
            self._beam.finish is not None and 2 * own >= self._config.late_every
        )

    @property
    def clear_characters(self) -> int:
        """How much of the text no window speaks against: what may be shown for good."""
        return self._marks[0].characters

    @property
    def text(self) -> str:
        """What the window that grows now says."""
        tokens = self._beam.tokens[self._marks[-1].tokens :]
        return whole_characters(self._search.draft.vocabulary.pieces(tokens))

    def add(self, verdict: Verdict) -> tuple[Window, bool]:
        """The window that has grown, read; whether the answer has turned harmful."""
        is_sure = self._risk.add(verdict)
        start, end = self._marks[-1].tokens, len(self._beam.tokens)
        window = Window(start, end, verdict.score, verdict.verdict, self._risk.risk)
        self._late = self._late.with_window(window)
        if not is_sure:
            mark = Mark.of(self._beam)
            self._marks = [*self._marks, mark] if self._risk.in_a_row else [mark]
            self._keep()
        return window, is_sure

    def put_back(self, prompt_tokens: int) -> bool:
        """Take the beam back to before the first harmful window; False if there is no try left, or no anchor.

        Args:
            prompt_tokens: what its sequence of the draft holds before the answer.

        Raises:
            ContextFull: the draft can't be put back; or an anchor can't read what it says there, and as much
                as is to be mixed.
            ModelError, Cancelled: as the model's `truncate`.
        """
        if len(self._late.steered_back) >= self._config.late_tries or not self._search.anchors:
            return False
        mark = self._marks[0]
        try:
            self._search.rewind(self._beam, mark.tokens, prompt_tokens)
        except ContextFull as error:
            raise ContextFull("the draft can't be put back to before it", error.hint) from None
        self._search.anchors.require_room([self._beam], self._next_steps)
        self._beam.mixed, self._beam.steered_at = mark.mixed, mark.steered_at
        self._late = self._late.with_try(mark.tokens)
        self._marks, self._risk = [mark], WindowRisk()
        return True

    def mix_again(self, anchor_prompts: Sequence[Sequence[int]]) -> Iterator[Event]:
        """Mix tokens where the beam was put back to, at each try depth more than at the one before.

        The same tokens again would lead to the same answer, however many the knobs let be mixed.

        Raises:
            ContextFull: an anchor can't read all that the beam says.
            ModelError, Cancelled: as the models' `extend`.
        """
        beam, length = self._beam, len(self._beam.tokens)
        steps = self._next_steps
        before = len(beam.prefix_logprobs), len(beam.mixture_logprobs), len(beam.anchor_logprobs)
        try:
            yield from self._search.extend(anchor_prompts, steps=steps)
        except ContextFull as error:
            self._late = self._late.without_try()
            raise ContextFull("the anchor can't read it", error.hint) from None
        self._mixed_again = max(steps, len(beam.tokens) - length)
        # They are about the answer's start: what chose between beams.
        kept = beam.prefix_logprobs, beam.mixture_logprobs, beam.anchor_logprobs
        for logprobs, count in zip(kept, before, strict=True):
            del logprobs[count:]

    def give_up(self) -> None:
        """It is refused."""
        self._late = self._late.given_up()

    @property
    def _next_steps(self) -> int:
        """The tokens that the next try mixes at least."""
        return self._mixed_again + self._config.depth

    def _keep(self) -> None:
        """Where nothing is suspected a model that can't be cut saves its state."""
        if not self._risk.in_a_row:
            self._search.draft.checkpoint(self._beam.sequence)
