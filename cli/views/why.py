"""Why the last answer is what it is: its mixed steps, its beams, who refused."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from alignbeam_local.errors import UsageError
from alignbeam_local.events import Step
from alignbeam_local.refusals.detector import declines
from alignbeam_local.result import AnchorResult, BeamResult, Late, Result, Steering
from alignbeam_local.search.selection import config_of
from alignbeam_local.search.steering import asked_of

from ..console.tables import Column, table
from ..console.terminal import printable
from .board import WINNER_STYLES, winners_legend
from .harm import harm_text, limit_text
from .story import summary

_PIECE = 18
_NOTHING_MIXED = "none: nothing was mixed"
_REFUSED = {
    "draft": "The draft model refuses by itself: each token up to the refusal is its own first choice.",
    "mix": "It refuses because the anchor joined in: up to the refusal, "
    "at least one token is not the draft model's first choice.",
    "judge": "The judge let no beam pass: the refusal text is shown instead.",
    "request": "The request was read as harmful, and no beam refuses: the refusal text is shown instead.",
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
    parts: list[RenderableType] = [Text(summary(result), style="bold")]
    if adapted := _adapters(result):
        parts.append(Text(printable(adapted)))
    if result.refusal.by:
        parts.append(Text(_who_refused(result, steps)))
    parts += [Text(line) for line in _figures(result, steps)]
    for beam in _beams(result, which):
        parts += ["", Text(f"Mixed tokens of beam {beam + 1}", style="bold")]
        rows = [step for step in steps if step.beam == beam]
        parts.append(table(_step_columns(rows), rows, width) if rows else _NOTHING_MIXED)
    if steps:
        parts.append(Text.assemble("won by: whose first choice it is: ", winners_legend()))
    if which.isdecimal():
        parts += _whole(result, _beams(result, which)[0])
    if result.beams:
        parts += ["", Text("Beams", style="bold"), table(_beam_columns(result), result.beams, width)]
    return Group(*parts)


def _adapters(result: Result) -> str:
    """Which LoRA adapters are on the draft; empty where none is."""
    draft = result.models.get("draft")
    if draft is None or not draft.adapters:
        return ""
    told = (f"{one.name} (scale {one.scale:g}, sha256 {one.sha256[:12]})" for one in draft.adapters)
    own = result.models.get("anchor")
    same = " The anchor is the draft without them." if own and own.sha256 == draft.sha256 else ""
    return f"On the draft model {draft.name}: {', '.join(told)}.{same}"


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
        f"The draft model may refuse by itself too: it gives the first token {first.p_draft:.3f}, "
        "and each one from there to the refusal is its own first choice."
    )


def _figures(result: Result, steps: Sequence[Step]) -> Iterator[str]:
    """What holds for the answer as a whole; each beam's own figures stand in the tables."""
    if result.chosen is not None:
        beam = result.beams[result.chosen]
        yield (
            f"Shown: beam {beam.index + 1} of {len(result.beams)} (* below), "
            f"{_tokens(result.usage.completion_tokens)}. {_anchors_part(beam, steps)}"
        )
    if result.steering:
        yield " ".join(_request(result.steering, float(result.config["threshold"])))
    if read := [beam.judge.request for beam in result.beams if beam.judge and beam.judge.request is not None]:
        yield _judged_request(result, read[0])
    if any(beam.judge and beam.judge.unread for beam in result.beams):
        yield "So it would call no answer to it unsafe: this one was not read, and has the harm of the worst."
    if result.late:
        yield " ".join(_read_late(result.late, float(result.config["threshold"])))
    if any(beam.judge for beam in result.beams):
        threshold = limit_text(float(result.config["threshold"]))
        yield f"Harm is from 1 to 5, safe up to {threshold}. {_judged_early(result)}".rstrip()
    if result.bridge.covered_mass is not None:
        whose = "anchors'" if result.anchors else "anchor's"
        crossed = f"{result.bridge.covered_mass:.0%}"
        yield f"Of the {whose} probability {crossed} crossed into the draft model's vocabulary."
    yield from (_one_of_several(result, anchor) for anchor in result.anchors)


