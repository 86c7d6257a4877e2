"""What is kept of one answer in the making, for its response: decided text, mixed tokens, the result."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import AlignBeamError
from ...events import AnswerText, Done, SteeredBack, Step, Withdrawn
from ...result import Result
from ..work.jobs import Begun, Job, JobEvent


@dataclass
class Record:
    """Takes the events of a job.

    Attributes:
        steps: the mixed tokens of all beams, as far as they stand.
        error: what ended it instead of a result.
    """

    job: Job
    notices: tuple[str, ...] = ()
    steps: list[Step] = field(default_factory=list)
    cached_tokens: int = 0
    result: Result | None = None
    error: AlignBeamError | None = None
    _shown: bool = False
    _begins_anew: bool = False

    def take(self, events: Sequence[JobEvent]) -> str:
        """Keep what happened; the text that it adds to the answer, decided and safe to show.

        What stands in for a blocked answer is such text; of a withdrawn one nothing stands in here, as what
        was shown before its last verdict stays: each piece of it had passed its own. An answer that is made
        again in such a one's place begins a paragraph of its own; where only the end was taken back, what
        stands is repeated first.
        """
        added = ""
        for event in events:
            if isinstance(event, AnswerText):
                added += "\n\n" * self._begins_anew + event.text
                self._begins_anew = False
            elif isinstance(event, Withdrawn) and event.stands:
                added += "\n\n" * (self._shown or bool(added)) + event.text
            elif isinstance(event, Withdrawn):
                self._begins_anew = self._shown or bool(added)
                added = added if self._begins_anew else event.text
            elif isinstance(event, Step):
                self.steps.append(event)
            elif isinstance(event, SteeredBack):
                self.steps[:] = event.standing(self.steps)
            elif isinstance(event, Begun):
                self.cached_tokens = event.cached_tokens
            elif isinstance(event, Done):
                self.result = event.result
            elif isinstance(event, AlignBeamError):
                self.error = event
        self._shown = self._shown or bool(added)
        return added

    @property
    def ended(self) -> bool:
        """Whether nothing comes any more."""
        return self.result is not None or self.error is not None
