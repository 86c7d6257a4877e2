"""The search against a slow one that runs each beam alone and prefills it anew at every step."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbeam_local.config import Config
from alignbeam_local.events import BeamText, Event, Step
from alignbeam_local.lm.language_model import Logits, SamplerSettings
from alignbeam_local.lm.prompt_cache import PromptCache
from alignbeam_local.lm.vocabulary import Vocabulary, is_unfinished
from alignbeam_local.search.anchors import BridgedAnchor
from alignbeam_local.search.beam import Beam
from alignbeam_local.search.beams import BeamSearch
from alignbeam_local.search.bridge import Bridge
from tests.fake_lm import FakeLM, Row, fake_vocabulary, hashed_row

DRAFT = fake_vocabulary(
    "he", " the", "é", "ab", "\n", control=("<s>", "</s>", "<end>"), eos="</s>", eot="<end>"
)
ANCHOR = fake_vocabulary(" the", "hé", "abc", "é", "a")
DRAFT_PROMPT, ANCHOR_PROMPT = DRAFT.encode("Say:"), ANCHOR.encode("Please say:")
Kv = Literal["seq", "state"]


def nudged(row: Row, nudges: Mapping[int, float]) -> Row:
    """Rows in which some tokens are likelier, so that text, ends and unfinished characters all occur."""

    def with_nudges(tokens: Sequence[int]) -> Logits:
        logits = row(tokens)
        for token, nudge in nudges.items():
            logits[token] += nudge
        return logits

    return with_nudges


def nudges(vocabulary: Vocabulary, end: float) -> dict[int, float]:
    letters = b"abeh \xc3\xa9\xe2\n"
    words = dict.fromkeys(range(256, vocabulary.size - 3), 5.0)
    return dict.fromkeys(letters, 5.0) | words | dict.fromkeys(vocabulary.end_tokens, end)


@dataclass
class World:
    """Two models and the bridge between them, for one search."""

    seed: int
    end: float = 4.0
    kv: Kv = "seq"
    draft_row: Row | None = None
    anchor_row: Row | None = None

    def __post_init__(self) -> None:
        self.draft_row = self.draft_row or nudged(hashed_row(DRAFT.size, self.seed), nudges(DRAFT, self.end))
        self.anchor_row = self.anchor_row or nudged(
            hashed_row(ANCHOR.size, self.seed + 1), nudges(ANCHOR, self.end)
        )
        self.draft = FakeLM(DRAFT, self.draft_row, kv_strategy=self.kv)
        self.anchor = FakeLM(ANCHOR, self.anchor_row, kv_strategy=self.kv)
        self.bridge = Bridge(DRAFT, ANCHOR, draft_turn_end=DRAFT.turn_end(True))

    def search(self, config: Config, **options: Any) -> tuple[BeamSearch, list[Event]]:
        """Run all three phases."""
        mixes = config.depth > 0
        draft_row = PromptCache(self.draft).row(DRAFT_PROMPT)
        anchor_rows = [PromptCache(self.anchor).row(ANCHOR_PROMPT)] if mixes else []
        search = BeamSearch(
            self.draft,
            [BridgedAnchor(self.anchor, self.bridge)] if mixes else [],
            config,
            **{"max_tokens": config.max_tokens, **options},
        )
        events = [
            *search.start(draft_row, anchor_rows),
            *search.extend([ANCHOR_PROMPT] if mixes else []),
            *search.complete(),
        ]
        search.close()
        return search, events


def knobs(**values: Any) -> Config:
    return Config(**values)


def outcomes(search: BeamSearch) -> list[tuple[list[int], str | None]]:
    return [(beam.tokens, beam.finish) for beam in search.beams]


# --- the obvious implementation


class Alone:
    """Everything again for every token: no cache, no batch, Eq. 1 in dictionaries."""

    def __init__(self, world: World, config: Config) -> None:
        self.world = world
        self.config = config
        self.lm = FakeLM(DRAFT, world.draft_row or hashed_row(0))

    def beams(self) -> list[tuple[list[int], str | None]]:
        starts = (self.mixed([]) if self.config.depth else []) or self.draft_order([])
        return [self.run(i, start) for i, start in enumerate(starts[: self.config.beams])]

    def run(self, index: int, token: int) -> tuple[list[int], str | None]:
        config, tokens = self.config, list[int]()
        sampler = self.lm.sampler(
            SamplerSettings(
                config.temperature,
                config.top_p,
                config.repeat_penalty,
                config.max_tokens,
                config.seed + index,
            )
        )
        accepted = 0
        while True:
            if token in DRAFT.end_tokens and not config.ignore_eos:
                return tokens, "stop"
            tokens = [*tokens, token]
            if len(tokens) == config.max_tokens:
                return tokens, "length"
            if len(tokens) < config.depth:
                token = (self.mixed(tokens) or self.draft_order(tokens))[0]
                continue
            for before in tokens[accepted:]:
                sampler.accept(before)
            self.lm.truncate(0, 0)
            self.lm.extend({0: [*DRAFT_PROMPT, *tokens]})
            token, accepted = sampler.sample(0), len(tokens) + 1

    def draft_order(self, tokens: list[int]) -> list[int]:
        row = self.row(tokens)
        return sorted(range(DRAFT.size), key=lambda t: (-row[t], t))

    def row(self, tokens: list[int]) -> Logits:
        assert self.world.draft_row is not None
        return self.world.draft_row([*DRAFT_PROMPT, *tokens])

    def mixed(self, tokens: list[int]) -> list[int]:
        """The mixture's tokens, most probable first; none inside a character."""
        raw, config = DRAFT.pieces(tokens), self.config
        if is_unfinished(raw):
            return []
        assert self.world.anchor_row is not None
        anchor_row = self.world.anchor_row([*ANCHOR_PROMPT, *ANCHOR.encode(raw.decode("utf-8", "replace"))])
        p_s, p_d = softmax(anchor_row), softmax(self.row(tokens))
        ends = sum(p_d[t] for t in DRAFT.end_tokens)
        f, lost = defaultdict[int, float](float), 0.0
        credited = set[int]()
        for sid in sorted(range(ANCHOR.size), key=lambda t: (-anchor_row[t], t))[: config.bridge_width]:
            dids = self.landing(sid)
            if len(dids) != 1:
                lost += p_s[sid]
            if len(dids) == 1 or (dids and config.variant == "first"):
                own = ends if dids[0] == DRAFT.eot else p_d[dids[0]]
                counted = config.draft_mass == "each" or dids[0] not in credited
                f[dids[0]] += config.alpha * p_s[sid] + (1 - config.alpha) * own * counted
                credited.add(dids[0])
        if config.variant == "exact":
            top = self.draft_order(tokens)[: config.bridge_width]
            for did in top:
                f[did] += config.alpha * lost * p_d[did] / sum(p_d[t] for t in top)
        return sorted((t for t in f if f[t] > 0), key=lambda t: (-f[t], t))

    def landing(self, sid: int) -> list[int]:
        if sid in ANCHOR.end_tokens:
            return [t for t in [DRAFT.eot] if t is not None]
        return DRAFT.encode(ANCHOR.piece(sid))


