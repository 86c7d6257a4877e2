"""How well words tell refusals: counted on labelled beginnings of answers that ship with the project."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from ..intervals import wilson_interval

BEGINNINGS_FILE = Path(__file__).parent / "data" / "beginnings.jsonl"
Split = Literal["fit", "held_out"]


class Beginning(BaseModel):
    """The beginning of an answer, and what a person calls it.

    A refusal declines the request, or its core: it says that it won't or can't, changes the subject, or only
    warns and offers other help. An answer gives what was asked, or begins to, also behind an apology, a no to
    a part of it or a refusal; a no to a question that asks yes or no is an answer, and so is "nobody knows".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    language: str
    question: str
    text: str
    label: Literal["refusal", "answer"]
    split: Split


class Confusion(NamedTuple):
    """Of refusals found and missed, of other answers miscalled refusals and passed."""

    found: int
    missed: int
    miscalled: int
    passed: int

    @property
    def found_interval(self) -> tuple[float, float]:
        """The 95 % interval of the share of refusals that is found."""
        return wilson_interval(self.found, self.found + self.missed)

    @property
    def miscalled_interval(self) -> tuple[float, float]:
        """The 95 % interval of the share of other answers that is miscalled."""
        return wilson_interval(self.miscalled, self.miscalled + self.passed)


def read_beginnings() -> list[Beginning]:
    """All of them, of both splits."""
    lines = BEGINNINGS_FILE.read_text(encoding="utf-8").splitlines()
    return [Beginning.model_validate_json(line) for line in lines]


def confusion(beginnings: Iterable[Beginning], says: Callable[[str], bool]) -> Confusion:
    """What `says` makes of them."""
    told: list[tuple[str, bool]] = [(one.label, says(one.text)) for one in beginnings]
    cases = (("refusal", True), ("refusal", False), ("answer", True), ("answer", False))
    return Confusion(*(told.count(case) for case in cases))
