"""What a bench compares: the rows of its table, and the points of its sweeps."""

from typing import NamedTuple

from ..config import ALIASES, KNOBS, Config, canonical, knobs_that
from ..errors import UsageError
from ..knobs.judging import CHAT_JUDGE_AT

#: The row of a request that is read as clear, where steering goes by the request.
CLEAR = "clear request"
#: No score is above it, so that no answer is made again.
_ALL_SAFE = 5.0
PROMPT_TOKENS, NEW_TOKENS = "prompt_tokens", "new_tokens"
_SWEPT = (*knobs_that("benched"), PROMPT_TOKENS, NEW_TOKENS)


class Shape(NamedTuple):
    """How much is read and written: tokens of the user's text, and of the answer."""

    prompt_tokens: int
    new_tokens: int


class Case(NamedTuple):
    """One way of answering, with `max_tokens` new tokens."""

    name: str
    config: Config
    prompt_tokens: int

    @property
    def shape(self) -> Shape:
        return Shape(self.prompt_tokens, self.config.max_tokens)


class Sweep(NamedTuple):
    """One thing changed, everything else as it is."""

    knob: str
    values: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> "Sweep":
        """From `K=1,2,3`. Raises: UsageError: it is nothing of the kind."""
        name, _, listed = text.partition("=")
        knob = canonical(name.replace("-", "_"))
        if knob not in _SWEPT:
            known = ", ".join(word.replace("_", "-") for word in (*ALIASES, *_SWEPT))
            raise UsageError(f"--sweep {text}: {name!r} can't be swept", f"Known: {known}")
        try:
            values = tuple(map(int, listed.split(",")))
        except ValueError:
            raise UsageError(f"--sweep {text}: not a list of numbers", "Such as --sweep K=1,2,3") from None
        if min(values) < (0 if knob == "depth" else 1):
            raise UsageError(f"--sweep {text}: a number is too small", "Such as --sweep K=1,2,3")
        for value in values:  # lengths are bounded as answers are
            Config.of({knob if knob in KNOBS else "max_tokens": value}, f"--sweep {name}")
        return cls(knob, values)


class BenchPlan(NamedTuple):
    """What is measured: how often, after how many rounds that do not count."""

    config: Config
    prompt_tokens: int
    repeats: int
    warm_up: int
    sweeps: tuple[Sweep, ...] = ()
    num_at_once: int = 1  # prompts that share batches, if more than one


def table_cases(plan: BenchPlan) -> list[Case]:
    """One beam; several, judged at their ends; several, judged early. None is blocked: all work is done.

    Where steering goes by the request these are steered, and one that is read as clear stands beside them.
    """
    several, early = _steered(plan.config), plan.config.judge_at or CHAT_JUDGE_AT
    found = {"K=1": _ended(several.with_values({"beams": 1}))}
    if several.beams > 1:
        found[f"K={several.beams}"] = _ended(several)
        if early < several.max_tokens:
            found[f"K={several.beams} judge-at {early}"] = _ended(several).with_values({"judge_at": early})
    if several.steers_by_request:
        found[CLEAR] = _ended(several).with_values({"clear_below": 1.0, "threshold": _ALL_SAFE})
    return [Case(name, config, plan.prompt_tokens) for name, config in found.items()]


def sweep_cases(plan: BenchPlan, sweep: Sweep) -> list[Case]:
    """A case for each value; all are steered."""
    return [_swept(plan, sweep.knob, value) for value in sweep.values]


def _swept(plan: BenchPlan, knob: str, value: int) -> Case:
    name = f"{knob} {value}"
    if knob == PROMPT_TOKENS:
        return Case(name, _ended(_steered(plan.config)), value)
    config = _steered(plan.config).with_values({"max_tokens" if knob == NEW_TOKENS else knob: value})
    return Case(name, _ended(config), plan.prompt_tokens)


def _steered(config: Config) -> Config:
    """No request of a bench is read as clear, so that all its work is done."""
    limits = {"clear_below": 0.0, "harmful_above": 1.0} if config.steers_by_request else {}
    return config.with_values(limits)


def _ended(config: Config) -> Config:
    """Judged at the end where there are several beams, and not at all where there is one."""
    return config.with_values(
        {
            "judge_at": None,
            "judge_every": None,
            "late": "off",
            "on_unsafe": "lowest" if config.beams > 1 else "auto",
        }
    )