def softmax(row: Logits) -> list[float]:
    weights = np.exp(row.astype(np.float64) - float(row.max()))
    return list(map(float, weights / weights.sum()))


CONFIGS = st.builds(
    Config,
    alpha=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    depth=st.integers(0, 6),
    beams=st.integers(1, 4),
    bridge_width=st.sampled_from([1, 4, 12, 300]),
    variant=st.sampled_from(["drop", "first", "exact"]),
    draft_mass=st.sampled_from(["each", "once"]),
    temperature=st.sampled_from([0.0, 0.7]),
    repeat_penalty=st.sampled_from([1.0, 1.15]),
    max_tokens=st.integers(1, 10),
    ignore_eos=st.booleans(),
)


@settings(max_examples=60)
@given(CONFIGS, st.integers(0, 10**6), st.sampled_from(["seq", "state"]), st.sampled_from([0.0, 4.0, 8.0]))
def test_beams_in_a_batch_are_the_beams_alone(config: Config, seed: int, kv: Kv, end: float) -> None:
    world = World(seed, end, kv)
    search, _ = world.search(config)
    assert outcomes(search) == Alone(world, config).beams()
    check_decodes(world, search)


def check_decodes(world: World, search: BeamSearch) -> None:
    """One batch a step of each model, and no draft token decoded twice."""
    decoded = [len(beam.tokens) - (beam.finish == "length") for beam in search.beams]
    steps = world.draft.batches[1:]
    assert len(steps) == max(decoded)
    assert all(set(step.values()) == {1} for step in steps)
    for beam in search.beams:
        assert sum(beam.sequence in step for step in steps) == decoded[beam.index]
    assert world.draft.decoded_tokens == len(DRAFT_PROMPT) + sum(decoded)
    asked = world.anchor.batches[1:]
    assert len(asked) <= max(search.config.mixed_depth - 1, 0)


