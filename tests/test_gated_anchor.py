"""PACT's gate over the bridge: its row by hand, and what of it a user meets, from a flag to the result."""

import json
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignbeam_local.cluster.model_work import roles_about
from alignbeam_local.config import Config
from alignbeam_local.engine.snapshot import capture, restore
from alignbeam_local.errors import ContextFull, ModelError, UsageError
from alignbeam_local.evaluation.methods.specs import parse_method
from alignbeam_local.evaluation.runs.runner import RunPlan, manifest
from alignbeam_local.machine.context_size import context_sizes
from alignbeam_local.models.registry import Registry
from alignbeam_local.plan.work import Workload, batches_of
from alignbeam_local.prompt.message import Message
from alignbeam_local.result_json import json_line, traced_object
from alignbeam_local.search.anchors import Anchors, BridgedAnchor
from alignbeam_local.search.beam import Beam
from alignbeam_local.search.bridge import Bridge
from alignbeam_local.search.gate import breadth, gate
from alignbeam_local.search.mixer import Mixer
from alignbeam_local.search.position.gated import Gate
from alignbeam_local.search.safety_tokens import SafetyTokens
from tests.fake_lm import FakeLM, fake_vocabulary, hashed_row, scripted_row
from tests.fake_loader import FakeLoader, FakeModel
from tests.llama_models import write_tiny
from tests.talk import DRAFT as TALKER
from tests.talk import LONG, Kv, Talk
from tests.test_answer import ANCHOR, DRAFT, HELP, REFUSAL
from tests.test_safety_tokens import token_file
from tests.test_several_anchors import ASKED, BOTH, answered, loader

HEADER = "<|im_start|>assistant\n"
BRIDGE = Bridge(DRAFT, ANCHOR, draft_turn_end=DRAFT.turn_end(True))
S = [ord("a"), ord("b"), ord("c"), ord("d")]


def row(size: int, **shares: float) -> Any:
    """Logits (size,) with these shares of single letters; all else has nothing to speak of."""
    logits = np.full(size, -80.0, np.float32)
    for letter, share in shares.items():
        logits[ord(letter)] = np.log(share)
    return logits


# --- one row


def test_the_row_and_c_by_hand() -> None:
    """The draft needs one of four tokens, the row without the question two: c = 1 / (1 + exp(1/4))."""
    own, post = row(ANCHOR.size, a=0.5, x=0.5), row(ANCHOR.size, a=0.25, b=0.25, x=0.5)
    said = Gate(S, Config()).said(own, post, BRIDGE, row(DRAFT.size, a=0.1, y=0.9), 0)
    c = 1 / (1 + exp(0.25))
    assert said.gate == pytest.approx(c)
    assert said.row.dtype == np.float32
    assert said.row[ord("a")] == pytest.approx((1 - c) * np.log(0.5) + c * np.log(0.25), rel=1e-5)
    assert said.row[ord("b")] == pytest.approx((1 - c) * -80 + c * np.log(0.25), rel=1e-5)


def test_where_nothing_lands_on_them_each_is_as_likely() -> None:
    """S is what the anchor has no single token for, or what is behind its likeliest B."""
    words = fake_vocabulary("abc", "abd")
    bridge = Bridge(words, ANCHOR, draft_turn_end=words.turn_end(True))
    config = Config(bridge_width=1)
    post, draft_row = row(ANCHOR.size, x=0.9, a=0.1), row(words.size, a=1.0)
    for tokens in ([256, 257], S):
        said = Gate(tokens, config).said(post, post, bridge, draft_row, 0)
        equal = breadth(np.zeros(len(tokens)))
        tuned = breadth(draft_row[tokens].astype(np.float64))
        assert said.gate == pytest.approx(gate(tuned, equal))


