"""What a bench found, as tables and bars."""

from collections.abc import Iterator

from rich.bar import Bar
from rich.console import RenderableType
from rich.constrain import Constrain

from alignbeam_local.bench.report import Alone, BenchReport, MeasuredCase, Spread, SweepResult

from ..console.tables import plain_table, table_console, two_columns
from ..console.terminal import printable

_BAR_CELLS = 30


def print_report(report: BenchReport) -> None:
    """Everything, on stdout."""
    console = table_console()
    console.print(two_columns(_facts(report)), "", _table(report.alone, report.methods), "", sep="\n")
    console.print(two_columns(_more(report)))
    if report.throughputs:
        console.print("", _throughputs(report), sep="\n")
    for sweep in report.sweeps:
        console.print("", _bars(sweep), sep="\n")


def _facts(report: BenchReport) -> Iterator[tuple[str, str]]:
    machine = report.machine
    for role, card in report.models.items():
        if card:
            size = report.bytes_per_decode[role]
            yield role, printable(f"{card.name}, {card.quantisation}, {_mb(size)} of weights a decode")
    yield "machine", f"{machine.processor}, {machine.cores} cores, {machine.system}, load {machine.load:.1f}"
    yield "llama.cpp", f"{report.llama_cpp}, {report.threads} threads"
    yield "rounds", f"{report.repeats}; medians, and quartiles in brackets"


def _table(alone: Alone, methods: tuple[MeasuredCase, ...]) -> RenderableType:
    """The draft alone, then every method against it."""
    titles = (
        f"{alone.prompt_tokens} + {alone.new_tokens} tokens",
        "ratio",
        "floor",
        "s",
        "first, ms",
        "tokens/s",
    )
    rows = [("draft alone", "1", "1", *_times(alone))]
    rows += [(m.name, _spread(m.ratio), f"{m.floor:.2f}", *_times(m)) for m in methods]
    return plain_table(titles, rows, figures=True)


def _throughputs(report: BenchReport) -> RenderableType:
    """Prompts a minute, both ways."""
    titles = ("prompts a minute", "one by one", f"{report.num_at_once} at once", "gain")
    rows = [
        (found.name, _spread(found.one_by_one), _spread(found.at_once), _spread(found.gain))
        for found in report.throughputs
    ]
    return plain_table(titles, rows, figures=True)


def _times(found: Alone | MeasuredCase) -> tuple[str, str, str]:
    return (
        f"{found.total_ms.median / 1e3:.2f}",
        f"{found.first_token_ms.median:.0f}",
        f"{found.tokens_per_second.median:.1f}",
    )


def _more(report: BenchReport) -> Iterator[tuple[str, str]]:
    turn, memory, cold = report.second_turn, report.memory, report.cold_start
    for method in report.methods:
        phases = ", ".join(f"{name} {ms:.0f}" for name, ms in method.phases_ms.items() if ms)
        yield f"ms, {method.name}", phases
        shares = (f"{share.median:.1%} of {name}" for name, share in method.python_share.items())
        yield "of that Python", ", ".join(shares)
    yield (
        "second turn",
        f"first token {_spread(turn.ratio)} of the draft's own "
        f"({turn.total_ms.median:.0f} and {turn.alone_ms.median:.0f} ms), K=1",
    )
    if use := report.mixed_use:
        own = "" if report.config["clear_below"] is None else " by the head's own threshold"
        yield (
            "expected",
            f"{use.ratio:.2f} times the draft alone with {use.ordinary:.0%} ordinary requests, "
            f"of which {use.steered:.0%} are steered{own}",
        )
    yield (
        "memory",
        f"peak {_mb(memory.peak_bytes)} = weights {_mb(memory.weights_bytes)} + KV {_mb(memory.kv_bytes)} "
        f"+ {_mb(memory.over_bytes)}",
    )
    yield (
        "cold start",
        f"{cold.load_ms / 1e3:.1f} s before the first answer, {cold.judge_ms / 1e3:.1f} of them the judge's "
        "worked examples",
    )
    yield "floor", _floor(report)


def _floor(report: BenchReport) -> str:
    """The arithmetic: what comes from memory in an answer."""
    alone = report.alone
    rate = alone.weights_read_bytes / alone.total_ms.median * 1e3
    told = [f"draft alone {_gb(alone.weights_read_bytes)} ({_gb(int(rate))}/s)"]
    for method in report.methods:
        read = method.weights_read_bytes
        parts = " + ".join(f"{role} {_gb(size)}" for role, size in read.items() if size)
        told.append(f"{method.name}: {parts} = {method.floor:.2f} times")
    return "weights read; " + "; ".join(told)


def _bars(sweep: SweepResult) -> RenderableType:
    """A bar for each value, as long as its ratio and its column allow."""
    longest = max(method.ratio.median for method in sweep.methods)
    rows = [
        (
            str(value),
            _spread(method.ratio),
            f"{method.floor:.2f}",
            f"{method.total_ms.median / 1e3:.2f}",
            f"{alone.total_ms.median / 1e3:.2f}",
            Constrain(Bar(longest, 0, method.ratio.median, color="cyan"), _BAR_CELLS),
        )
        for value, alone, method in zip(sweep.values, sweep.alone, sweep.methods, strict=True)
    ]
    return plain_table(
        (sweep.knob.replace("_", " "), "ratio", "floor", "s", "alone, s", ""), rows, figures=True
    )


def _spread(spread: Spread) -> str:
    return f"{spread.median:.2f} [{spread.low:.2f}, {spread.high:.2f}]"


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