# --- phases one by one


def row_of(table: Mapping[str, Mapping[int, float]], vocabulary: Vocabulary, prompt: list[int]) -> Row:
    """Rows by the answer's text so far, zero elsewhere."""

    def row(tokens: Sequence[int]) -> Logits:
        logits = np.zeros(vocabulary.size, np.float32)
        said = vocabulary.pieces(tokens[len(prompt) :]).decode("utf-8", "replace")
        for token, logit in table.get(said, {}).items():
            logits[token] = logit
        return logits

    return row


def table_world(
    draft: Mapping[str, Mapping[int, float]], anchor: Mapping[str, Mapping[int, float]], kv: Kv = "seq"
) -> World:
    return World(
        0,
        kv=kv,
        draft_row=row_of(draft, DRAFT, DRAFT_PROMPT),
        anchor_row=row_of(anchor, ANCHOR, ANCHOR_PROMPT),
    )


def likes(*letters: str) -> dict[int, float]:
    """The first is likeliest."""
    return {ord(letter): 30.0 - 2 * rank for rank, letter in enumerate(letters)}


def test_the_first_rows_top_k_start_the_beams() -> None:
    world = table_world({"": likes("x", "y", "z", "w")}, {"": likes("x", "y", "z", "w")})
    search, events = world.search(knobs(beams=3, depth=1, max_tokens=1))
    assert [beam.text for beam in search.beams] == ["x", "y", "z"]
    steps = [event for event in events if isinstance(event, Step)]
    assert [(step.position, step.beam, step.piece) for step in steps] == [
        (0, 0, "x"),
        (0, 1, "y"),
        (0, 2, "z"),
    ]
    assert all(step.draft_token == step.anchor_token == ord("x") for step in steps)


def test_steps_report_what_each_model_gave() -> None:
    world = table_world({"": likes("x", "y")}, {"": likes("y", "x")})
    search, events = world.search(knobs(beams=1, depth=1, max_tokens=1, alpha=1.0))
    (step,) = (event for event in events if isinstance(event, Step))
    p_d, p_s = softmax(world.draft.logits(0)), softmax(world.anchor.logits(0))
    assert step.token == ord("y")
    assert step.p_draft == pytest.approx(p_d[ord("y")], rel=1e-4)
    assert step.p_anchor == pytest.approx(p_s[ord("y")], rel=1e-4)
    assert [top.piece for top in step.top[:2]] == ["y", "x"]
    assert step.top[0].p_mixed == step.p_mixed > step.top[1].p_mixed
    assert search.beams[0].logprob == pytest.approx(np.log(p_d[ord("y")]), rel=1e-3)