def test_at_first_c_is_whole_and_far_on_the_row_is_the_plain_one() -> None:
    own, post = hashed_row(ANCHOR.size, 1)([1]), hashed_row(ANCHOR.size, 2)([1])
    draft_row, config = hashed_row(DRAFT.size, 3)([1]), Config(depth=6)
    said = [Gate(S, config).said(own, post, BRIDGE, draft_row, at) for at in (0, 5, 6, 14, 10**5)]
    c = said[0].gate
    assert c is not None
    assert [one.gate for one in said] == pytest.approx([c, c, c, c * exp(-1), 0.0])
    assert said[-1].row is own, "to the bit"
    assert said[0].row.tolist() != own.tolist()


@pytest.mark.parametrize(("c", "expected"), [(0.0, "own"), (1.0, "post")])
def test_c_at_its_limits(monkeypatch: pytest.MonkeyPatch, c: float, expected: str) -> None:
    rows = {"own": hashed_row(ANCHOR.size, 1)([1]), "post": hashed_row(ANCHOR.size, 2)([1])}
    monkeypatch.setattr("alignbeam_local.search.position.gated.gate", lambda *_: c)
    draft_row = hashed_row(DRAFT.size, 3)([1])
    said = Gate(S, Config()).said(rows["own"], rows["post"], BRIDGE, draft_row, 0)
    assert said.row.tolist() == rows[expected].tolist()


def test_boosting_all_of_them_does_not_move_the_gate() -> None:
    own, post = hashed_row(ANCHOR.size, 1)([1]), hashed_row(ANCHOR.size, 2)([1])
    draft_row = hashed_row(DRAFT.size, 3)([1])
    plain, boosted = (
        Gate(S, Config()).said(own, post, BRIDGE, each, 0).gate
        for each in (draft_row, SafetyTokens(S, 5.0).changed(draft_row))
    )
    assert plain == pytest.approx(boosted)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("which", ["own", "post", "draft"])
def test_rows_that_hold_no_numbers_are_no_answer(bad: float, which: str) -> None:
    rows = {"own": ANCHOR, "post": ANCHOR, "draft": DRAFT}
    made = {name: hashed_row(vocabulary.size)([1]) for name, vocabulary in rows.items()}
    made[which][:] = bad
    mixer = Mixer([BRIDGE], Config())
    with pytest.raises(ModelError, match="not numbers"):
        mixer.mix(
            made["draft"],
            [Gate(S, Config()).said(made["own"], made["post"], BRIDGE, made["draft"], 0).row],
        )


# --- answers


def gated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, opened: FakeLoader | None = None, **knobs: Any
) -> Any:
    file = str(token_file(tmp_path / "tokens.json", "I", "c", "T", vocabulary=DRAFT))
    given = {"anchor": "anchor", "anchor_row": "gated", "safety_file": file, **knobs}
    return answered(monkeypatch, opened or loader(), **given)


def test_the_twin_reads_no_question_and_follows_the_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = loader()
    result, steps, engine = gated(monkeypatch, tmp_path, opened)
    own, twin = opened.opened["anchor"]
    assert "cook?" in ANCHOR.pieces(own.tokens(0)).decode()
    assert ANCHOR.text(twin.tokens(0)[0]) == "<|im_start|>"
    assert ANCHOR.pieces(twin.tokens(0)).decode() == "assistant\n"
    assert ANCHOR.pieces(twin.tokens(1)[len(twin.tokens(0)) :]).decode() == result.text[:3], "N - 1 tokens"
    assert [len(step.gates) for step in steps] == [1] * 4
    assert all(0 < step.gates[0] < 1 for step in steps)
    assert list(engine.models.by_role) == ["draft", "anchor", "anchor_twin"]
    assert list(result.models) == ["draft", "anchor", "judge"]
    assert result.config["anchor_row"] == "gated"
    plain = engine.answer("Can I cook?", anchor_row="plain")
    before = twin.decoded_tokens
    assert (plain.config["anchor_row"], twin.decoded_tokens) == ("plain", before)


def test_what_the_answer_is_made_to_begin_with_is_part_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = loader()
    gated(monkeypatch, tmp_path, opened, prefill="Sure")
    assert ANCHOR.pieces(opened.opened["anchor"][1].tokens(0)).decode() == "assistant\nSure"


