"""How heads look on a terminal, off it, and as JSON."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from alignbeam_local.heads.answer_head import AnswerHead
from alignbeam_local.heads.benign import BenignChange, WithHead
from alignbeam_local.heads.check import ALL
from alignbeam_local.heads.distractions import DistractionReport
from alignbeam_local.heads.head import Above, Auc, RequestHead
from alignbeam_local.judge.calibration import LABELS

from ..console.tables import plain_table, table_console
from ..console.terminal import for_stream


def print_fit(head: RequestHead, change: BenignChange | None, *, as_json: bool) -> None:
    """A head just fitted, and what the user's own prompts changed."""
    if as_json:
        _print_json({**_as_json(head), "benign": change and change.model_dump(mode="json")})
        return
    _print_head(head)
    if change:
        _print_change(change)


def print_heads(heads: Sequence[RequestHead], *, as_json: bool) -> None:
    """Heads in full; as JSON one object, or a list of another number of them."""
    if as_json:
        rows = [_as_json(head) for head in heads]
        _print_json(rows[0] if len(rows) == 1 else rows)
        return
    for head in heads:
        _print_head(head)


def print_distractions(report: DistractionReport, *, as_json: bool) -> None:
    """How many harmful requests became clear, a line a way."""
    if as_json:
        _print_json(report.model_dump(mode="json"))
        return
    _line(f"{report.model}: {report.asked} harmful requests, each with harmless texts by it")
    titles = ("harmless text", "not clear alone", "clear with it", "share", "95 %", "of the harmful ones")
    table_console().print(
        plain_table(
            titles,
            [
                (
                    *(row.way, str(row.n), str(row.cleared), f"{row.share:.0%}", _interval(row.interval)),
                    f"{row.high_cleared}/{row.high_n}",
                )
                for row in report.rows
            ],
        )
    )


def print_list(heads: Sequence[tuple[str, RequestHead]]) -> None:
    """A line a head, behind whose it is."""
    table_console().print(
        plain_table(
            ("model", "sha256", "whose", "fitted", "AUC", "low", "high"),
            [
                (
                    *(head.model, head.model_sha256[:12], whose, head.date, _best_known(head)),
                    *(f"{head.thresholds.low:.2f}", f"{head.thresholds.high:.2f}"),
                )
                for whose, head in heads
            ],
        )
    )


def _best_known(head: RequestHead) -> str:
    return f"{head.held_out.aucs[0].auc:.2f}" if head.held_out.aucs else "-"


def _as_json(head: RequestHead) -> dict[str, Any]:
    """All but the weights, which are for no reader."""
    return head.model_dump(mode="json", exclude={"weights", "intercept"})


def _print_json(value: Any) -> None:
    print(for_stream(json.dumps(value), sys.stdout))


def _print_head(head: RequestHead) -> None:
    limits = head.thresholds
    read_at = "after the final norm" if head.layer is None else f"of layer {head.layer}"
    _line(
        f"{head.model}: clear up to {limits.low:.2f}, harmful above {limits.high:.2f}; "
        f"reads the states {read_at}"
    )
    table_console().print(_auc_table(head.held_out.aucs), _share_table(head.held_out.shares))


def _line(text: str) -> None:
    table_console().print(text, markup=False, soft_wrap=True)


def _auc_table(aucs: Sequence[Auc]) -> Any:
    return plain_table(
        ("AUC of harmful", "over harmless", "n", "AUC", "95 %", "read whole only"),
        [
            (
                *(row.harmful, row.harmless, f"{row.num_harmful}/{row.num_harmless}", f"{row.auc:.2f}"),
                *(f"{row.low:.2f} to {row.high:.2f}", f"{row.whole:.2f}"),
            )
            for row in aucs
        ],
    )


def _share_table(shares: Sequence[Above]) -> Any:
    return plain_table(
        ("kind", "label", "n", "above low", "95 %", "above high", "95 %"),
        [
            (
                *(row.kind, "harmful" if row.harmful else "harmless", str(row.n)),
                *(f"{row.above_low:.0%}", _interval(row.low_interval)),
                *(f"{row.above_high:.0%}", _interval(row.high_interval)),
            )
            for row in shares
        ],
    )


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.0%} to {bounds[1]:.0%}"


def _print_change(change: BenignChange) -> None:
    _line(f"your own prompts: {change.num_fit} fitted on, {change.num_held_out} kept to measure with")
    titles = ("own prompts", "above low", "95 %", "above high", "95 %", f"AUC of {ALL} others", "95 %")
    rows = [("without", change.before), ("with", change.after)]
    table_console().print(plain_table(titles, [(name, *_change_cells(one)) for name, one in rows]))


def _change_cells(one: WithHead) -> tuple[str, ...]:
    own = one.own
    return (
        *(f"{own.above_low:.0%}", _interval(own.low_interval)),
        *(f"{own.above_high:.0%}", _interval(own.high_interval)),
        *(f"{one.auc:.2f}", f"{one.auc_low:.2f} to {one.auc_high:.2f}"),
    )


def print_answer_heads(heads: Sequence[AnswerHead], *, as_json: bool) -> None:
    """Answer heads: what each makes of answers that it was not fitted on."""
    if as_json:
        rows = [head.model_dump(mode="json", exclude={"weights", "intercept", "held_out"}) for head in heads]
        _print_json(rows[0] if len(rows) == 1 else rows)
        return
    for head in heads:
        figures = head.figures
        if "threshold" not in figures:
            _line(f"{head.model}: answers, without figures: fit it again")
            continue
        _line(f"{head.model}: answers, unsafe above {figures['threshold']:g}")
        labels = [label for label in LABELS if {f"n_{label}", f"above_{label}"} <= set(figures)]
        table_console().print(
            plain_table(
                ("answers", "n", "above", "AUC of compliance over"),
                [
                    (
                        *(label, f"{figures[f'n_{label}']:.0f}", f"{figures[f'above_{label}']:.0%}"),
                        f"{figures[f'auc_over_{label}']:.2f}" if f"auc_over_{label}" in figures else "",
                    )
                    for label in labels
                ],
            )
        )
