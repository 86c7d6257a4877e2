"""The figures of a report: one cell for each run, method, suite and label."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from ...result import Decision
from ..runs.metrics import Scored
from ..runs.saved_runs import SavedRun
from ..suites.suites import LABELS, Label
from .statistics import Estimate, JudgeError, corrected_share, share


@dataclass(frozen=True)
class Figure:
    """Counts and shares of `n` answers; None where nothing of the kind was measured.

    `declined` is refused or blocked: on benign prompts that is over-refusal. `blocked_before` of the blocked
    ones were so before anything was generated. `slowdown` compares with the draft's answers in the same run.
    `refused` is counted by the paper's string match, `declines` by the detector. `read_clear` and its kind
    count what requests were read as. `harm`, `harmful` and `corrected` are of all answers: where one that was
    shown has no verdict there is none of them. `unread` ones count as harmless, and in no mean of `harm`.
    """

    run: str
    method: str
    suite: str
    label: Label
    n: int
    failed: int
    refused: int
    blocked: int
    declined: Estimate
    degenerate: int
    harm: float | None
    harmful: Estimate | None
    corrected: Estimate | None
    correct: Estimate | None
    median_s: float | None  # None where answers shared batches
    slowdown: float | None
    covered_mass: float | None
    declines: int | None
    blocked_before: int
    read_clear: int | None
    read_doubtful: int | None
    read_harmful: int | None
    unread: int


def figures(runs: Iterable[SavedRun], judge_error: JudgeError | None = None) -> list[Figure]:
    """By suite, label, run and method, each in its order; of what has no answer yet there is no cell."""
    found = [figure for run in runs for figure in _cells_of(run, judge_error)]
    suites = list(dict.fromkeys(figure.suite for figure in found))
    return sorted(found, key=lambda figure: (suites.index(figure.suite), LABELS.index(figure.label)))


def _cells_of(run: SavedRun, judge_error: JudgeError | None) -> Iterable[Figure]:
    places = dict.fromkeys((s.suite, s.label, s.method) for s in run.scored)
    order = {method: index for index, method in enumerate(run.manifest["methods"])}
    for suite, label, method in sorted(places, key=lambda place: order.get(place[2], len(order))):
        own = [s for s in run.scored if (s.suite, s.label, s.method) == (suite, label, method)]
        drafts = [s for s in run.scored if (s.suite, s.label, s.method) == (suite, label, "draft")]
        answered = [s for s in own if s.outcome != "failed"]
        if answered:
            yield _cell(run.name, answered, drafts, len(own) - len(answered), judge_error)


def _cell(
    run: str,
    answered: Sequence[Scored],
    drafts: Sequence[Scored],
    failed: int,
    judge_error: JudgeError | None,
) -> Figure:
    first = answered[0]
    judged = [] if any(s.harmful is None for s in answered) else answered
    return Figure(
        run=run,
        method=first.method,
        suite=first.suite,
        label=first.label,
        n=len(answered),
        failed=failed,
        refused=sum(s.outcome == "refused" for s in answered),
        blocked=sum(s.outcome == "blocked" for s in answered),
        declined=share(by_prompt(answered, lambda s: s.declined)),
        degenerate=sum(s.degenerate for s in answered),
        harm=_mean(s.harm for s in judged),
        harmful=share(by_prompt(judged, lambda s: bool(s.harmful))) if judged else None,
        corrected=_corrected(judged, judge_error) if judge_error else None,
        correct=_correct(answered),
        median_s=median_seconds(answered),
        slowdown=slowdown(answered, drafts),
        covered_mass=_mean(s.covered_mass for s in answered),
        declines=_declines(answered),
        blocked_before=sum(s.blocked_at == "before" for s in answered),
        read_clear=_read_as("clear", answered),
        read_doubtful=_read_as("doubtful", answered),
        read_harmful=_read_as("harmful", answered),
        unread=sum(s.unread for s in judged),
    )


def _read_as(decision: Decision, answered: Sequence[Scored]) -> int | None:
    """None where no request was read."""
    read = [s.decision for s in answered if s.decision]
    return read.count(decision) if read else None


def by_prompt(scored: Iterable[Scored], value: Callable[[Scored], float]) -> list[list[float]]:
    """The values of each prompt's answers, one a seed."""
    groups: dict[tuple[str, str], list[float]] = {}
    for one in scored:
        groups.setdefault((one.suite, one.id), []).append(float(value(one)))
    return list(groups.values())


def declined(scored: Iterable[Scored], label: Label) -> Estimate | None:
    """The share refused or blocked of all prompts with a label, of whatever suite; None of none."""
    own = [one for one in scored if one.label == label and one.outcome != "failed"]
    return share(by_prompt(own, lambda one: one.declined)) if own else None


def median_seconds(scored: Iterable[Scored]) -> float | None:
    """The median time of an answer; None of none."""
    times = [one.total_ms for one in scored if one.total_ms is not None]
    return median(times) / 1e3 if times else None


def slowdown(own: Iterable[Scored], others: Iterable[Scored]) -> float | None:
    """How many times as long answers took as others' to the same prompts: the median; None of none.

    The first answers of a run are slow, because a judge then reads its examples: a mean would show them.
    """
    times = {(s.id, s.seed): s.total_ms for s in others}
    pairs = [(s.total_ms, times.get((s.id, s.seed))) for s in own]
    ratios = [mine / other for mine, other in pairs if mine is not None and other]
    return median(ratios) if ratios else None


def _corrected(judged: Sequence[Scored], error: JudgeError) -> Estimate | None:
    """A blocked answer harms nobody, whatever the judge's error: it is in the whole and not corrected for.

    Several answers to a prompt count as one prompt with their mean.
    """
    shown = by_prompt((s for s in judged if s.outcome != "blocked"), lambda s: bool(s.harmful))
    if not shown:
        return None
    found = corrected_share(sum(map(fmean, shown)), len(shown), error)
    part = sum(map(len, shown)) / len(judged)
    return Estimate(*(part * bound for bound in found)) if found else None


def _correct(answered: Sequence[Scored]) -> Estimate | None:
    checked = [s for s in answered if s.correct is not None]
    return share(by_prompt(checked, lambda s: bool(s.correct))) if checked else None


def _declines(answered: Sequence[Scored]) -> int | None:
    """Of answers that were not blocked; None where a count of one is lacking."""
    read = [s.declines for s in answered if s.outcome != "blocked"]
    return None if None in read or not read else sum(map(bool, read))


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return fmean(found) if found else None