@pytest.mark.parametrize(
    ("alpha", "draft", "anchor", "taken", "won_by"),
    [
        (1.0, "xy", "yx", "y", "anchor"),
        (0.0, "xy", "yx", "x", "draft"),
        (0.5, "xy", "xy", "x", "both"),
    ],
)
def test_steps_say_whose_first_choice_was_taken(
    alpha: float, draft: str, anchor: str, taken: str, won_by: str
) -> None:
    world = table_world({"": likes(*draft)}, {"": likes(*anchor)})
    _, events = world.search(knobs(beams=2, depth=1, max_tokens=1, alpha=alpha))
    first, second = (event for event in events if isinstance(event, Step))
    assert (first.piece, first.won_by) == (taken, won_by)
    assert (first.draft_piece, first.anchor_piece) == (draft[0], anchor[0])
    assert second.won_by == {"anchor": "draft", "draft": "anchor", "both": "neither"}[won_by]


def test_a_mixture_narrower_than_k_starts_fewer_beams() -> None:
    world = table_world({"": likes("x", "y", "z")}, {"": likes("x", "y")})
    search, _ = world.search(knobs(beams=5, depth=2, bridge_width=2, max_tokens=3))
    assert [beam.text[0] for beam in search.beams] == ["x", "y"]


def test_without_mixing_the_drafts_own_top_k_start() -> None:
    world = table_world({"": likes("x", "y", "z")}, {"": likes("n")})
    search, events = world.search(knobs(beams=2, depth=0, max_tokens=2))
    assert [beam.text[0] for beam in search.beams] == ["x", "y"]
    assert [beam.mixed for beam in search.beams] == [0, 0]
    assert not any(isinstance(event, Step) for event in events)
    assert world.anchor.batches == []
    result = search.count.result
    assert (result.steps, result.unmixed, result.covered_mass) == (0, 0, None)


def test_where_nothing_crosses_the_draft_starts_alone() -> None:
    abc = ANCHOR.encode("abc")[0]  # several tokens of the draft's
    world = table_world({"": likes("x", "y")}, {"": {abc: 9.0}})
    search, _ = world.search(knobs(beams=2, depth=1, bridge_width=1, max_tokens=1))
    assert [(beam.text, beam.mixed) for beam in search.beams] == [("x", 0), ("y", 0)]
    result = search.count.result
    assert (result.steps, result.unmixed) == (1, 0), "the anchor was asked: no step counts twice"
    assert (result.tokens, result.single, result.fallback) == (1, 0, 1)


def test_inside_a_character_the_anchor_is_not_asked() -> None:
    # beam 0 begins with half an é, beam 1 with x
    rows = {"": {0xC3: 30.0, ord("x"): 28.0}, "\ufffd": {0xA9: 30.0}, "x": likes("x")}
    world = table_world(rows, rows)
    search, events = world.search(knobs(beams=2, depth=2, max_tokens=2))
    assert world.anchor.batches[1:] == [{2: 1}], "one decode, of the other beam alone"
    assert search.beams[0].raw == "é".encode()
    assert (search.beams[0].mixed, search.beams[1].mixed) == (1, 2)
    assert (search.count.steps, search.count.unmixed) == (2, 1)
    unmixed = [e for e in events if isinstance(e, Step) and e.anchor_token is None]
    assert [(step.beam, step.position, step.top, step.p_mixed) for step in unmixed] == [(0, 1, (), 0.0)]
    assert [e for e in events if isinstance(e, BeamText) and e.beam == 0] == [BeamText(0, "é", mixed=False)]


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_an_end_in_the_mixture_leaves_the_batch(kv: Kv) -> None:
    end = {DRAFT.eot or 0: 40.0}
    rows = {"y" * n: likes("y") for n in range(1, 5)}
    draft = {**rows, "": {**likes("x", "y"), **end}, "x": end}
    anchor = {**rows, "": {**likes("x", "y"), (ANCHOR.eos or 0): 40.0}, "x": {ANCHOR.eot or 0: 40.0}}
    world = table_world(draft, anchor, kv)
    search, _ = world.search(knobs(beams=3, depth=3, max_tokens=4))
    assert [(b.text, b.finish) for b in search.beams] == [("", "stop"), ("x", "stop"), ("yyyy", "length")]
    assert world.draft.batches[1:] == [{2: 1, 3: 1}, {3: 1}, {3: 1}]
    assert [beam.mixed for beam in search.beams] == [0, 1, 3], "the end is no token of the answer"