def test_an_anchor_that_refuses_whatever_is_asked_refuses_less(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the question it begins "Take" too: both rows count alike, so the draft decides."""
    says = {ASKED: REFUSAL, HEADER: HELP}
    opened = loader()
    opened.models["anchor"] = FakeModel(ANCHOR, scripted_row(ANCHOR, says))
    plain, _, _ = gated(monkeypatch, tmp_path, opened, anchor_row="plain", alpha=0.7)
    assert plain.text.startswith("I ca")
    text = gated(monkeypatch, tmp_path, opened, alpha=0.7)[0].text
    assert text.startswith("Take")


def test_several_anchors_have_gates_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, steps, engine = gated(monkeypatch, tmp_path, anchor=BOTH)
    assert [len(step.gates) for step in steps] == [2] * len(steps)
    assert list(engine.models.by_role)[-2:] == ["anchor_twin", "anchor2_twin"]
    _, steps, _ = gated(monkeypatch, tmp_path, anchor=BOTH, anchors="strictest")
    assert [len(step.gates) for step in steps] == [1] * len(steps)


def test_answers_that_share_batches_are_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone, _, _ = gated(monkeypatch, tmp_path, anchor=BOTH)
    _, _, engine = gated(monkeypatch, tmp_path, anchor=BOTH, parallel=2)
    asked = [([Message("user", "Can I cook?")], engine.config)] * 3
    assert [result.beams for result in engine.parallel().answers(asked)] == [alone.beams] * 3


def test_what_was_kept_goes_back_to_the_twin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result, _, engine = gated(monkeypatch, tmp_path)
    held = capture(engine.models)
    assert len({prompt and prompt.prompt for prompt in held.prompts}) == 3, "the twin's is its own"
    engine.forget()
    assert restore(engine.models, held)
    assert engine.answer("Can I cook?").text == result.text


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_a_long_chat_goes_on_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kv: Kv) -> None:
    """Turns are left out and read ahead, the twin holds what begins an answer, and nothing else."""
    file = str(token_file(tmp_path / "tokens.json", "A", "1", vocabulary=TALKER))
    talk = Talk(monkeypatch, script=LONG, kv=kv, context=200, depth=3, anchor_row="gated", safety_file=file)
    for n in range(20):
        assert talk.ask(f"{n}?").text == f"Answer {n}."
        talk.read_ahead()
    twin = talk.loader.opened["anchor"][-1]
    assert ANCHOR.pieces(twin.tokens(0)).decode() == "assistant\n"
    assert "0?" not in TALKER.pieces(talk.loader.opened["draft"][-1].tokens(0)).decode().split("\n"), (
        "left out"
    )


def test_an_answer_that_asks_for_the_twin_opens_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, _, engine = gated(monkeypatch, tmp_path, anchor_row="plain")
    engine.answer("Can I cook?", anchor_row="gated")
    assert list(engine.models.by_role) == ["draft", "anchor", "anchor_twin"]


def test_what_was_kept_of_one_more_anchor_goes_back_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, _, engine = gated(monkeypatch, tmp_path, anchor=BOTH)
    held = capture(engine.models)
    assert len(held.prompts) == 5
    engine.forget()
    assert restore(engine.models, held)
    prompts = [model.prompt.save() for model in engine.models.followers]
    assert [p and p.prompt for p in prompts] == [p and p.prompt for p in held.prompts]


# --- what does not fit


def test_the_twin_too_reads_no_more_than_it_was_made_for() -> None:
    models = [FakeLM(ANCHOR, hashed_row(ANCHOR.size)) for _ in range(2)]
    anchor = BridgedAnchor(models[0], BRIDGE, twin=models[1], context=12)
    anchors = Anchors([anchor], Gate(S, Config()))
    beam = Beam(0, None, tokens=[0] * 40, raw=b"12345678")  # type: ignore[arg-type]
    anchors.read_prompts([[1, 2], [1] * 4])
    anchors.require_room([beam])
    anchors.read_prompts([[1, 2], [1] * 5])
    with pytest.raises(ContextFull, match="needs 13 tokens of the anchor, which was made for 12"):
        anchors.require_room([beam])


def test_without_a_file_it_is_an_error_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = loader()
    with pytest.raises(UsageError, match="needs a file that names them") as caught:
        gated(monkeypatch, tmp_path, opened, safety_file=None)
    assert "alignbeam tokens find draft --base-prompt raw --out tokens.json" in caught.value.hint
    assert opened.decoded("draft") == 0
    other = token_file(tmp_path / "other.json", "U", vocabulary=fake_vocabulary("other"))
    with pytest.raises(ModelError, match="another vocabulary"):
        gated(monkeypatch, tmp_path, safety_file=str(other))


def test_without_mixing_no_file_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result, _, engine = gated(monkeypatch, tmp_path, safety_file=None, depth=0)
    assert result.text == HELP
    assert list(engine.models.by_role) == ["draft"]


def test_a_template_that_writes_nothing_before_an_answer_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = loader()
    bare = "{% for m in messages %}{{ m.content }}{% endfor %}"
    opened.models["anchor"] = FakeModel(ANCHOR, scripted_row(ANCHOR, {"cook?": REFUSAL}), bare)
    with pytest.raises(ModelError, match="writes nothing before an answer"):
        gated(monkeypatch, tmp_path, opened)


@pytest.mark.parametrize(
    "values",
    [
        {"anchor_row": "gated", "safety_tokens": "ablate"},
        {"anchor_row": "gate"},
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"anchor_row = gated|anchor_row = 'gate'"):
        Config.of(values)


# --- what is counted, what is recorded


def test_the_twin_is_counted_and_reads_but_what_begins_an_answer() -> None:
    config = Config.of({"beams": 1, "anchor_row": "gated"})
    found = batches_of(config, Workload(1, 100, 20))
    assert [(b.role, b.rows) for b in found if b.phase == "prompt"] == [
        ("draft", 130),
        ("anchor", 130),
        ("anchor", 4),
    ]
    assert [b.role for b in found if b.phase == "mixing"] == ["draft", "anchor", "anchor"]
    assert list(context_sizes(config)) == ["draft", "anchor", "anchor_twin"]


def test_a_run_records_the_file_where_the_gate_goes_by_it(tmp_path: Path) -> None:
    model, file = write_tiny(tmp_path / "m.gguf", "llama"), token_file(tmp_path / "tokens.json", "U")
    base = Config.of({"draft": str(model), "anchor": str(model), "beams": 1, "safety_file": str(file)})
    specs = [
        "alignbeam",
        "alignbeam:anchor_row=gated",
        "draft:anchor_row=gated",
        "contrastive:anchor_row=gated",
    ]
    entries = [parse_method(spec, base) for spec in specs]
    methods = manifest(RunPlan(entries, [], [1]), Registry({}, {}, ""))["methods"]
    assert [("safety_tokens" in about) for about in methods.values()] == [False, True, False, False]
    assert methods["alignbeam:anchor_row=gated"]["knobs"]["anchor_row"] == "gated"


@pytest.mark.parametrize("knobs", [{"anchor_row": "gated"}, {"safety_tokens": "boost"}])
def test_a_worker_with_other_tokens_is_told_apart(tmp_path: Path, knobs: dict[str, Any]) -> None:
    """Its file has the same path on another machine."""
    model, file = write_tiny(tmp_path / "m.gguf", "llama"), tmp_path / "tokens.json"
    files = {"draft": str(model), "anchor": str(model), "safety_file": str(file)}
    config, registry = Config.of({**files, "beams": 1, **knobs}), Registry({}, {}, "")
    about = []
    for words in ("U", "V"):
        token_file(file, words)
        about.append(roles_about(config, registry))
    assert about[0]["draft"] != about[1]["draft"]
    file.unlink()
    with pytest.raises(ModelError, match="cannot read"):
        roles_about(config, registry)


def test_a_trace_says_c(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, steps, _ = gated(monkeypatch, tmp_path)
    told = json.loads(json_line(traced_object(steps[0])))
    assert told["gates"] == [pytest.approx(steps[0].gates[0], abs=1e-3)]
