"""What a bench found: figures of several rounds, told by their median and quartiles."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

from ..heads.head import RequestHead
from ..heads.labelled_requests import ORDINARY
from ..machine.machine import Machine
from ..result import ModelCard
from .cases import CLEAR, Shape
from .runs import TimedAnswer

#: Of a hundred requests to a specialist so many are taken to be ordinary.
ORDINARY_SHARE = 0.95


@dataclass(frozen=True)
class Spread:
    """The middle half of some figures."""

    low: float
    median: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Of one figure or more."""
    found = list(values)
    return Spread(*quantiles(found, method="inclusive")) if len(found) > 1 else Spread(*found * 3)


@dataclass(frozen=True)
class Alone:
    """The draft alone on plain llama.cpp. `decoded_tokens`: its prompt's, template included, and its own."""

    prompt_tokens: int
    new_tokens: int
    total_ms: Spread
    first_token_ms: Spread
    tokens_per_second: Spread
    weights_read_bytes: int
    decoded_tokens: int


@dataclass(frozen=True)
class MeasuredCase:
    """One case. `ratio` is to the draft alone, round by round; `floor` is that of the weights read.

    `decoded_tokens` are those of each model, prompts and answers.
    """

    name: str
    ratio: Spread
    floor: float
    total_ms: Spread
    first_token_ms: Spread
    tokens_per_second: Spread  # of all beams
    phases_ms: dict[str, float]
    python_share: dict[str, Spread]
    weights_read_bytes: dict[str, int]
    decoded_tokens: dict[str, int]


@dataclass(frozen=True)
class MixedUse:
    """What is to be expected where most requests are ordinary, from the medians of two cases.

    Attributes:
        ordinary: the share of requests that are ordinary; of the others each is steered.
        steered: of the ordinary ones the share that the anchor's head does not read as clear.
        ratio: to the draft alone.
    """

    ordinary: float
    steered: float
    ratio: float


def mixed_use(methods: Iterable[MeasuredCase], several: str, head: RequestHead) -> MixedUse | None:
    """By the head's own held-out figures; None if it has none of ordinary requests, or a case is missing."""
    ratios = {method.name: method.ratio.median for method in methods}
    known = [row.above_low for row in head.held_out.shares if row.kind == ORDINARY and not row.harmful]
    if not known or several not in ratios or CLEAR not in ratios:
        return None
    (steered,) = known
    rare = 1 - ORDINARY_SHARE * (1 - steered)
    return MixedUse(ORDINARY_SHARE, steered, rare * ratios[several] + (1 - rare) * ratios[CLEAR])


@dataclass(frozen=True)
class SecondTurn:
    """The first token of a second turn at K = 1, where all that can be known of it was read before."""

    ratio: Spread
    total_ms: Spread
    alone_ms: Spread


@dataclass(frozen=True)
class ColdStart:
    """What comes before the first answer of a process; `judge_ms` is the judge's worked examples in it."""

    load_ms: float
    judge_ms: float


@dataclass(frozen=True)
class Memory:
    """The peak at the table's K; `over_bytes` is without the weights, each file once, and the KV cells."""

    peak_bytes: int
    weights_bytes: int
    kv_bytes: int
    over_bytes: int


@dataclass(frozen=True)
class SweepResult:
    """A case for each value of a knob, each with the draft alone."""

    knob: str
    values: tuple[int, ...]
    alone: tuple[Alone, ...]
    methods: tuple[MeasuredCase, ...]


@dataclass(frozen=True)
class Throughput:
    """Prompts a minute, one by one and so many at once, and what that gains round by round."""

    name: str
    one_by_one: Spread
    at_once: Spread
    gain: Spread


@dataclass(frozen=True)
class BenchReport:
    """Everything, with what it depends on."""

    machine: Machine
    threads: int
    llama_cpp: str
    system_info: str
    models: dict[str, ModelCard | None]
    config: dict[str, Any]
    repeats: int
    bytes_per_decode: dict[str, int]
    cold_start: ColdStart
    memory: Memory
    alone: Alone
    methods: tuple[MeasuredCase, ...]
    second_turn: SecondTurn
    mixed_use: MixedUse | None
    sweeps: tuple[SweepResult, ...]
    num_at_once: int
    throughputs: tuple[Throughput, ...]


def report_alone(shape: Shape, runs: Sequence[TimedAnswer], weights: Mapping[str, int]) -> Alone:
    """The draft alone; `weights` are the bytes of a decode by role."""
    return Alone(
        *shape,
        total_ms=spread(run.total_ms for run in runs),
        first_token_ms=spread(run.first_token_ms for run in runs),
        tokens_per_second=spread(map(_speed, runs)),
        weights_read_bytes=_total(_weights_read(runs[0], weights)),
        decoded_tokens=_total(runs[0].decoded),
    )


def report_method(
    name: str, runs: Sequence[TimedAnswer], alone: Sequence[TimedAnswer], weights: Mapping[str, int]
) -> MeasuredCase:
    """A case against the draft alone of the same round."""
    read = [_weights_read(run, weights) for run in runs]
    floor = _total(_weights_read(alone[0], weights))
    return MeasuredCase(
        name=name,
        ratio=spread(run.total_ms / other.total_ms for run, other in zip(runs, alone, strict=True)),
        floor=spread(_total(each) / floor for each in read).median,
        total_ms=spread(run.total_ms for run in runs),
        first_token_ms=spread(run.first_token_ms for run in runs),
        tokens_per_second=spread(map(_speed, runs)),
        phases_ms={phase: each.median for phase, each in _spreads([run.phases for run in runs]).items()},
        python_share=_spreads([run.python_share for run in runs]),
        weights_read_bytes={role: int(each.median) for role, each in _spreads(read).items()},
        decoded_tokens={role: int(each.median) for role, each in _spreads([r.decoded for r in runs]).items()},
    )


def report_second_turn(pairs: Sequence[tuple[float, float]]) -> SecondTurn:
    """Of milliseconds, ours and the draft's alone."""
    return SecondTurn(
        spread(ours / alone for ours, alone in pairs),
        spread(ours for ours, _ in pairs),
        spread(alone for _, alone in pairs),
    )


def report_throughput(
    name: str, num_prompts: int, one_by_one: Sequence[float], at_once: Sequence[float]
) -> Throughput:
    """Of the seconds that all prompts took, by round."""
    return Throughput(
        name,
        spread(60 * num_prompts / seconds for seconds in one_by_one),
        spread(60 * num_prompts / seconds for seconds in at_once),
        spread(alone / together for alone, together in zip(one_by_one, at_once, strict=True)),
    )


def _weights_read(run: TimedAnswer, weights: Mapping[str, int]) -> dict[str, int]:
    """Every decode reads its model's weights once."""
    return {role: num_decodes * weights[role] for role, num_decodes in run.decodes.items()}


def _total(read: Mapping[str, int]) -> int:
    return sum(read.values())


def _speed(run: TimedAnswer) -> float:
    """Tokens of all beams a second."""
    return 1e3 * run.tokens / run.total_ms


def _spreads(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    return {name: spread(run[name] for run in runs) for name in runs[0]}
