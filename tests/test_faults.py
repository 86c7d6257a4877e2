"""What fails half-way: decodes, files that change, disks that fill, caches and records that are damaged."""

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.engine.loader import Loader
from alignbeam_local.errors import AlignBeamError, ContextFull, ModelError, UsageError
from alignbeam_local.events import AnswerText, Event, Phase
from alignbeam_local.llama.weights import LlamaWeights
from alignbeam_local.machine import probe
from alignbeam_local.machine.context_size import ContextSize
from alignbeam_local.models import hashes
from alignbeam_local.models import toml_files as models_toml
from alignbeam_local.models.hashes import file_sha256, known_hash, remember_hash
from alignbeam_local.models.importing import import_model
from alignbeam_local.models.registry import Registry
from alignbeam_local.paths import cache_dir, config_dir, write_atomic
from tests.gguf_files import write_gguf
from tests.llama_models import write_tiny
from tests.running import no_room
from tests.test_answer import World, same_answer, shown

# --- an answer that fails


class Failure:
    """Makes a model's, or the judge's, next call fail once a phase has begun; after `calls` good ones."""

    def __init__(self, world: World, who: str, phase: str, calls: int, error: AlignBeamError) -> None:
        self.has_struck = False
        self._phase, self._error, self._calls = phase, error, calls
        self._has_begun = False
        target, name = (world.judge, "judge") if who == "judge" else (getattr(world, who), "extend")
        real = getattr(target, name)

        def failing(*args: Any) -> Any:
            if self._has_begun and not self.has_struck:
                if self._calls == 0:
                    self.has_struck = True
                    raise self._error
                self._calls -= 1
            return real(*args)

        setattr(target, name, failing)

    def watch(self, event: Event) -> None:
        if isinstance(event, Phase):
            self._has_begun = self._has_begun or event.name == self._phase


@pytest.mark.parametrize("error", [ModelError("llama.cpp failed"), ContextFull("all cells are full")])
@pytest.mark.parametrize("kv", ["seq", "state"])
@pytest.mark.parametrize(
    "place",
    [
        ("draft", "prefill", 0),
        ("anchor", "prefill", 0),
        *(("draft", "mix", calls) for calls in range(3)),
        *(("anchor", "mix", calls) for calls in range(3)),
        *(("draft", "complete", calls) for calls in range(3)),
        ("judge", "judge", 0),
    ],
    ids=lambda place: "-".join(map(str, place)),
)
@pytest.mark.parametrize("knobs", [{}, {"judge_at": 8}, {"on_unsafe": "refuse", "beams": 1}])
def test_no_answer_leaves_a_phase_that_failed(
    place: tuple[str, str, int], kv: Literal["seq", "state"], error: AlignBeamError, knobs: dict[str, Any]
) -> None:
    """Nothing unjudged stays shown, and the models answer the next prompt as fresh ones do."""
    world = World(kv=kv)
    seen: list[Event] = []
    failure = Failure(world, *place, error)

    def consume(event: Event) -> None:
        failure.watch(event)
        seen.append(event)

    raised = None
    try:
        world.events(consume=consume, **knobs)
    except AlignBeamError as caught:
        raised = caught
    assert raised is (error if failure.has_struck else None), "a failure is not an answer"
    if failure.has_struck:
        assert shown(seen) == ""
    assert same_answer(world.result(), World(kv=kv).result())


def test_what_was_shown_before_a_failure_is_taken_back() -> None:
    world, error = World(), ModelError("llama.cpp failed")
    seen: list[Event] = []
    real = world.draft.extend

    def consume(event: Event) -> None:
        seen.append(event)
        if isinstance(event, AnswerText):
            world.draft.extend = failing  # type: ignore[method-assign, assignment]

    def failing(*_: object) -> None:
        world.draft.extend = real  # type: ignore[method-assign]
        raise error

    with pytest.raises(ModelError):
        world.events(consume=consume, judge_at=8)
    assert any(isinstance(event, AnswerText) for event in seen)
    assert shown(seen) == ""
    assert same_answer(world.result(), World().result())


def test_the_failures_above_do_strike() -> None:
    world, error = World(), ModelError("llama.cpp failed")
    failure = Failure(world, "draft", "complete", 2, error)
    with pytest.raises(ModelError):
        world.events(consume=failure.watch)
    assert failure.has_struck


# --- files that change while they are in use


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(probe, "weights_may_be_repacked", lambda *_, **__: False)
    return write_tiny(tmp_path / "tiny.gguf", "llama")


@pytest.fixture
def loader(tiny: Path) -> Iterator[Loader]:
    config = Config.of({"draft": str(tiny), "anchor": str(tiny), "context": 128, "max_tokens": 8})
    loader = Loader(config, Registry.load(), Cancellation())
    yield loader
    loader.close()


ROOM = ContextSize(2, 256, 256)


def replace(path: Path, seed: int = 7) -> None:
    """Another model under the same name, as a download puts it there."""
    write_tiny(path.with_suffix(".new"), "llama", seed=seed).replace(path)


