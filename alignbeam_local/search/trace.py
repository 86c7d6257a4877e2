"""What a mixed step tells: who wanted which token, and which one was taken."""

from collections.abc import Iterator, Sequence

from ..events import AnchorVoice, Step, TopToken, Winner
from ..lm.vocabulary import Vocabulary
from .beam import Beam
from .mixer import MixedRow

_TOP = 5


def traced(
    beam: Beam,
    token: int,
    row: MixedRow,
    p_draft: float,
    *,
    draft: Vocabulary,
    anchors: Sequence[tuple[str, Vocabulary]],
) -> Step:
    """The event of a token that a beam is about to take; `p_draft` is what the draft alone gave it.

    `anchors` are the roles and vocabularies of those that were asked, the one whose row it is first.
    """
    mixture, draft_choice = row.mixture, row.draft_choice
    p_mixed, p_anchor = row.mixed_probabilities(token)
    anchor_token = int(row.anchor.tokens[0]) if row.anchor is not None else None
    return Step(
        position=len(beam.tokens),
        beam=beam.index,
        token=token,
        draft_token=draft_choice,
        anchor_token=anchor_token,
        piece=_shown(draft, token),
        draft_piece=_shown(draft, draft_choice),
        anchor_piece=None if anchor_token is None else _shown(anchors[0][1], anchor_token),
        won_by=_winner(token, draft_choice, row.anchor_choice),
        p_mixed=p_mixed,
        p_draft=p_draft,
        p_anchor=p_anchor,
        covered_mass=mixture.covered_mass,
        top=tuple(
            TopToken(int(t), _shown(draft, int(t)), float(p))
            for t, p in zip(mixture.tokens[:_TOP], mixture.probabilities, strict=False)
        ),
        anchors=tuple(_voices(token, row, anchors)),
        gates=row.gates,
    )


def _voices(token: int, row: MixedRow, anchors: Sequence[tuple[str, Vocabulary]]) -> Iterator[AnchorVoice]:
    for voice, (role, vocabulary) in zip(row.voices, anchors, strict=False):
        first = int(voice.top.tokens[0])
        p, covered = voice.landed_on(token), voice.mixture.covered_mass
        yield AnchorVoice(role, first, _shown(vocabulary, first), p, covered)


def _winner(token: int, draft_choice: int, anchor_choice: int) -> Winner:
    if token == draft_choice:
        return "both" if token == anchor_choice else "draft"
    return "anchor" if token == anchor_choice else "neither"


def _shown(vocabulary: Vocabulary, token: int) -> str:
    return vocabulary.piece(token).decode("utf-8", "replace")