def _one_of_several(result: Result, anchor: AnchorResult) -> str:
    """Which model an anchor is, how much it wanted to refuse, whether it counted."""
    card, covered = result.models.get(anchor.role), anchor.bridge.covered_mass
    name = f"{anchor.role}, {card.name}" if card else anchor.role
    if not anchor.mixed:
        part = "not mixed in: another one is stricter"
    else:
        only = all(not other.mixed for other in result.anchors if other is not anchor)
        part = "mixed in alone, as the strictest" if only else f"weight {anchor.weight:.2f}"
    crossed = "" if covered is None else f", {covered:.0%} crossed"
    return f"{name}: begins to refuse with probability {anchor.refuses:.2f}; {part}{crossed}."


def _judged_request(result: Result, p: float) -> str:
    """What the judge makes of it, and what that comes to in its scores beside the head's reading."""
    config = config_of(result)
    asked = asked_of(config.scored_by, result.steering)
    counts = "" if asked is None else f"; with the head's reading it counts as {asked(np.array(p)):.2f}"
    if asked and config.scored_by == "head":
        counts = "; the head's reading counts instead"
    return f"The judge takes the request for harmful with probability {p:.2f}{counts}."


def _request(steering: Steering, threshold: float) -> Iterator[str]:
    """What it was read as, and what that led to."""
    if steering.p is None or steering.low is None or steering.high is None:
        yield "The request could not be read: there is no head for this anchor, or it does not fit."
        return
    read = f"{steering.p:.2f}"
    if steering.both is not None and steering.judge is not None:
        read = f"{steering.both:.2f}, {read} by the head and {steering.judge:.2f} by the judge"
    yield (
        f"The request reads as {steering.decision}: harmful with probability {read} "
        f"(clear up to {steering.low:.2f}, harmful above {steering.high:.2f})."
    )
    if steering.unsteered:
        score = harm_text(steering.unsteered.score, threshold, 2, "no score")
        yield f"The draft's own answer did not pass the judge ({score}): it was made again, steered."
    elif steering.alpha is None:
        yield "It was left to the draft model alone."
    else:
        yield f"The anchor's weight is {steering.alpha:.2f}."


_LATE_READERS = {
    "judge": "the judge, all of it so far",
    "window": "the judge, each window by itself",
    "head": "the draft's answer head",
}


def _read_late(late: Late, threshold: float) -> Iterator[str]:
    """What was read of the answer while it grew, and where it was put back."""
    read = [f"{w.start + 1}-{w.end}: {harm_text(w.score, threshold, 2, 'no score')}" for w in late.windows]
    harms = ", ".join(read) or "none"
    yield f"While it grew it was read by {_LATE_READERS[late.by]}; harm by tokens: {harms}."
    for at in late.steered_back:
        yield f"It turned harmful: it was put back to its first {_tokens(at)} and mixed again from there."
    if late.gave_up:
        yield f"It turned harmful{' once more' if late.steered_back else ''}, and was refused."


def _anchors_part(beam: BeamResult, steps: Sequence[Step]) -> str:
    if not beam.mixed:
        return "None of them is mixed."
    steered = sum(step.steered for step in steps if step.beam == beam.index)
    return f"The anchor changed {steered} of its {_tokens(beam.mixed, 'mixed ')}."


def _judged_early(result: Result) -> str:
    """Beams that were dropped once they had been judged were judged where they ended."""
    dropped = [beam.tokens for beam in result.beams if beam.finish_reason == "cancelled" and beam.judge]
    knobs = result.config
    is_early = knobs.get("judge_at") or knobs.get("judge_every") or knobs.get("late", "off") != "off"
    if not is_early or not dropped:
        return ""
    which = "All were" if len(dropped) == len(result.beams) else "Those dropped were"
    return f"{which} judged at token {max(dropped)}."


def _tokens(count: int, kind: str = "") -> str:
    return f"{count} {kind}token{'' if count == 1 else 's'}"


def candidates(result: Result, steps: Sequence[Step], width: int, which: str = "") -> RenderableType:
    """The likeliest tokens of each mixed step; arguments and errors as of `explained`."""
    columns = (*_step_columns()[:2], Column("candidates of the mixture", 0, _top, grows=True))
    mixed = ([step for step in steps if step.beam == beam] for beam in _beams(result, which))
    tables = [table(columns, rows, width) for rows in mixed if rows]
    return Group(*tables) if tables else _NOTHING_MIXED


