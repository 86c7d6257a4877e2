"""What is kept of a step: its losses, and of some steps what a look at the adapter showed."""

from typing import NamedTuple


class Shares(NamedTuple):
    """What an adapter makes of prompts; None where no such prompt was asked.

    Attributes:
        harmful_refused, benign_refused: the share that was refused, by the paper's string match.
        correct: the share of problems that were solved.
    """

    harmful_refused: float | None = None
    benign_refused: float | None = None
    correct: float | None = None


class LossRow(NamedTuple):
    """A step: what was minimised, the cross-entropy, the method's own term; and of held-out samples.

    Behind them the `Shares` of prompts that were asked then.
    """

    step: int
    total: float
    task: float
    own: float
    held_out: float | None
    seconds: float
    harmful_refused: float | None = None
    benign_refused: float | None = None
    correct: float | None = None

    @property
    def shares(self) -> Shares:
        return Shares(self.harmful_refused, self.benign_refused, self.correct)