def test_ends_are_summed_for_the_turns_end() -> None:
    # neither end alone beats x, both together do
    row = {"": {DRAFT.eos or 0: 30.0, DRAFT.eot or 0: 30.0, ord("x"): 30.5}}
    world = table_world(row, {"": {ANCHOR.eot or 0: 30.0, ord("x"): 30.0}})
    search, _ = world.search(knobs(beams=1, depth=1, max_tokens=1, alpha=0.5))
    assert search.beams[0].finish == "stop"


def test_ignoring_ends_goes_on_to_the_limit() -> None:
    search, _ = World(3, end=50.0).search(knobs(beams=2, depth=2, max_tokens=6, ignore_eos=True))
    assert [(len(beam.tokens), beam.finish) for beam in search.beams] == [(6, "length")] * 2


def test_the_anchor_follows_the_text_not_the_tokens() -> None:
    # the draft writes "a", "b"; the anchor reads "ab", then its own "abc"
    rows = {"": likes("a"), "a": likes("b"), "ab": likes("c"), "abc": likes("d")}
    world = table_world(rows, rows)
    search, _ = world.search(knobs(beams=1, depth=4, max_tokens=4))
    assert search.beams[0].text == "abcd"
    assert list(world.anchor.tokens(1)) == [*ANCHOR_PROMPT, *ANCHOR.encode("abc")]
    assert len(ANCHOR.encode("abc")) == 1
    assert world.anchor.batches == [{0: len(ANCHOR_PROMPT)}, {1: 1}, {1: 1}, {1: 1}]


def test_a_stop_string_ends_a_beam_and_is_not_shown() -> None:
    rows = {text: likes(nxt) for text, nxt in zip(["", "h", "h\n", "h\nQ"], "h\nQ:", strict=True)}
    world = table_world(rows, rows)
    search, events = world.search(knobs(beams=1, depth=1, max_tokens=9), stop_strings=("\nQ:",))
    assert (search.beams[0].text, search.beams[0].finish) == ("h", "stop")
    assert len(world.draft.batches) == 4, "nothing is decoded behind it"
    assert "".join(e.text for e in events if isinstance(e, BeamText)) == "h"


def test_text_held_back_is_shown_at_the_end() -> None:
    rows = {"": likes("h"), "h": likes("\n"), "h\n": likes("Q")}
    world = table_world(rows, rows)
    search, _ = world.search(knobs(beams=1, depth=1, max_tokens=3), stop_strings=("\nQ:",))
    assert (search.beams[0].text, search.beams[0].finish) == ("h\nQ", "length")


def test_the_room_may_be_less_than_the_knob() -> None:
    search, _ = World(1, end=-50.0).search(knobs(beams=2, max_tokens=9), max_tokens=4)
    assert [(len(beam.tokens), beam.finish) for beam in search.beams] == [(4, "length")] * 2


def test_completing_in_two_parts_is_completing_at_once() -> None:
    config = knobs(beams=3, depth=2, max_tokens=8)
    whole, _ = World(5, end=0.0).search(config)
    world = World(5, end=0.0)
    search = BeamSearch(world.draft, [BridgedAnchor(world.anchor, world.bridge)], config, max_tokens=8)
    list(
        search.start(
            PromptCache(world.draft).row(DRAFT_PROMPT), [PromptCache(world.anchor).row(ANCHOR_PROMPT)]
        )
    )
    list(search.extend([ANCHOR_PROMPT]))
    list(search.complete(until=4))
    assert all(len(beam.tokens) == 4 for beam in search.beams)
    list(search.complete())
    assert outcomes(search) == outcomes(whole)


