"""Several anchors, from a flag to the result: each is loaded, asked, counted and told by itself."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.api import load
from alignbeam_local.config import Config
from alignbeam_local.conversation.saved_state import SavedState, read_state, write_state
from alignbeam_local.engine.engine import Engine
from alignbeam_local.engine.snapshot import Snapshot
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.events import Step
from alignbeam_local.heads.head import Thresholds
from alignbeam_local.lm.prompt_cache import SavedPrompt
from alignbeam_local.machine.context_size import context_sizes
from alignbeam_local.models.registry import Registry
from alignbeam_local.models.toml_files import Profile
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import Result
from alignbeam_local.roles import MOST_ANCHORS, anchor_number, file_role, is_anchor, reader_role, twin_role
from alignbeam_local.search.steering import reading_of, steering_of, unread
from alignbeam_local.server.served import as_served, served_models
from alignbeam_local.settings import resolve
from alignbeam_local.warm import found_server
from alignbeam_local.warm.found_server import FoundServer
from tests.fake_lm import scripted_row
from tests.fake_loader import FakeLoader, FakeModel, fake_engine
from tests.running import run
from tests.test_answer import ANCHOR, DRAFT, HELP, REFUSAL
from tests.test_steering import BEGIN

ASKED = f"cook?{BEGIN}"
BOTH = ["anchor", "other"]
ASK = ("ask", "--anchor", "a", "--anchor", "b")
PLAIN: dict[str, Any] = {"beams": 1, "max_tokens": 30, "depth": 4, "context": 512}


def loader(**said: str) -> FakeLoader:
    """A draft that helps, and anchors that say these."""
    scripts = {"anchor": REFUSAL, "other": HELP} | said
    models = {name: FakeModel(ANCHOR, scripted_row(ANCHOR, {ASKED: text})) for name, text in scripts.items()}
    return FakeLoader({"draft": FakeModel(DRAFT, scripted_row(DRAFT, {ASKED: HELP})), **models})


def answered(
    monkeypatch: pytest.MonkeyPatch, opened: FakeLoader, **knobs: Any
) -> tuple[Result, list[Step], Engine]:
    engine, _ = fake_engine(monkeypatch, opened, **{**PLAIN, **knobs})
    events = list(engine.stream("Can I cook?"))
    return events[-1].result, [e for e in events if isinstance(e, Step)], engine  # type: ignore[union-attr]


# --- knobs


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, ()),
        ("a", ("a",)),
        (["a"], ("a",)),
        (["a", "b"], ("a", "b")),
        ('["a", "b"]', ("a", "b")),
        (("a", "b", "c"), ("a", "b", "c")),
    ],
)
def test_anchors_are_named_by_one_knob(given: Any, names: tuple[str, ...]) -> None:
    config = Config.of({"anchor": given})
    assert config.anchor_names == names
    assert config.anchor == (names[0] if len(names) == 1 else names or None), "one is a text, as ever"
    assert Config.of(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("given", [[], ["a", "a"], ["a", ""], ["a", 3], list("abcdefghi"), True])
def test_what_is_no_list_of_anchors_is_refused(given: Any) -> None:
    assert len("abcdefghi") > MOST_ANCHORS
    with pytest.raises(UsageError, match="anchor"):
        Config.of({"anchor": given})


def test_each_anchor_has_a_role_and_a_twin_only_where_it_is_asked() -> None:
    config = Config.of({"draft": "d", "anchor": ["a", "b"], "judge": "j"})
    assert config.roles == ("draft", "anchor", "anchor2", "judge")
    assert [config.model_named(role) for role in config.roles] == ["d", "a", "b", "j"]
    readers = ["anchor_reader", "anchor2_reader"]
    assert list(context_sizes(config)) == ["draft", "anchor", "anchor2", *readers, "judge"]
    told = config.with_values({"anchor_row": "gated"})
    twins = ["anchor_twin", "anchor2_twin"]
    assert list(context_sizes(told)) == ["draft", "anchor", "anchor2", *twins, *readers, "judge"]
    assert told.model_named("anchor2_twin") == "b"
    assert told.roles == config.roles, "a twin is no model of its own"
    assert config.with_values({"depth": 0}).roles == ("draft", "judge")


def test_the_names_of_roles() -> None:
    assert [
        role
        for role in ("draft", "anchor", "anchor2", "anchor12_twin", "anchor_reader", "anchored", "judge")
        if is_anchor(role)
    ] == [*("anchor", "anchor2", "anchor12_twin", "anchor_reader")]
    assert (anchor_number("anchor"), anchor_number("anchor12_twin")) == (0, 11)
    assert [file_role(role) for role in (twin_role("anchor2"), reader_role("anchor"), "judge")] == [
        *("anchor2", "anchor", "judge")
    ]


@pytest.mark.parametrize(
    ("weights", "anchors", "found"),
    [(None, "a", [1.0]), (None, ["a", "b"], [0.5, 0.5]), ("3,1", ["a", "b"], [0.75, 0.25])],
)
def test_weights_sum_to_1(weights: str | None, anchors: Any, found: list[float]) -> None:
    assert list(Config.of({"anchor": anchors, "anchor_weights": weights}).weights) == found


def test_as_many_weights_as_anchors(monkeypatch: pytest.MonkeyPatch) -> None:
    for weights in ("1", "1,2,3"):
        with pytest.raises(UsageError, match=r"anchor_weights has . for 2 anchors"):
            answered(monkeypatch, loader(), anchor=BOTH, anchor_weights=weights)
    with pytest.raises(UsageError, match="anchor_weights"):
        Config.of({"anchor_weights": "0,0"})
    with pytest.raises(UsageError, match="counts 0 is opened for nothing"):
        Config.of({"anchor_weights": "0,1"})
    with pytest.raises(UsageError, match="anchor_weights has 2 for 1 anchor"):
        resolve({"anchor": "a", "anchor_weights": "1,2"}, Registry({}, {"p": Profile("p", "", {})}, "p"), {})


@pytest.mark.parametrize("source", ["flag", "environment", "profile", "file"])
def test_several_can_be_named_wherever_one_can(source: str, tmp_path: Path) -> None:
    from alignbeam_local.paths import config_file

    registry = Registry(
        {}, {"two": Profile("two", "", {"anchor": BOTH}), "starter": Profile("starter", "", {})}, "starter"
    )
    given: dict[str, dict[str, Any]] = {"flag": {"anchor": BOTH}, "profile": {"profile": "two"}}
    flags = given.get(source, {})
    if source == "file":
        config_file().parent.mkdir(parents=True, exist_ok=True)
        config_file().write_text('anchor = ["anchor", "other"]\n')
    environ = {"ALIGNBEAM_ANCHOR": '["anchor", "other"]'} if source == "environment" else {}
    assert resolve(flags, registry, environ).config.anchor == tuple(BOTH)
    assert resolve({**flags, "anchor": "third"}, registry, environ).config.anchor == "third", (
        "all are replaced"
    )


def test_a_profile_needs_the_files_of_all() -> None:
    registry = Registry({}, {"two": Profile("two", "", {"draft": "d", "anchor": ["a", "b"]})}, "two")
    assert registry.profile_models("two") == ("d", "a", "b")


# --- answers


def test_a_mean_of_one_is_the_answer_of_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one, steps, _ = answered(monkeypatch, loader(), anchor="anchor")
    same, also, _ = answered(monkeypatch, loader(), anchor=["anchor"], anchor_weights="5")
    assert (one.beams, one.bridge, one.anchors, steps) == (same.beams, same.bridge, (), also)
    assert [step.anchors for step in steps] == [()] * len(steps)


@pytest.mark.parametrize(("weights", "refuses"), [("99,1", True), ("1,99", False)])
def test_what_counts_is_the_weight(monkeypatch: pytest.MonkeyPatch, weights: str, refuses: bool) -> None:
    result, _, _ = answered(monkeypatch, loader(), anchor=BOTH, anchor_weights=weights, alpha=1.0)
    assert result.text.startswith(REFUSAL[:4] if refuses else HELP[:4])
    alone, _, _ = answered(monkeypatch, loader(), anchor=BOTH[not refuses], alpha=1.0)
    assert [beam.text for beam in result.beams][:1] == [beam.text for beam in alone.beams][:1]


def test_each_is_loaded_asked_and_told_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = loader()
    result, steps, engine = answered(monkeypatch, opened, anchor=BOTH)
    assert [len(opened.opened[name]) for name in ("anchor", "other")] == [1, 1]
    assert list(engine.models.by_role) == ["draft", "anchor", "anchor2"]
    cards = {role: card.name if card else None for role, card in result.models.items()}
    assert cards == {"draft": "draft", "anchor": "anchor", "judge": None, "anchor2": "other"}
    assert [(one.role, one.weight, one.mixed) for one in result.anchors] == [
        ("anchor", 0.5, True),
        ("anchor2", 0.5, True),
    ]
    assert result.anchors[0].refuses > 0.9 > result.anchors[1].refuses
    assert all(one.bridge.steps == 4 for one in result.anchors)
    assert result.bridge.steps == 8
    assert {tuple(voice.role for voice in step.anchors) for step in steps} == {("anchor", "anchor2")}
    assert [voice.piece for voice in steps[0].anchors] == [REFUSAL[0], HELP[0]]


@pytest.mark.parametrize("order", [BOTH, BOTH[::-1]])
def test_the_strictest_is_the_one_that_begins_to_refuse(
    monkeypatch: pytest.MonkeyPatch, order: list[str]
) -> None:
    opened = loader()
    result, steps, _ = answered(monkeypatch, opened, anchor=order, anchors="strictest", alpha=1.0)
    assert result.text.startswith(REFUSAL[:4])
    mixed = {one.role: one.mixed for one in result.anchors}
    assert mixed == {"anchor": order[0] == "anchor", "anchor2": order[1] == "anchor"}
    assert {voice.role for step in steps for voice in step.anchors} == {role for role in mixed if mixed[role]}
    (lenient,) = opened.opened["other"]
    assert len(lenient.batches) == 1, "it has read the prompt, and no more"


def test_several_share_batches_with_other_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = loader()
    alone, _, _ = answered(monkeypatch, loader(), anchor=BOTH)
    engine, config = fake_engine(monkeypatch, opened, **{**PLAIN, "anchor": BOTH, "parallel": 2})
    list(engine.load())
    from alignbeam_local.prompt.message import Message

    asked = [([Message("user", "Can I cook?")], config)] * 3
    for result in engine.parallel().answers(asked):
        assert isinstance(result, Result)
        assert (result.beams, result.anchors) == (alone.beams, alone.anchors)


# --- heads


def test_of_several_heads_the_one_that_leads_to_more_counts() -> None:
    config = Config.of({"steer": "by_request"})
    limits = Thresholds(low=0.2, high=0.8)
    clear, doubtful, harmful = (
        steering_of(config, p, p, low=limits.low, high=limits.high) for p in (0.1, 0.5, 0.9)
    )
    sure = steering_of(config, 0.15, 0.15, low=0.05, high=0.1)  # less, by a head with other limits
    assert reading_of(config, [clear, doubtful]) == reading_of(config, [doubtful, clear]) == doubtful
    assert reading_of(config, [doubtful, harmful]) == harmful
    assert reading_of(config, [doubtful, sure]) == sure
    assert reading_of(config, [clear]) == clear
    assert reading_of(config, []) == unread(config)


def test_a_head_that_could_not_read_leaves_nothing_clear() -> None:
    config = Config.of({"steer": "by_request"})
    clear, doubtful, harmful = (steering_of(config, p, p, low=0.2, high=0.8) for p in (0.1, 0.5, 0.9))
    assert reading_of(config, [clear, None]) == reading_of(config, [None, clear]) == unread(config)
    assert reading_of(config, [None, doubtful]) == replace(doubtful, partial=True)
    assert reading_of(config, [harmful, None]) == replace(harmful, partial=True)


# --- kept states, the library


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_conversations_state_keeps_all_prompts(tmp_path: Path, count: int) -> None:
    prompts: list[SavedPrompt | None] = [SavedPrompt((n,), None, ()) for n in range(count)]
    if count > 3:
        prompts[1] = None
    write_state(tmp_path / "state", SavedState(Snapshot(tuple(prompts)), 0))
    kept = read_state(tmp_path / "state")
    assert kept is not None
    assert kept.snapshot.prompts[:count] == tuple(prompts)
    assert all(prompt is None for prompt in kept.snapshot.prompts[count:])


def test_the_library_takes_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignbeam_local.engine.engine.Loader", loader())
    knobs = {**PLAIN, "force": True}
    with load(draft="draft", anchor=["anchor", Path("other")], environ={}, **knobs) as engine:
        assert list(engine.models.by_role) == ["draft", "anchor", "anchor2"]


def test_no_open_anchor_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, engine = answered(monkeypatch, loader(), anchor=BOTH)
    one = Config.of({**engine.config.model_dump(), "anchor": "anchor"})
    asked = [([Message("user", "Can I cook?")], one)]
    with pytest.raises(ValueError, match="zip"):
        engine.parallel().answers(asked)


# --- commands, servers


def test_the_flag_can_be_repeated() -> None:
    one, several = run("ask", "--anchor", "a", "--show-config"), run(*ASK, "--show-config", "--json")
    assert "anchor          'a'" in one.out
    assert json.loads(several.out)["anchor"]["value"] == ["a", "b"]


@pytest.mark.parametrize(
    ("anchor", "depth", "is_taken"),
    [("anchor", 6, False), (BOTH, 6, True), (BOTH[::-1], 6, False), ("anchor", 0, True)],
)
def test_a_server_serves_with_all_of_its_anchors_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, anchor: Any, depth: int, is_taken: bool
) -> None:
    paths = {name: tmp_path / f"{name}.gguf" for name in ("draft", *BOTH)}
    for path in paths.values():
        path.touch()
    models: dict[str, Any] = {"draft": str(paths["draft"]), "beams": 1}
    config = Config.of({**models, "anchor": [str(paths[name]) for name in BOTH]})
    files = {role: found_server.stamp_of(Path(config.model_named(role))) for role in config.roles}
    records = found_server.records_of(config, Registry({}, {}, ""))
    server = FoundServer(Path("x"), 1, "pair", config, files, records, ())
    monkeypatch.setattr(found_server, "running_servers", lambda: iter([server]))
    names = [anchor] if isinstance(anchor, str) else anchor
    asked = Config.of({**models, "depth": depth, "anchor": [str(paths[name]) for name in names]})
    assert found_server.find_server(asked, Registry({}, {}, "")) == (server if is_taken else None)


@pytest.mark.parametrize(
    ("anchor", "begins"), [(BOTH, "anchor: the anchor can't"), ("anchor", "the anchor can't")]
)
def test_of_several_it_is_said_whose_bridge_is_hopeless(
    monkeypatch: pytest.MonkeyPatch, anchor: Any, begins: str
) -> None:
    monkeypatch.setattr("alignbeam_local.pair.check.single_share", lambda _: 0.1)
    with pytest.raises(ModelError, match=f"^{begins}"):
        answered(monkeypatch, loader(), anchor=anchor, force=False)


def test_a_server_names_all_of_them(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.gguf" for name in ("draft", *BOTH)}
    for path in paths.values():
        path.touch()
    anchors = [str(paths[name]) for name in BOTH]
    config = as_served(Config.of({"draft": str(paths["draft"]), "anchor": anchors, "judge": anchors[0]}))
    pair, alone = served_models([config], Registry({}, {}, "")).values()
    assert pair.id == "draft+anchor+other"
    assert pair.models == {"draft": "draft", "anchor": "anchor", "judge": "anchor", "anchor2": "other"}
    assert set(pair.files) == {"draft", "anchor", "anchor2", "judge"}
    assert (alone.id, alone.as_object["root"]) == ("anchor:anchor", "anchor")
