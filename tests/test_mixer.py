"""One position of both models: what of the anchor's row lands, what is counted, what a step tells of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbeam_local.config import Config
from alignbeam_local.errors import ModelError
from alignbeam_local.events import Step
from alignbeam_local.lm.language_model import Logits
from alignbeam_local.lm.vocabulary import Vocabulary
from alignbeam_local.prompt.text_stream import TextStream
from alignbeam_local.search.beam import Beam
from alignbeam_local.search.bridge import Bridge, Landing, bridge_between
from alignbeam_local.search.mixer import BridgeCount, MixedRow, Mixer
from alignbeam_local.search.mixing import UNMAPPED
from alignbeam_local.search.trace import traced
from tests.fake_lm import fake_vocabulary

# Bytes are 0 to 255 in both; then the words, then <|endoftext|>, <|im_start|>, <|im_end|>.
DRAFT = fake_vocabulary("he", "llo")
ANCHOR = fake_vocabulary("hello", "he", "a")
HE_D, LLO_D, EOS_D, EOT_D = 256, 257, 258, 260
HELLO_A, HE_A, A_A, EOS_A, EOT_A = 256, 257, 258, 259, 261
A = ord("a")


def logits(vocabulary: Vocabulary, probabilities: dict[int, float]) -> Logits:
    """A row with these probabilities, which sum to 1; nothing else has any to speak of."""
    row = np.full(vocabulary.size, -100.0, np.float32)
    for token, probability in probabilities.items():
        row[token] = np.log(probability)
    return row


def bridge(turn_end: int | None = EOT_D) -> Bridge:
    return Bridge(DRAFT, ANCHOR, draft_turn_end=turn_end)


def mixer(**knobs: Any) -> Mixer:
    return Mixer([bridge()], Config.of({"bridge_width": 3, **knobs}))


def as_dict(row: MixedRow) -> dict[int, float]:
    return dict(zip(row.mixture.tokens.tolist(), row.mixture.probabilities.tolist(), strict=True))


ANCHOR_ROW = logits(ANCHOR, {HE_A: 0.5, HELLO_A: 0.3, A: 0.2})
DRAFT_ROW = logits(DRAFT, {A: 0.6, HE_D: 0.1, ord("x"): 0.3})


# --- the bridge


@pytest.mark.parametrize(
    ("token", "lands"),
    [
        (HE_A, (HE_D,)),
        (HELLO_A, (HE_D, LLO_D)),
        (A_A, (A,)),  # another spelling of the same byte
        (0xC3, (0xC3,)),  # no text by itself
        (EOS_A, (EOT_D,)),
        (EOT_A, (EOT_D,)),
        (260, ()),  # control, and no end
    ],
)
def test_where_a_token_lands(token: int, lands: tuple[int, ...]) -> None:
    assert bridge().landing(token).tokens == lands


def test_an_end_lands_nowhere_where_the_draft_has_none() -> None:
    assert bridge(None).landing(EOT_A) == Landing(())


@pytest.mark.parametrize(
    ("tokens", "single", "first"), [((), UNMAPPED, UNMAPPED), ((7,), 7, 7), ((7, 8), UNMAPPED, 7)]
)
def test_what_a_landing_is_as_one_token(tokens: tuple[int, ...], single: int, first: int) -> None:
    assert (Landing(tokens).single, Landing(tokens).first) == (single, first)


def test_crossing_is_the_landing_of_each() -> None:
    crossing = bridge().cross(np.array([HE_A, HELLO_A, EOT_A]))
    assert crossing.single.tolist() == [HE_D, UNMAPPED, EOT_D]
    assert crossing.first.tolist() == [HE_D, HE_D, EOT_D]


def test_a_landing_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own, asked = bridge(), list[bytes]()

    def encode(piece: bytes) -> list[int]:
        asked.append(piece)
        return [HE_D]

    monkeypatch.setattr(DRAFT, "encode", encode)
    for _ in range(3):
        own.landing(HE_A)
    assert asked == [b"he"]


def test_the_draft_format_says_what_ends_a_turn() -> None:
    class Plain:
        uses_template = False

    class Chat:
        uses_template = True

    assert bridge_between(DRAFT, Plain(), ANCHOR).turn_end == EOS_D  # type: ignore[arg-type]
    assert bridge_between(DRAFT, Chat(), ANCHOR).turn_end == EOT_D  # type: ignore[arg-type]


# --- Eq. 1 at a position, by hand: `hello` does not cross


def test_drop() -> None:
    row = mixer(alpha=0.5).mix(DRAFT_ROW, [ANCHOR_ROW])
    # he: .5*.5 + .5*.1 = .30, a: .5*.2 + .5*.6 = .40
    assert as_dict(row) == pytest.approx({A: 0.4 / 0.7, HE_D: 0.3 / 0.7})
    assert row.mixture.covered_mass == pytest.approx(0.7)
    assert (row.best, row.draft_choice, row.anchor_choice) == (A, A, HE_D)
    assert row.landed == pytest.approx([0.2, 0.5])


def test_first() -> None:
    row = mixer(alpha=0.5, variant="first", draft_mass="once").mix(DRAFT_ROW, [ANCHOR_ROW])
    # he also gets `hello`: .5*(.5 + .3) + .5*.1 = .45
    assert as_dict(row) == pytest.approx({HE_D: 0.45 / 0.85, A: 0.4 / 0.85})
    assert row.landed == pytest.approx([0.8, 0.2])
    assert row.best == HE_D


def test_exact() -> None:
    row = mixer(alpha=0.5, variant="exact").mix(DRAFT_ROW, [ANCHOR_ROW])
    # .15 of `hello` goes back: .09 to a, .045 to x, .015 to he
    assert as_dict(row) == pytest.approx({A: 0.49 / 0.85, HE_D: 0.315 / 0.85, ord("x"): 0.045 / 0.85})
    assert row.landed == pytest.approx([0.2, 0.5, 0.0]), "nothing of the anchor's landed on x"


def test_only_the_anchors_likeliest_are_carried_over() -> None:
    row = mixer(bridge_width=1).mix(DRAFT_ROW, [ANCHOR_ROW])
    assert as_dict(row) == {HE_D: 1.0}
    assert row.anchor is not None
    assert row.anchor.tokens.tolist() == [HE_A]


def test_a_turns_end_stands_for_all_of_the_drafts_ends() -> None:
    draft_row = logits(DRAFT, {EOS_D: 0.3, EOT_D: 0.2, A: 0.5})
    row = mixer(alpha=0, bridge_width=2).mix(draft_row, [logits(ANCHOR, {EOS_A: 0.6, A: 0.4})])
    assert as_dict(row) == pytest.approx({EOT_D: 0.5, A: 0.5})
    assert mixer().draft_probability(row, EOT_D) == pytest.approx(0.5)
    assert mixer().draft_probability(row, EOS_D) == pytest.approx(0.3)


def test_without_a_bridge_a_token_is_itself() -> None:
    row = Mixer([], Config()).mix(logits(DRAFT, {EOS_D: 0.3, EOT_D: 0.7}), [])
    assert Mixer([], Config()).draft_probability(row, EOT_D) == pytest.approx(0.7)


def test_where_nothing_crosses_the_draft_chooses() -> None:
    own = mixer(bridge_width=1)
    row = own.mix(DRAFT_ROW, [logits(ANCHOR, {HELLO_A: 1.0})])
    assert row.best == A
    assert own.count.steps == 1


def test_an_anchor_that_could_not_be_asked() -> None:
    own = mixer()
    row = own.mix(DRAFT_ROW, [])
    assert (row.is_mixed, row.anchor, row.best, row.anchor_choice) == (False, None, A, -1)
    assert own.count.result == BridgeCount().result


@pytest.mark.parametrize("which", ["draft", "anchor"])
def test_rows_that_are_no_numbers_are_an_error_and_no_answer(which: str) -> None:
    rows = {"draft": DRAFT_ROW.copy(), "anchor": ANCHOR_ROW.copy()}
    rows[which][3] = np.nan
    with pytest.raises(ModelError) as caught:
        mixer().mix(rows["draft"], [rows["anchor"]])
    assert caught.value.message == "the model computed logits that are not numbers"
    assert "Verify" in caught.value.hint


# --- against a slow reference


def reference(draft: Logits, anchor: Logits, alpha: float, width: int) -> dict[int, float]:
    """Eq. 1 with `drop` and `each`, token by token."""
    own, other = (np.exp(row.astype(float)) / np.exp(row.astype(float)).sum() for row in (draft, anchor))
    ends = sum(own[token] for token in DRAFT.end_tokens)
    mass: dict[int, float] = {}
    for token in sorted(range(len(other)), key=lambda token: (-anchor[token], token))[:width]:
        landing = bridge().landing(token).tokens
        if len(landing) == 1:
            p_draft = ends if landing[0] == EOT_D else own[landing[0]]
            mass[landing[0]] = mass.get(landing[0], 0.0) + alpha * other[token] + (1 - alpha) * p_draft
    total = sum(mass.values())
    return {token: share / total for token, share in mass.items() if share > 0}


@settings(max_examples=40)
@given(seed=st.integers(0, 999), alpha=st.sampled_from([0.0, 0.3, 1.0]), width=st.sampled_from([1, 7, 50]))
def test_any_position_is_as_the_slow_reference_says(seed: int, alpha: float, width: int) -> None:
    random = np.random.default_rng(seed)
    draft, anchor = (random.normal(0, 2, v.size).astype(np.float32) for v in (DRAFT, ANCHOR))
    row = mixer(alpha=alpha, bridge_width=width).mix(draft, [anchor])
    assert as_dict(row) == pytest.approx(reference(draft, anchor, alpha, width), rel=1e-4)
    assert list(row.mixture.probabilities) == sorted(row.mixture.probabilities, reverse=True)


# --- the count


def test_what_crossed_is_counted_over_all_steps() -> None:
    own = mixer()
    own.mix(DRAFT_ROW, [ANCHOR_ROW])
    own.mix(DRAFT_ROW, [logits(ANCHOR, {HE_A: 0.5, A: 0.25, A_A: 0.25})])
    own.count_unmixed()
    found = own.count.result
    assert (found.steps, found.unmixed, found.tokens, found.single, found.fallback) == (2, 1, 6, 5, 1)
    assert found.covered_mass == pytest.approx((0.7 + 1.0) / 2)


def test_a_step_without_anchors_counts_for_each_that_is_in_use() -> None:
    own = Mixer([bridge(), bridge()], Config())
    own.count_unmixed()
    own.use_only([1])
    own.count_unmixed()
    assert (own.count.unmixed, [count.unmixed for count in own.counts]) == (2, [1, 2])


def test_nothing_counted_is_no_share() -> None:
    assert BridgeCount().result.covered_mass is None


# --- what a step tells


def step(row: MixedRow, token: int, said: Sequence[int] = (), anchor: Vocabulary | None = ANCHOR) -> Step:
    beam = Beam(1, TextStream(()), tokens=list(said))
    return traced(beam, token, row, 0.125, draft=DRAFT, anchors=[("anchor", anchor)] if anchor else [])


def test_a_step_by_hand() -> None:
    found = step(mixer(alpha=0.5).mix(DRAFT_ROW, [ANCHOR_ROW]), HE_D, said=[1, 2])
    assert (found.position, found.beam, found.token, found.draft_token, found.anchor_token) == (
        2,
        1,
        HE_D,
        A,
        HE_A,
    )
    assert (found.piece, found.draft_piece, found.anchor_piece, found.won_by) == ("he", "a", "he", "anchor")
    assert (found.p_mixed, found.p_draft, found.p_anchor) == pytest.approx((0.3 / 0.7, 0.125, 0.5))
    assert found.covered_mass == pytest.approx(0.7)
    assert [(top.token, top.piece) for top in found.top] == [(A, "a"), (HE_D, "he")]
    assert [top.p_mixed for top in found.top] == pytest.approx([0.4 / 0.7, 0.3 / 0.7])


@pytest.mark.parametrize(
    ("anchor_likes", "token", "winner"),
    [(A, A, "both"), (HE_A, A, "draft"), (HE_A, HE_D, "anchor"), (HE_A, ord("x"), "neither")],
)
def test_who_won(anchor_likes: int, token: int, winner: str) -> None:
    row = mixer().mix(DRAFT_ROW, [logits(ANCHOR, {anchor_likes: 0.9, ord("x"): 0.1})])
    assert step(row, token).won_by == winner


def test_a_token_outside_of_the_mixture_has_no_share_in_it() -> None:
    found = step(mixer().mix(DRAFT_ROW, [ANCHOR_ROW]), ord("q"))
    assert (found.p_mixed, found.p_anchor, found.p_draft) == (0.0, 0.0, 0.125)


def test_at_most_five_candidates_are_told() -> None:
    row = mixer(bridge_width=9).mix(DRAFT_ROW, [logits(ANCHOR, {65 + n: (9 - n) / 45 for n in range(9)})])
    assert len(row.mixture.tokens) == 9
    assert [top.piece for top in step(row, A).top] == list("ABCDE")


def test_a_step_without_the_anchor_tells_nothing_of_it() -> None:
    found = step(mixer().mix(DRAFT_ROW, []), A)
    assert (found.anchor_token, found.anchor_piece, found.won_by, found.top) == (None, None, "draft", ())
    assert not found.steered


def test_half_a_character_is_shown_as_none() -> None:
    row = mixer().mix(DRAFT_ROW, [logits(ANCHOR, {0xC3: 1.0})])
    assert step(row, 0xC3).piece == "\ufffd"


@pytest.mark.parametrize(
    ("said", "p_draft", "steered"), [((), 0.1, False), ((), 0.09, True), ((5,), 0.9, True)]
)
def test_another_beginning_of_the_drafts_own_is_not_steered(
    said: Sequence[int], p_draft: float, steered: bool
) -> None:
    row = mixer().mix(DRAFT_ROW, [ANCHOR_ROW])
    beam = Beam(1, TextStream(()), tokens=list(said))
    assert traced(beam, HE_D, row, p_draft, draft=DRAFT, anchors=[("anchor", ANCHOR)]).steered == steered
    first = Beam(0, TextStream(()), tokens=list(said))
    assert traced(first, HE_D, row, p_draft, draft=DRAFT, anchors=[("anchor", ANCHOR)]).steered


# --- the beam that takes it


def test_a_beam_takes_tokens_until_it_is_long_enough() -> None:
    beam = Beam(0, TextStream(()))
    texts = [
        event.text
        for token, piece, mixed in ((1, b"h", True), (2, b"\xc3", True), (3, b"\xa9", False))
        for event in beam.append(token, piece, mixed=mixed, longest=3)
    ]
    assert (texts, beam.text, beam.raw, beam.tokens) == (["h", "é"], "hé", b"h\xc3\xa9", [1, 2, 3])
    assert (beam.mixed, beam.finish, beam.sequence) == (2, "length", 1)


def test_a_beam_ends_at_a_stop_string() -> None:
    beam = Beam(2, TextStream(("\nQ:",)))
    for token, piece in enumerate((b"yes", b"\nQ", b": no")):
        list(beam.append(token, piece, mixed=False, longest=99))
    assert (beam.finish, beam.text) == ("stop", "yes")


def test_what_a_beam_held_back_is_its_last_part() -> None:
    beam = Beam(2, TextStream(("\nQ:",)))
    shown = [event.text for event in beam.append(0, b"a\nQ", mixed=True, longest=9)]
    assert shown == ["a"]
    last = list(beam.end("stop"))
    assert [(event.beam, event.text, event.mixed) for event in last] == [(2, "\nQ", False)]


def test_the_mean_liking_of_a_prefix() -> None:
    beam = Beam(0, TextStream(()))
    assert beam.logprob == 0.0
    beam.prefix_logprobs += [-1.0, -2.5]
    assert beam.logprob == -1.75