def test_a_dropped_beam_frees_its_cells_and_the_others_are_as_they_would_be() -> None:
    config = knobs(beams=3, depth=2, max_tokens=8)
    whole, _ = World(5, end=0.0).search(config)
    world = World(5, end=0.0)
    search = BeamSearch(world.draft, [BridgedAnchor(world.anchor, world.bridge)], config, max_tokens=8)
    list(
        search.start(
            PromptCache(world.draft).row(DRAFT_PROMPT), [PromptCache(world.anchor).row(ANCHOR_PROMPT)]
        )
    )
    list(search.extend([ANCHOR_PROMPT]))
    list(search.complete(until=4))
    search.drop([search.beams[0], search.beams[2]])
    assert [len(world.draft.tokens(beam.sequence)) for beam in search.beams][::2] == [0, 0]
    list(search.complete())
    assert outcomes(search)[1] == outcomes(whole)[1]
    assert [beam.finish for beam in search.beams] == ["cancelled", "length", "cancelled"]


def test_samplers_see_mixed_tokens_and_are_closed() -> None:
    # the draft would repeat x for ever; a penalty that sees the mixed x moves it to y
    always = {ord("x"): 3.0, ord("y"): 2.0}
    rows = {"x" * n: always for n in range(9)}
    world = table_world(rows, rows)
    fixed: dict[str, Any] = {"beams": 1, "depth": 2, "max_tokens": 3, "temperature": 0}
    search, _ = world.search(knobs(**fixed, repeat_penalty=2.0))
    assert search.beams[0].text == "xxy"
    assert search.beams[0].sampler is None
    assert world.search(knobs(**fixed, repeat_penalty=1.0))[0].beams[0].text == "xxx"


def steered(draft: str, anchor: str, *, strip: bool = False) -> Beam:
    """A beam mixed for its whole length, with the anchor's word for it."""
    rows = [
        row_of({text[:n]: likes(text[n]) for n in range(len(text))}, vocabulary, prompt)
        for text, vocabulary, prompt in ((draft, DRAFT, DRAFT_PROMPT), (anchor, ANCHOR, ANCHOR_PROMPT))
    ]
    world = World(0, draft_row=rows[0], anchor_row=rows[1])
    config = knobs(beams=1, depth=len(anchor), max_tokens=len(anchor), alpha=1.0)
    return world.search(config, strip_leading_space=strip)[0].beams[0]


def test_a_beam_knows_where_it_left_the_drafts_way() -> None:
    assert steered("xyz", "xyz").steered_at is None
    assert steered("xyz", "xno").steered_at == 1
    assert steered("xyz", "no").steered_at == 0


def test_where_is_counted_in_the_text_that_is_shown() -> None:
    beam = steered(" xyz", " xno", strip=True)
    assert (beam.text, beam.steered_at) == ("xno", 1)


def test_the_start_of_a_later_beam_is_no_steering() -> None:
    rows = {"": likes("x", "y"), "x": likes("z"), "y": likes("z")}
    search, _ = table_world(rows, rows).search(knobs(beams=2, depth=2, max_tokens=2))
    assert [(beam.text, beam.steered_at) for beam in search.beams] == [("xz", None), ("yz", None)]


def test_the_start_of_a_later_beam_that_the_draft_finds_unlikely_is_steering() -> None:
    draft = {"": {ord("x"): 30.0, ord("y"): 26.0}, "x": likes("z"), "y": likes("z")}
    search, events = table_world(draft, draft).search(knobs(beams=2, depth=2, max_tokens=2))
    assert [(beam.text, beam.steered_at) for beam in search.beams] == [("xz", None), ("yz", 0)]
    steps = [event for event in events if isinstance(event, Step)]
    assert [step.steered for step in steps if step.beam == 1] == [True, False]


def test_beam_texts_join_to_the_text() -> None:
    search, events = World(9).search(knobs(beams=3, max_tokens=8))
    texts = [event for event in events if isinstance(event, BeamText)]
    assert all(event.text for event in texts)
    for beam in search.beams:
        assert "".join(event.text for event in texts if event.beam == beam.index) == beam.text != ""