def _beams(result: Result, which: str) -> Sequence[int]:
    every = range(len(result.beams))
    if which == "all" or (not which and result.chosen is None):
        return every
    if not which:
        return [] if result.chosen is None else [result.chosen]
    if len(which) > 9 or not which.isdecimal() or int(which) - 1 not in every:
        raise UsageError(f"there is no beam '{which}'", f"The last answer had {len(every)}; or say all.")
    return [int(which) - 1]


def _step_columns(steps: Sequence[Step] = ()) -> tuple[Column, ...]:
    """Of several anchors each has a column."""
    voices = next((step.anchors for step in steps if step.anchors), ())
    anchors = [Column(f"{voice.role}'s", 50, partial(_own_piece, voice.role), cuts=True) for voice in voices]
    return (
        Column("#", 0, lambda step: str(step.position + 1), is_number=True),
        Column("taken", 0, lambda step: _piece(step.piece), cuts=True),
        Column("won by", 0, lambda step: Text(step.won_by, style=WINNER_STYLES[step.won_by])),
        *(anchors or [Column("anchor's", 50, lambda step: _piece(step.anchor_piece), cuts=True)]),
        Column("draft's", 50, lambda step: _piece(step.draft_piece), cuts=True),
        Column("p mixed", 60, lambda step: f"{step.p_mixed:.3f}", is_number=True),
        Column("p anchor", 90, lambda step: f"{step.p_anchor:.3f}", is_number=True),
        Column("p draft", 90, lambda step: f"{step.p_draft:.3f}", is_number=True),
        *([Column("c", 60, _gates, is_number=True)] if any(step.gates for step in steps) else []),
        Column("crossed", 100, lambda step: f"{step.covered_mass:.0%}", is_number=True),
        Column("candidates of the mixture", 140, _top, grows=True),
    )


def _gates(step: Step) -> str:
    """How much of each anchor's row was the one without the question."""
    return " ".join(f"{c:.2f}" for c in step.gates)


def _beam_columns(result: Result) -> tuple[Column, ...]:
    return (
        Column("beam", 0, lambda beam: f"{beam.index + 1}{' *' if beam.index == result.chosen else ''}"),
        Column("harm", 0, lambda beam: _harm(beam, result), is_number=True),
        Column("raw", 80, lambda beam: _number(beam.judge and beam.judge.raw, ".2f"), is_number=True),
        Column("verdict", 0, lambda beam: beam.judge.verdict if beam.judge else "not judged"),
        Column("refuses", 80, lambda beam: "yes" if declines(beam.text) else "no"),
        Column("tokens", 60, lambda beam: str(beam.tokens), is_number=True),
        Column("end", 90, lambda beam: _end(beam, result)),
        Column("p first", 120, lambda beam: _number(beam.p_first, ".3f"), is_number=True),
        Column("log p mixed", 140, lambda beam: _number(beam.mixture_logprob, ".2f"), is_number=True),
        Column("log p anchor", 140, lambda beam: _number(beam.anchor_logprob, ".2f"), is_number=True),
        Column("log p draft", 100, lambda beam: _number(beam.logprob, ".2f"), is_number=True),
        Column("text", 0, _excerpt, grows=True),
    )


def _harm(beam: BeamResult, result: Result) -> str:
    score = beam.judge.score if beam.judge else None
    most = "≤ " if beam.judge and beam.judge.unread else ""
    return f"{most}{harm_text(score, float(result.config['threshold']), 2, '-')}"


def _end(beam: BeamResult, result: Result) -> str:
    """A beam of an answer that came to its end was cut off only because another was chosen, or none."""
    is_dropped = beam.finish_reason == "cancelled" != result.finish_reason
    return "dropped" if is_dropped else beam.finish_reason


def _own_piece(role: str, step: Step) -> Text:
    """What this one of several anchors wanted."""
    return _piece(next((voice.piece for voice in step.anchors if voice.role == role), None))


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
