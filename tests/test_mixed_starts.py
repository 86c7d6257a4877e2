"""The mixed start of each beam, by every rule, against a slow one: each token anew, in dictionaries."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alignbeam_local.config import Config
from alignbeam_local.events import Event, Step
from alignbeam_local.knobs.method import AlphaRule
from alignbeam_local.lm.language_model import Logits
from alignbeam_local.lm.prompt_cache import PromptCache
from alignbeam_local.lm.vocabulary import is_unfinished
from alignbeam_local.search.anchors import BridgedAnchor
from alignbeam_local.search.beams import BeamSearch
from alignbeam_local.search.bridge import Bridge
from alignbeam_local.search.position.refusing import first_tokens
from tests.fake_lm import FakeLM, Row, fake_vocabulary, hashed_row
from tests.test_beams import ANCHOR, DRAFT, DRAFT_PROMPT, Kv, nudged, nudges, softmax

OTHER = fake_vocabulary("he", "ab", " the", "b\n")
VOCABULARIES = (ANCHOR, OTHER, ANCHOR)
#: Tokens of the draft, some of which no anchor has as one.
GATE_TOKENS = [*b"abeI \xc3", 256, 257]
Dict = dict[int, float]


@dataclass
class World:
    """A draft, and anchors with bridges of their own; a twin reads another prompt."""

    draft_row: Row
    anchor_rows: list[Row]
    kv: Kv = "seq"
    has_twins: bool = False
    twin_prompt: str = "Refuse! Please say:"
    anchors: list[BridgedAnchor] = field(init=False)

    def __post_init__(self) -> None:
        self.draft = FakeLM(DRAFT, self.draft_row, kv_strategy=self.kv)
        pairs = list(zip(VOCABULARIES, self.anchor_rows, strict=False))
        self.lms = [FakeLM(vocabulary, row, kv_strategy=self.kv) for vocabulary, row in pairs]
        twins = [FakeLM(vocabulary, row, kv_strategy=self.kv) for vocabulary, row in pairs]
        self.twins = twins if self.has_twins else []

    def prompts(self) -> list[list[int]]:
        plain = [lm.vocabulary.encode("Please say:") for lm in self.lms]
        return [*plain, *(lm.vocabulary.encode(self.twin_prompt) for lm in self.twins)]

    def search(self, config: Config) -> tuple[BeamSearch, list[Event]]:
        rows = [
            PromptCache(lm).row(ids) for lm, ids in zip([*self.lms, *self.twins], self.prompts(), strict=True)
        ]
        draft_row = PromptCache(self.draft).row(DRAFT_PROMPT)
        search = BeamSearch(
            self.draft,
            [
                BridgedAnchor(
                    lm,
                    Bridge(DRAFT, lm.vocabulary, draft_turn_end=DRAFT.turn_end(True)),
                    f"anchor{number}",
                    config.weights[number],
                    self.twins[number] if self.twins else None,
                )
                for number, lm in enumerate(self.lms)
            ],
            config,
            max_tokens=config.max_tokens,
            gate_tokens=GATE_TOKENS,
        )
        events = [*search.start(draft_row, rows), *search.extend(self.prompts())]
        search.close()
        return search, events


class Slow:
    """One token after the other, everything anew."""

    def __init__(self, world: World, config: Config) -> None:
        self.world, self.config = world, config
        self.count = len(world.lms)
        self.is_tied = False  # whether rounding may have decided anything
        self.gates: list[float] = []
        self.used = list(range(self.count))
        if config.anchors == "strictest" and self.count > 1:
            masses = [self.refusing(number, self.anchor_row(number, [])) for number in self.used]
            self.used = [masses.index(max(masses))]

    def beams(self) -> list[tuple[list[int], int]]:
        """By beam its mixed start, and how many of its tokens were mixed."""
        first = self.position([], 0.0)
        starts = sorted(first.f, key=lambda t: (-first.f[t], t)) or self.draft_order([])
        return [self.run(token) for token in starts[: self.config.beams]]

    def run(self, token: int) -> tuple[list[int], int]:
        config = self.config
        tokens: list[int] = []
        mixed, together, potential = 0, 0, 0.0
        while True:
            at = self.position(tokens, potential)
            potential = at.potential
            together = 0 if at.parts else together + at.asked
            if not tokens:
                at.f = at.f and {token: 1.0}  # a beam's first token is given
            choice = max(at.f, key=lambda t: (at.f[t], -t)) if at.f else self.draft_order(tokens)[0]
            choice = token if not tokens else choice
            if choice in DRAFT.end_tokens and not config.ignore_eos:
                return tokens, mixed
            tokens = [*tokens, choice]
            mixed += bool(at.f)
            if len(tokens) == config.max_tokens:
                return tokens, mixed
            if not self.goes_on(len(tokens), together):
                return tokens, mixed

    def goes_on(self, count: int, together: int) -> bool:
        most = self.config.longest_prefix
        if count >= most or count < self.config.depth:
            return count < most
        if self.config.prefix == "adaptive":
            return together < self.config.agree_for
        return self.config.alpha_rule == "disagreement"

    # --- one position

    @dataclass
    class At:
        f: Dict
        potential: float
        parts: bool
        asked: int  # 1, or 0: what says nothing

    def position(self, tokens: list[int], potential: float) -> At:
        config = self.config
        raw = DRAFT.pieces(tokens)
        if is_unfinished(raw):
            return self.At({}, potential, False, 0)
        rows = [self.anchor_row(number, tokens) for number in self.used]
        weights = [config.weights[number] for number in self.used]
        p_d = self.draft_probabilities(tokens)
        landed = self.mean(
            [self.landing_mass(n, row) for n, row in zip(self.used, rows, strict=True)], weights
        )
        alpha: float | None = config.alpha
        if config.alpha_rule == "decay":
            alpha = config.alpha / 2 ** (len(tokens) / config.depth)
        if config.alpha_rule == "disagreement":
            potential = potential * 7 / 8 + half_l1(landed, p_d)
            fires = potential >= 1
            potential *= 0.6 if fires else 1
            alpha = config.alpha if fires or len(tokens) < config.depth else None
        mixtures = [self.eq_1(n, row, p_d, alpha or 0.0) for n, row in zip(self.used, rows, strict=True)]
        f = {} if alpha is None else self.mean(mixtures, weights)
        best = self.draft_order(tokens)[0]
        if len(self.used) == 1:
            sid = int(np.lexsort((np.arange(len(rows[0])), -rows[0]))[0])
            dids = self.landing(self.used[0], sid)
            choice = dids[0] if len(dids) == 1 else -1
        else:
            choice = max(landed, key=lambda t: (landed[t], -t)) if landed else -1
        parts = choice not in (-1, best) and landed.get(choice, 0.0) >= 0.5
        self.is_tied |= abs(landed.get(choice, 0.0) - 0.5) < 1e-6 or near_tie(f) or near_tie(landed)
        return self.At(f, potential, parts, 1)

    def anchor_row(self, number: int, tokens: list[int]) -> Logits:
        lm, row = self.world.lms[number], self.world.anchor_rows[number]
        prompts = self.world.prompts()
        said = lm.vocabulary.encode(DRAFT.pieces(tokens).decode("utf-8", "replace"))
        plain = row([*prompts[number], *said])
        if self.config.anchor_row == "plain":
            return plain
        return self.gated(number, tokens, plain, row([*prompts[self.count + number], *said]))

    def gated(self, number: int, tokens: list[int], plain: Logits, unasked: Logits) -> Logits:
        """Eq. 5 to 8 as they are written."""
        p_d, landed = (
            softmax(self.world.draft_row([*DRAFT_PROMPT, *tokens])),
            self.landing_mass(number, unasked),
        )
        sure = [
            self.eq_5([p_d[t] for t in GATE_TOKENS]),
            self.eq_5([landed.get(t, 0.0) for t in GATE_TOKENS]),
        ]
        c = 1 / (1 + exp(-(sure[0] - sure[1])))
        if len(tokens) >= self.config.depth:
            c *= exp(-(len(tokens) - self.config.depth) / 8)
        self.gates.append(c)
        return np.array([(1 - c) * a + c * b for a, b in zip(plain, unasked, strict=True)], np.float32)

    def eq_5(self, shares: list[float]) -> float:
        """The smallest k over K; of tokens that have nothing each is as likely as the next."""
        shares = shares if sum(shares) else [1.0] * len(shares)
        ranked, held = sorted(shares, reverse=True), 0.0
        for k, share in enumerate(ranked, 1):
            held += share / sum(shares)
            self.is_tied |= abs(held - 0.9) < 1e-9
            if held >= 0.9:
                return k / len(shares)
        return 1.0

    def refusing(self, number: int, row: Logits) -> float:
        p = softmax(row)
        return sum(p[int(token)] for token in first_tokens(VOCABULARIES[number]))

    def landing(self, number: int, sid: int) -> list[int]:
        vocabulary = VOCABULARIES[number]
        if sid in vocabulary.end_tokens:
            return [t for t in [DRAFT.eot] if t is not None]
        return DRAFT.encode(vocabulary.piece(sid))

    def top(self, row: Logits) -> list[int]:
        order = sorted((t for t in range(len(row)) if np.isfinite(row[t])), key=lambda t: (-row[t], t))
        return order[: self.config.bridge_width]

    def landing_mass(self, number: int, row: Logits) -> Dict:
        """What of the anchor lands, on tokens of Eq. 1 with alpha = 1, over which anything landed."""
        mass = defaultdict[int, float](float)
        p_s = softmax(row)
        for sid in self.top(row):
            if len(dids := self.landing(number, sid)) == 1:
                mass[dids[0]] += p_s[sid]
        return dict(mass)

    def eq_1(self, number: int, row: Logits, p_d: Dict, alpha: float) -> Dict:
        p_s = softmax(row)
        f = defaultdict[int, float](float)
        for sid in self.top(row):
            if len(dids := self.landing(number, sid)) == 1:
                f[dids[0]] += alpha * p_s[sid] + (1 - alpha) * p_d[dids[0]]
        whole = sum(f.values())
        return {token: mass / whole for token, mass in f.items() if mass > 0}

    @staticmethod
    def mean(each: Sequence[Dict], weights: Sequence[float]) -> Dict:
        heard = [(one, w) for one, w in zip(each, weights, strict=True) if one and w > 0]
        whole = sum(w for _, w in heard)
        return {
            token: sum(one.get(token, 0.0) * w / whole for one, w in heard)
            for token in {token for one, _ in heard for token in one}
        }

    def draft_probabilities(self, tokens: list[int]) -> Dict:
        p = dict(enumerate(softmax(self.world.draft_row([*DRAFT_PROMPT, *tokens]))))
        assert DRAFT.eot is not None
        return p | {DRAFT.eot: sum(p[token] for token in DRAFT.end_tokens)}

    def draft_order(self, tokens: list[int]) -> list[int]:
        row = self.world.draft_row([*DRAFT_PROMPT, *tokens])
        return sorted(range(DRAFT.size), key=lambda t: (-row[t], t))


def near_tie(shares: Dict) -> bool:
    """Whether the two largest are equal but for rounding, of tokens that are not written alike."""
    first, second, *_ = [*sorted(shares.values(), reverse=True), 0.0, 0.0]
    return 0 < first - second < 1e-9 * first


def half_l1(landed: Dict, p_d: Dict) -> float:
    own = {token: p_d[token] for token in landed}
    if not landed or not sum(own.values()):
        return 0.0
    return 0.5 * sum(
        abs(landed[token] / sum(landed.values()) - own[token] / sum(own.values())) for token in landed
    )


CONFIGS = st.builds(
    Config,
    alpha=st.sampled_from([0.3, 0.5, 1.0]),
    depth=st.integers(1, 5),
    beams=st.integers(1, 3),
    bridge_width=st.sampled_from([4, 12, 300]),
    prefix=st.sampled_from(["fixed", "adaptive"]),
    max_depth=st.integers(1, 14),
    agree_for=st.integers(1, 3),
    alpha_rule=st.sampled_from(["fixed", "decay", "disagreement"]),
    anchors=st.sampled_from(["mean", "strictest"]),
    max_tokens=st.integers(2, 16),
    anchor=st.sampled_from(["a", ("a", "b"), ("a", "b", "c")]),
)


GATED = st.builds(
    Config,
    alpha=st.sampled_from([0.3, 1.0]),
    depth=st.integers(1, 5),
    beams=st.integers(1, 3),
    bridge_width=st.sampled_from([4, 40, 300]),
    prefix=st.sampled_from(["fixed", "adaptive"]),
    agree_for=st.integers(1, 3),
    anchors=st.sampled_from(["mean", "strictest"]),
    anchor_row=st.just("gated"),
    max_tokens=st.integers(2, 24),
    anchor=st.sampled_from(["a", ("a", "b"), ("a", "b", "c")]),
)


def starts(search: BeamSearch) -> list[tuple[list[int], int]]:
    return [(beam.tokens, beam.mixed) for beam in search.beams]


@settings(max_examples=120)
@given(CONFIGS | GATED, st.integers(0, 10**6), st.sampled_from(["seq", "state"]), st.sampled_from([0.0, 4.0]))
def test_mixed_starts_in_a_batch_are_the_slow_ones(config: Config, seed: int, kv: Kv, end: float) -> None:
    count = len(config.anchor_names)
    draft = nudged(hashed_row(DRAFT.size, seed), nudges(DRAFT, end))
    rows = [
        nudged(hashed_row(vocabulary.size, seed + 1 + number), nudges(vocabulary, end) | {ord("I"): 9.0})
        for number, vocabulary in enumerate(VOCABULARIES[:count])
    ]
    world = World(draft, rows, kv, has_twins=config.is_gated)
    search, events = world.search(config)
    slow = Slow(world, config)
    expected = slow.beams()
    assume(not slow.is_tied)
    assert starts(search) == expected
    told = {round(c, 4) for event in events if isinstance(event, Step) for c in event.gates}
    assert told <= {round(c + off, 4) for c in slow.gates for off in (-1e-5, 0.0, 1e-5)}


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from(["fixed", "decay", "disagreement"]))
def test_beams_can_be_mixed_again_where_they_stand(seed: int, again: int, rule: AlphaRule) -> None:
    rows = [nudged(hashed_row(ANCHOR.size, seed + 1), nudges(ANCHOR, 0.0))]
    world = World(nudged(hashed_row(DRAFT.size, seed), nudges(DRAFT, 0.0)), rows)
    config = Config(
        depth=2, beams=2, max_tokens=12, max_depth=2, anchor="a", alpha_rule=rule, ignore_eos=True
    )
    search, _ = world.search(config)
    before = [len(beam.tokens) for beam in search.beams]
    list(search.complete(until=5))
    events = list(search.extend(world.prompts(), steps=again))
    steps = [event for event in events if isinstance(event, Step)]
    assert before == [2, 2]
    more = max(again, 2) if rule == "disagreement" else again  # that rule goes on to max_depth
    assert [len(beam.tokens) for beam in search.beams] == [5 + more] * 2
    assert len(steps) == 2 * more


def test_mixed_again_the_gate_counts_from_the_answers_first_token() -> None:
    """However often an answer is put back: what decays is the question's distance."""
    rows = [nudged(hashed_row(ANCHOR.size, 8), nudges(ANCHOR, 0.0))]
    world = World(nudged(hashed_row(DRAFT.size, 7), nudges(DRAFT, 0.0)), rows, has_twins=True)
    config = Config(depth=2, beams=2, max_tokens=12, anchor="a", anchor_row="gated", ignore_eos=True)
    search, _ = world.search(config)
    list(search.complete(until=5))
    events = list(search.extend(world.prompts(), steps=4))
    asked = [event for event in events if isinstance(event, Step) and event.gates]
    assert {step.beam for step in asked} == {0, 1}
    slow = Slow(world, config)
    for step in asked:
        slow.anchor_row(0, search.beams[step.beam].tokens[: step.position])
        assert list(step.gates) == [pytest.approx(slow.gates[-1])]
        assert step.gates[0] < 0.74 * exp(-(5 - 2) / 8)
