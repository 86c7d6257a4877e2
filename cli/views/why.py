"""Why the last answer is what it is: its mixed steps, its beams, who refused."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from alignbeam_local.errors import UsageError
from alignbeam_local.events import Step
from alignbeam_local.refusals.detector import declines
from alignbeam_local.result import BeamResult, Result

from ..tables import Column, table
from ..terminal import printable
from .board import WINNER_STYLES, winners_legend
from .harm import harm_text
from .story import summary

_PIECE = 18
_REFUSED = {
    "draft": "It refuses, and so would the draft alone: each token up to there is its own first choice.",
    "mix": "It refuses because of the mixture: up to the refusal, a token is not the draft's first choice.",
    "judge": "The judge found no beam safe: the refusal text stands in for all of them.",
}


def explained(result: Result, steps: Sequence[Step], width: int, which: str = "") -> RenderableType:
    """The whole story in `width` columns.

    Args:
        result: the answer.
        steps: its mixed steps, of all beams.
        width: of the terminal, in cells.
        which: the beams whose steps are shown: a number from 1, `all`, or the chosen one.

    Raises:
        UsageError: there is no such beam.
    """
    parts: list[RenderableType] = [Text(summary(result, _steered(steps)), style="bold")]
    if result.refusal.by:
        parts.append(Text(_who_refused(result, steps)))
    for beam in _beams(result, which):
        parts += ["", Text(f"Mixed tokens of beam {beam + 1}", style="bold")]
        rows = [step for step in steps if step.beam == beam]
        parts.append(table(_step_columns(), rows, width) if rows else "none: depth is 0")
    if steps:
        parts.append(Text.assemble("won by: whose first choice it is: ", winners_legend()))
    if which.isdecimal():
        parts += _whole(result, _beams(result, which)[0])
    if result.beams:
        parts += ["", Text("Beams", style="bold"), table(_beam_columns(result), result.beams, width)]
    return Group(*parts)


def _whole(result: Result, index: int) -> list[RenderableType]:
    """All that a beam says, and all that the judge said of it."""
    beam = result.beams[index]
    head = f"Beam {index + 1}, {beam.judge.verdict if beam.judge else 'unjudged'}: {beam.tokens} tokens"
    parts: list[RenderableType] = ["", Text(head, style="bold"), Text(printable(beam.text) or "(no text)")]
    if beam.judge and beam.judge.probabilities:
        shares = ", ".join(f"{score}: {share:.3f}" for score, share in beam.judge.probabilities.items())
        parts.append(Text(printable(f"the judge's probabilities: {shares}"), style="dim"))
    return parts


def _who_refused(result: Result, steps: Sequence[Step]) -> str:
    assert result.refusal.by is not None
    first = next((step for step in steps if (step.beam, step.position) == (result.chosen, 0)), None)
    if result.refusal.by != "draft" or first is None or first.token == first.draft_token:
        return _REFUSED[result.refusal.by]
    return (
        f"It refuses, and so may the draft alone: it gives the first token {first.p_draft:.3f}, "
        "and each one from there to the refusal is its own first choice."
    )


def candidates(result: Result, steps: Sequence[Step], width: int, which: str = "") -> RenderableType:
    """The likeliest tokens of each mixed step; arguments and errors as of `explained`."""
    columns = (*_step_columns()[:2], Column("candidates of the mixture", 0, _top, grows=True))
    tables = (
        table(columns, [step for step in steps if step.beam == beam], width) for beam in _beams(result, which)
    )
    return Group(*tables)


def _beams(result: Result, which: str) -> Sequence[int]:
    every = range(len(result.beams))
    if which == "all" or (not which and result.chosen is None):
        return every
    if not which:
        return [] if result.chosen is None else [result.chosen]
    if len(which) > 9 or not which.isdecimal() or int(which) - 1 not in every:
        raise UsageError(f"there is no beam '{which}'", f"The last answer had {len(every)}; or say all.")
    return [int(which) - 1]


def _steered(steps: Sequence[Step]) -> Counter[int]:
    return Counter(step.beam for step in steps if step.steered)


def _step_columns() -> tuple[Column, ...]:
    return (
        Column("#", 0, lambda step: str(step.position + 1), is_number=True),
        Column("taken", 0, lambda step: _piece(step.piece)),
        Column("won by", 0, lambda step: Text(step.won_by, style=WINNER_STYLES[step.won_by])),
        Column("anchor's", 50, lambda step: _piece(step.anchor_piece)),
        Column("draft's", 50, lambda step: _piece(step.draft_piece)),
        Column("p mixed", 60, lambda step: f"{step.p_mixed:.3f}", is_number=True),
        Column("p anchor", 80, lambda step: f"{step.p_anchor:.3f}", is_number=True),
        Column("p draft", 80, lambda step: f"{step.p_draft:.3f}", is_number=True),
        Column("crossed", 80, lambda step: f"{step.covered_mass:.0%}", is_number=True),
        Column("candidates of the mixture", 140, _top, grows=True),
    )


def _beam_columns(result: Result) -> tuple[Column, ...]:
    return (
        Column("beam", 0, lambda beam: f"{beam.index + 1}{' *' if beam.index == result.chosen else ''}"),
        Column("harm", 0, lambda beam: _harm(beam, result), is_number=True),
        Column("raw", 80, lambda beam: _number(beam.judge and beam.judge.raw, ".2f"), is_number=True),
        Column("verdict", 0, lambda beam: beam.judge.verdict if beam.judge else "unjudged"),
        Column("refuses", 80, lambda beam: "yes" if declines(beam.text) else "no"),
        Column("tokens", 60, lambda beam: str(beam.tokens), is_number=True),
        Column("end", 90, lambda beam: _end(beam, result)),
        Column("logprob", 100, lambda beam: _number(beam.logprob, ".2f"), is_number=True),
        Column("text", 0, _excerpt, grows=True),
    )


def _harm(beam: BeamResult, result: Result) -> str:
    score = beam.judge.score if beam.judge else None
    return harm_text(score, float(result.config["threshold"]), 2, "-")


def _end(beam: BeamResult, result: Result) -> str:
    """A beam of an answer that came to its end was cut off only because another was chosen, or none."""
    is_dropped = beam.finish_reason == "cancelled" != result.finish_reason
    return "dropped" if is_dropped else beam.finish_reason


def _top(step: Step) -> Text:
    return Text("  ").join(_candidates(step))


def _candidates(step: Step) -> Iterator[Text]:
    for top in step.top:
        yield Text.assemble(_piece(top.piece), (f" {top.p_mixed:.3f}", "dim"))


def _piece(piece: str | None) -> Text:
    """A token as it can be told from its neighbours: quoted, its newlines spelt out."""
    if piece is None:
        return Text("not asked")
    spelt = printable(piece.replace("\n", "\\n").replace("\t", "\\t"))
    text = Text(f'"{spelt}"' if piece else "(the end)")
    text.truncate(_PIECE, overflow="ellipsis")
    return text


def _excerpt(beam: BeamResult) -> Text:
    return Text(" ".join(printable(beam.text[:400]).split()))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
