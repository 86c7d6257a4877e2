"""What `--injections` does with a judge: answers as they are, and then with texts in them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignbeam_local.config import Config

from ..console.waiting import tracked

if TYPE_CHECKING:
    from alignbeam_local.judge.check import Pair
    from alignbeam_local.judge.injections import JudgeAnswers, JudgedInjection, Reading


def with_injections(
    judge: "JudgeAnswers", pairs: "Sequence[Pair]", config: Config, read: "Reading | None" = None
) -> "tuple[list[JudgedInjection], list[JudgedInjection]]":
    """The verdicts on the pairs that comply, and on those that are unsafe once more, with injections.

    Raises:
        ModelError: the judge calls none of them unsafe.
    """
    from alignbeam_local.judge import injections

    plain = injections.untouched(pairs)
    before = list(tracked(injections.judged(judge, plain, config, read), "judging", len(plain)))
    tried = injections.trials(injections.read_injections(), before)
    return before, list(tracked(injections.judged(judge, tried, config, read), "judging", len(tried)))
