"""What became of the prompts of a run."""

from dataclasses import dataclass

from alignbeam_local.result import REPLACED, Result


@dataclass
class Tally:
    """Counts so far; a blocked prompt is not counted as refused too."""

    done: int = 0
    refused: int = 0
    blocked: int = 0
    failed: int = 0

    def count(self, result: Result) -> None:
        self.done += 1
        if result.finish_reason in REPLACED:
            self.blocked += 1
        elif result.refusal.is_refusal:
            self.refused += 1

    def count_failure(self) -> None:
        self.done += 1
        self.failed += 1

    def __str__(self) -> str:
        return f"{self.refused} refused, {self.blocked} blocked, {self.failed} failed"