def test_a_file_replaced_before_it_is_loaded(loader: Loader, tiny: Path) -> None:
    file = loader.find("draft")
    replace(tiny)
    with pytest.raises(ModelError, match="was replaced while it was in use"):
        loader.open("draft", file, ROOM)


def test_weights_whose_file_goes_away_while_they_load_are_freed(
    loader: Loader, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, opened = loader.find("draft"), []

    class Watched(LlamaWeights):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            opened.append(self)
            tiny.unlink()

    monkeypatch.setattr("alignbeam_local.engine.loader.LlamaWeights", Watched)
    with pytest.raises(ModelError):
        loader.open("draft", file, ROOM)
    assert [weights.handle for weights in opened] == [None]


def test_a_file_replaced_between_two_roles(loader: Loader, tiny: Path) -> None:
    opened = loader.open("draft", loader.find("draft"), ROOM)
    replace(tiny)
    opened.lm.extend({0: [1, 2, 3]})  # the old weights are still whole
    with pytest.raises(ModelError, match="was replaced") as caught:
        loader.find("anchor")
    assert "Start again" in caught.value.hint


def test_after_a_close_the_new_file_counts(loader: Loader, tiny: Path) -> None:
    first = loader.open("draft", loader.find("draft"), ROOM).card.sha256
    loader.close()
    replace(tiny)
    assert loader.open("draft", loader.find("draft"), ROOM).card.sha256 != first


# --- records and caches


def test_a_record_of_trust_survives_two_processes() -> None:
    """Each adds its own hashes; none is lost."""
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_remember_some, args=(child,)) for child in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert all(known_hash(f"hub:{child}/{n}") == "0" * 64 for child in range(4) for n in range(10))


def _remember_some(child: int) -> None:
    for n in range(10):
        remember_hash(f"hub:{child}/{n}", "0" * 64)


def test_imports_at_the_same_time_lose_no_entry(tmp_path: Path) -> None:
    for n in range(4):
        write_gguf(tmp_path / f"model{n}.gguf", general__description=str(n))
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_import, args=(tmp_path / f"model{n}.gguf",)) for n in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert {f"model{n}" for n in range(4)} <= set(Registry.load().models)


def _import(path: Path) -> None:
    import_model(Registry.load(), path)


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
relaxed = settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(relaxed, max_examples=30)
@given(value=any_json, raw=st.binary(max_size=60))
def test_a_damaged_hash_cache_is_computed_again(tmp_path: Path, value: Any, raw: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    sha256 = hashes.fresh_sha256(path)
    for damaged in (json.dumps({str(path): value}).encode(), json.dumps(value).encode(), raw):
        (cache_dir() / "sha256.json").write_bytes(damaged)
        assert file_sha256(path) == sha256


@relaxed
@given(value=any_json, raw=st.binary(max_size=60))
def test_a_damaged_memory_of_the_probe_is_asked_again(tmp_path: Path, value: Any, raw: bytes) -> None:
    cache_dir().mkdir(parents=True, exist_ok=True)
    for damaged in (json.dumps(value).encode(), raw):
        (cache_dir() / "probe.json").write_bytes(damaged)
        assert all(isinstance(known, bool) for known in probe._known().values())


# --- the user's models.toml

EXAMPLE = b"""default_profile = "mine"
[models.tiny]
about = "x"
bytes = 12
sha256 = "00"
licence = "MIT"
roles = ["draft"]
format = "base"
[models.tiny.hub]
repo = "a/b"
file = "c.gguf"
[profiles.mine]
about = "y"
draft = "tiny"
alpha = 0.5
"""


def load_or_refuse(raw: bytes) -> None:
    config_dir().mkdir(parents=True, exist_ok=True)
    models_toml.user_file().write_bytes(raw)
    try:
        Registry.load()
    except UsageError as error:
        assert "models.toml" in str(error) or "profile" in str(error)  # noqa: PT017 (others fail the test)


@settings(relaxed, max_examples=150)
@given(at=st.integers(0, len(EXAMPLE)), length=st.integers(0, 12), text=st.binary(max_size=12))
def test_a_damaged_registry_is_a_usage_error(at: int, length: int, text: bytes) -> None:
    load_or_refuse(EXAMPLE[:at] + text + EXAMPLE[at + length :])


@settings(relaxed, max_examples=100)
@given(raw=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_anything_in_the_registry_is_a_usage_error(raw: bytes) -> None:
    load_or_refuse(raw)


# --- disks that fill


def test_a_small_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "x", "old")
    monkeypatch.setattr("os.fsync", no_room)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "x", "new")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_an_import_without_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "mine.gguf")
    monkeypatch.setattr(shutil, "copyfile", no_room)
    with pytest.raises(OSError, match="No space"):
        import_model(Registry.load(), path, how="copy")
    assert "mine" not in Registry.load().models
    assert not Registry.load().resolve("./mine.gguf").present
