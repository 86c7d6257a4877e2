"""Commands that find a running server: the same answers, events and errors as an engine of their own."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from alignbeam_local.config import Config
from alignbeam_local.conversation.conversation import Conversation
from alignbeam_local.doctor import server_check
from alignbeam_local.engine.engine import Engine, last_result
from alignbeam_local.engine.scheduler import AnswerEvent, AnswerScheduler, Asked
from alignbeam_local.errors import (
    AlignBeamError,
    Cancelled,
    ContextFull,
    InternalError,
    ModelError,
    ServerGone,
    TimedOut,
    UsageError,
)
from alignbeam_local.events import AnswerText, BeamText, Done, Event, Judged, Notice, Phase, Step, Withdrawn
from alignbeam_local.models.hashes import file_sha256
from alignbeam_local.paths import write_atomic
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import Result, Timings
from alignbeam_local.server import serving
from alignbeam_local.warm.found_server import FoundServer, find_server, records_of, running_servers, stamp_of
from alignbeam_local.warm.remote_engine import RemoteEngine
from alignbeam_local.warm.sockets import socket_dir, sockets
from tests.fake_loader import FakeLoader
from tests.server_world import KNOBS, LONG, REGISTRY, ServerWorld, until

ROLES = {"draft": "draft", "anchor": "anchor", "judge": "judge"}
PLAIN: dict[str, Any] = {**KNOBS, **ROLES, "temperature": 0, "repeat_penalty": 1.0, "force": True}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c")


@pytest.fixture(scope="module")
def running(home: Path) -> Iterator[ServerWorld]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNBEAM_CACHE_DIR", str(home))
        with ServerWorld(patch).running() as world:
            yield world


@pytest.fixture
def world(running: ServerWorld, home: Path, monkeypatch: pytest.MonkeyPatch) -> ServerWorld:
    monkeypatch.setenv("ALIGNBEAM_CACHE_DIR", str(home))
    models = {**running.loader.models, "other": running.loader.models["anchor"]}
    monkeypatch.setattr("alignbeam_local.engine.engine.Loader", FakeLoader(models))
    return running


def remote(**knobs: Any) -> RemoteEngine:
    config = Config.of({**PLAIN, **knobs})
    (server,) = running_servers()
    assert server.serves(config)
    return RemoteEngine(config, REGISTRY, server)


def local(**knobs: Any) -> Engine:
    return Engine(Config.of({**PLAIN, **knobs}), REGISTRY)


def said(text: str) -> list[Message]:
    return [Message("user", text)]


def plain(result: Result) -> Result:
    return replace(result, timings=Timings())


@pytest.mark.parametrize("question", ["How?", "Harm?", "Refuse?", "Markup?"])
@pytest.mark.parametrize("knobs", [{}, {"judge_at": 4}, {"beams": 1, "on_unsafe": "auto"}])
def test_answers_and_events_are_those_of_an_engine_of_its_own(
    world: ServerWorld, question: str, knobs: dict[str, Any]
) -> None:
    kinds = (Phase, Step, BeamText, Judged)
    with local(**knobs) as engine:
        expected = list(engine.stream(said(question)))
    found = list(remote(**knobs).stream(said(question)))
    made = [event for event in expected if isinstance(event, kinds) and event != Phase("load")]
    assert [event for event in found if isinstance(event, kinds)] == made
    assert plain(result_of(found)) == plain(result_of(expected))


def result_of(events: Sequence[Event]) -> Result:
    assert isinstance(events[-1], Done)
    return events[-1].result


def test_the_first_load_tells_what_the_servers_load_told(world: ServerWorld) -> None:
    engine = remote()
    assert list(engine.load()) == [Notice("this machine is slow")]
    assert list(engine.load()) == []


def test_errors_come_as_they_are(world: ServerWorld) -> None:
    with pytest.raises(ContextFull, match="its context holds 600"):
        list(remote().stream(said("x" * 700)))
    with pytest.raises(UsageError, match="can't change between answers"):
        list(remote().load(Config.of({**PLAIN, "context": 512})))


@pytest.mark.parametrize("error", [ServerGone("it is gone"), KeyboardInterrupt()], ids=["lost", "signal"])
@pytest.mark.parametrize("judged", [True, False])
def test_what_no_last_verdict_passed_is_taken_back_when_a_server_is_lost(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch, error: BaseException, judged: bool
) -> None:
    def begun(*_: Any) -> Iterator[Event]:
        yield from (AnswerText("Take a"), AnswerText(" knife"))
        raise error

    monkeypatch.setattr("alignbeam_local.warm.remote_engine._answer", begun)
    engine, seen = remote(**({} if judged else {"beams": 1, "on_unsafe": "auto"})), list[Event]()
    with pytest.raises(type(error)):
        seen.extend(engine.stream(said("How?")))
    assert (seen[-1] == Withdrawn("")) == judged


@pytest.mark.parametrize(
    ("events", "is_taken_back"),
    [
        ([AnswerText("Take a pan. Hit"), Withdrawn("Take a pan. ", stands=12)], True),
        ([AnswerText("Take a pan"), Withdrawn("I can't help with that.")], False),
        ([AnswerText("Take a pan"), Phase("judge")], True),
        ([Phase("mix")], False),
    ],
)
def test_what_stands_behind_a_step_back_is_taken_back_too(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch, events: list[Event], is_taken_back: bool
) -> None:
    def begun(*_: Any) -> Iterator[Event]:
        yield from events
        raise ServerGone("it is gone")

    monkeypatch.setattr("alignbeam_local.warm.remote_engine._answer", begun)
    seen = list[Event]()
    with pytest.raises(ServerGone):
        seen.extend(remote().stream(said("How?")))
    assert seen == [*events, *([Withdrawn("")] if is_taken_back else [])]


def test_a_cancelled_answer_ends_as_it_does_without_a_server(world: ServerWorld) -> None:
    engine, seen = remote(beams=1, on_unsafe="auto"), list[Event]()
    world.draft.seconds = 0.02
    try:
        for event in engine.stream(said("Story?")):
            seen.append(event)
            if isinstance(event, BeamText):
                engine.cancellation.set()
    finally:
        world.draft.seconds = 0
    assert result_of(seen).finish_reason == "cancelled"
    assert result_of(seen).text


def test_left_out_turns_are_counted_by_the_server(world: ServerWorld) -> None:
    turns = [Message(role, "a b c " * 20) for role in ("user", "assistant") * 3] + said("How?")
    with local() as engine:
        list(engine.load())
        expected = engine.left_out(turns, engine.config, 0)
    assert expected > 0
    assert remote().left_out(turns, remote().config, 0) == expected
    with pytest.raises(ContextFull):
        remote().left_out(said("x" * 700), remote().config, 0)


def test_several_at_once_over_connections(world: ServerWorld) -> None:
    engine = remote(parallel=3)
    answers, happened = engine.parallel(), list[AnswerEvent]()
    questions = ["How?", "Harm?", "Refuse?"]
    for key, question in enumerate(questions):
        answers.begin(key, Asked(said(question), remote().config))
    assert not answers.has_free_slot
    while not answers.has_free_slot or sum(isinstance(what, Done) for _, what in happened) < 3:
        happened += answers.step()
    texts = {key: what.result.text for key, what in happened if isinstance(what, Done)}
    assert texts[0] == "Take a pan."
    assert texts[2] == "I can't help with that."


def test_more_at_once_than_the_server_has_slots_wait_for_one(world: ServerWorld) -> None:
    engine = remote(parallel=9)
    answers, ends = engine.parallel(), list[object]()
    answers.begin(0, Asked(said("How?"), engine.config))
    until(lambda: bool(_add_ends(answers, ends)))
    (end,) = ends
    assert isinstance(end, Done)
    assert end.result.config["parallel"] == 9


def test_what_the_server_can_not_give_is_done_here(world: ServerWorld) -> None:
    engine = remote()
    more = engine.config.with_values({"beams": 6})
    with engine:
        result = engine.answer(said("How?"), more)
    assert len(result.beams) == 6


UNREAD: dict[str, dict[str, Any]] = {
    "anchor": {"depth": 0, "anchor": "other"},
    "judge": {"beams": 1, "on_unsafe": "auto", "judge": "other"},
}


@pytest.mark.parametrize("role", UNREAD)
def test_a_model_that_nothing_needed_yet_is_the_one_that_was_named(world: ServerWorld, role: str) -> None:
    engine = remote(**UNREAD[role])
    with engine:
        assert engine.is_remote
        card = engine.answer(said("How?"), depth=3, beams=3).models[role]
    assert card is not None
    assert card.name == "other"


def test_several_at_once_too_are_answered_by_the_models_that_were_named(world: ServerWorld) -> None:
    engine, happened = remote(**UNREAD["anchor"], parallel=2), list[AnswerEvent]()
    config = engine.config.with_values({"depth": 3})
    with engine:
        assert not engine.serves(config)
        list(engine.load(config))
        answers = engine.parallel()
        answers.begin(0, Asked(said("How?"), config))
        while not (happened and isinstance(happened[-1].what, Done)):
            happened += answers.step()
        answers.close()
    models = result_of([what for _, what in happened if not isinstance(what, AlignBeamError)]).models
    assert models["anchor"] is not None
    assert models["anchor"].name == "other"


def test_a_model_that_is_not_named_is_missed_where_it_is_needed(world: ServerWorld) -> None:
    engine = remote(depth=0, anchor=None)
    with pytest.raises(UsageError, match="no anchor model is named"):
        list(engine.stream(said("How?"), depth=3))
    assert engine.answer(said("How?")).text == "Take a pan."


def test_only_a_server_of_the_same_models_is_found(world: ServerWorld, tmp_path: Path) -> None:
    (server,) = running_servers()
    assert not server.serves(Config.of({**PLAIN, "cache_type_k": "q8_0"}))
    assert not server.serves(Config.of({**PLAIN, "max_tokens": 600, "beams": 6}))
    assert not server.serves(Config.of({**PLAIN, "judge": "head"}))
    assert not server.serves(Config.of({**PLAIN, "head_votes": True}))
    assert server.serves(Config.of({**PLAIN, "alpha": 0.9, "threads": 3, "parallel": 7}))
    other = tmp_path / "draft.gguf"
    other.touch()
    assert find_server(Config.of({**PLAIN, **dict.fromkeys(ROLES, str(other))}), REGISTRY) is None


@pytest.mark.parametrize("name", ["model.gguf", "adapter.gguf"])
def test_another_file_in_a_models_place_is_another_model(
    world: ServerWorld, tmp_path: Path, name: str
) -> None:
    (server,) = running_servers()
    model, file = tmp_path / "model.gguf", tmp_path / name
    model.write_bytes(b"model")
    file.write_bytes(b"before")
    knobs = {**PLAIN, **dict.fromkeys(ROLES, str(model)), "lora": str(tmp_path / "adapter.gguf")}
    config = Config.of(knobs if name == "adapter.gguf" else {**knobs, "lora": None})
    stamps = dict.fromkeys(ROLES, stamp_of(model)) | {"adapter 0": stamp_of(file)}
    holding = replace(server, files=stamps, records=records_of(config, REGISTRY))
    assert holding.holds(config, REGISTRY)
    file.write_bytes(b"behind")
    os.utime(file, ns=(0, stamp_of(file).changed_ns + 1))
    assert not holding.holds(config, REGISTRY)
    assert not stamps["adapter 0"].is_current
    file.unlink()
    assert not holding.holds(config, REGISTRY)


@pytest.mark.parametrize(
    ("role", "folder", "known"),
    [
        ("draft", "heads/answers", True),
        ("anchor", "heads", True),
        ("judge", "judges", True),
        ("anchor", "heads", False),
    ],
)
@pytest.mark.usefixtures("world")
def test_a_model_with_another_record_is_read_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str, folder: str, known: bool
) -> None:
    monkeypatch.setenv("ALIGNBEAM_DATA_DIR", str(tmp_path))
    model = tmp_path / "model.gguf"
    model.write_bytes(b"model")
    config = Config.of({**PLAIN, **dict.fromkeys(ROLES, str(model)), "lora": None})
    (server,) = running_servers()
    files, records = dict.fromkeys(ROLES, stamp_of(model)), records_of(config, REGISTRY)
    holding = replace(server, config=config, files=files, records=records)
    monkeypatch.setattr(server_check, "running_servers", lambda: iter([holding]))
    sha256 = file_sha256(model) if known else "0" * 64
    write_atomic(tmp_path / folder / "fitted.json", sha256)
    assert holding.holds(config, REGISTRY) is not known
    (found,) = server_check.servers(REGISTRY)
    assert ("what is on record of " + role in found.message) == known


def test_doctor_tells_of_a_server_that_nobody_uses_any_more(
    world: ServerWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server,) = running_servers()
    model = tmp_path / "model.gguf"
    model.write_bytes(b"before")
    holding = replace(server, files={"draft": stamp_of(model)}, records={})
    monkeypatch.setattr(server_check, "running_servers", lambda: iter([holding]))
    (used,) = server_check.servers(REGISTRY)
    model.write_bytes(b"behind it")
    (unused,) = server_check.servers(REGISTRY)
    assert (used.level, unused.level) == ("ok", "warning")
    assert "the file of draft changed" in unused.message


def test_a_socket_that_nobody_listens_on_is_passed_over(world: ServerWorld) -> None:
    with gone_engine() as engine:
        assert len(sockets()) == 2
        with pytest.raises(ServerGone, match="is gone"):
            list(engine.stream(said("How?")))
        assert engine.answer(said("How?")).text == "Take a pan."


def gone_engine() -> RemoteEngine:
    """Of a server that held the models, and has ended."""
    with socket.socket(socket.AF_UNIX) as dead:
        (socket_dir() / "1.sock").unlink(missing_ok=True)
        dead.bind(str(socket_dir() / "1.sock"))
    server = next(running_servers())
    return RemoteEngine(Config.of(PLAIN), REGISTRY, replace(server, path=socket_dir() / "1.sock"))


@pytest.mark.usefixtures("world")
def test_a_chat_whose_server_has_ended_goes_on_here() -> None:
    with gone_engine() as engine:
        talk = Conversation(engine)
        with pytest.raises(ServerGone):
            list(talk.ask("How?", engine.config))
        assert last_result(talk.ask("How?", engine.config)).text == "Take a pan."


@pytest.mark.usefixtures("world")
def test_several_at_once_whose_server_has_ended_go_on_here() -> None:
    with gone_engine() as engine:
        answers = engine.parallel()
        answers.begin(1, Asked(said("How?"), engine.config))
        until(lambda: any(isinstance(what, ServerGone) for _, what in answers.step()))
        assert not engine.is_remote


@pytest.mark.usefixtures("world")
def test_whatever_goes_wrong_with_one_of_several_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> Iterator[Event]:
        raise OSError(24, "Too many open files")
        yield

    monkeypatch.setattr("alignbeam_local.warm.remote_engine._answer", failing)
    answers = remote().parallel()
    answers.begin(1, Asked(said("How?"), Config.of(PLAIN)))
    until(lambda: any(isinstance(what, InternalError) for _, what in answers.step()))


@pytest.mark.usefixtures("world")
def test_a_change_that_fails_leaves_the_server() -> None:
    engine = remote()
    with engine, pytest.raises(ModelError, match="nobody is not here"):
        list(engine.change(Config.of({**PLAIN, "anchor": "nobody"})))
    assert engine.is_remote
    assert engine.answer(said("How?")).text == "Take a pan."


@pytest.mark.usefixtures("world")
def test_a_judge_beside_the_head_is_no_judge_by_the_head_alone() -> None:
    (server,) = running_servers()
    votes = replace(server, config=server.config.with_values({"head_votes": True, "on_unsafe": "refuse"}))
    assert votes.serves(Config.of({**PLAIN, "head_votes": True}))
    assert not votes.serves(Config.of({**PLAIN, "judge": "head"}))


@pytest.mark.usefixtures("world")
def test_what_is_on_record_is_looked_for_where_the_servers_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNBEAM_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model.gguf"
    model.write_bytes(b"model")
    config = Config.of({**PLAIN, **dict.fromkeys(ROLES, "./model.gguf"), "lora": ["./model.gguf:0.5"]})
    (server,) = running_servers()
    files = {what: stamp_of(model) for what in (*ROLES, "adapter 0")}
    holding = replace(server, config=config, files=files, records=records_of(config, REGISTRY))
    monkeypatch.chdir("/")
    assert holding.outdated(REGISTRY) == []
    write_atomic(tmp_path / "judges" / "calibrated.json", file_sha256(model))
    assert holding.outdated(REGISTRY) == ["what is on record of judge"]


@pytest.mark.parametrize("folder", ["heads", "heads/answers", "judges"])
def test_a_record_that_can_not_be_read_may_be_anybodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("ALIGNBEAM_DATA_DIR", str(tmp_path))
    model = tmp_path / "model.gguf"
    model.write_bytes(b"model")
    config = Config.of({**PLAIN, **dict.fromkeys(ROLES, str(model))})
    before = records_of(config, REGISTRY)
    (tmp_path / folder / "no_file.json").mkdir(parents=True)
    after = records_of(config, REGISTRY)
    assert sum(before[role] != after[role] for role in ROLES) == 1
    assert None not in after.values()


def test_what_is_no_request_is_told(world: ServerWorld) -> None:
    from alignbeam_local.warm.connection import asked

    (path,) = {server.path for server in running_servers()}
    requests: list[Any] = [{"ask": "sing"}, [], {"ask": "answer", "pair": "pair", "messages": 1}]
    for request in requests:
        assert asked(path, request)["error"]["kind"] == "usage"


def test_an_answer_on_its_way_ends_although_the_server_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALIGNBEAM_CACHE_DIR", str(tmp_path))
    made, stoppable = [], serving.stoppable

    def kept(*args: Any, **options: Any) -> Any:
        made.append(stoppable(*args, **options))
        return made[-1]

    monkeypatch.setattr(serving, "stoppable", kept)
    with ServerWorld(monkeypatch).running() as world, ThreadPoolExecutor(1) as pool:
        world.draft.seconds = 0.005
        answer = pool.submit(lambda: remote().answer("Story?"))
        until(lambda: world.engine.health.running == 1)
        world.engine.drain()
        made[0].should_exit = True
        assert answer.result(20).text == LONG


@pytest.mark.parametrize("is_running", [True, False])
def test_a_server_that_stops_is_gone_to_its_own_user(
    is_running: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody cancelled: the answer is asked for again, and the models are then loaded here."""
    monkeypatch.setenv("ALIGNBEAM_CACHE_DIR", str(tmp_path))
    with ServerWorld(monkeypatch).running() as world:
        world.draft.seconds = 0.005
        engine = remote()
        if is_running:
            events = engine.stream(said("Story?"))
            next(events)
            world.engine.stop()
        else:
            world.engine.drain()
            events = engine.stream(said("Story?"))
        with pytest.raises(ServerGone, match="shutting down"):
            list(events)
        assert not engine.is_remote
        assert world.engine.join(5)
        with pytest.raises(ServerGone):
            remote_of(engine).left_out(said("How?"), engine.config, 0)


def remote_of(engine: RemoteEngine) -> RemoteEngine:
    """The same with the server of the only socket that is there, which may no longer be ready."""
    (path,) = sockets()
    config = engine.config
    files, records = {role: stamp_of(REGISTRY.resolve(role).path) for role in ROLES}, dict.fromkeys(ROLES)
    return RemoteEngine(config, REGISTRY, FoundServer(path, 1, "pair", config, files, records, ()))


def test_a_queue_of_others_holds_up_and_does_not_turn_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """More at once than slots and queue have room for, as `filter --parallel` asks them."""
    monkeypatch.setenv("ALIGNBEAM_CACHE_DIR", str(tmp_path))
    with ServerWorld(monkeypatch, queue_limit=1).running():
        answers, ends = remote(parallel=9).parallel(), list[object]()
        for key in range(9):
            answers.begin(key, Asked(said("How?"), remote().config))
        until(lambda: len(_add_ends(answers, ends)) == 9)
    assert {type(end) for end in ends} == {Done}


def _add_ends(answers: AnswerScheduler, ends: list[object]) -> list[object]:
    ends += [what for _, what in answers.step() if isinstance(what, Done | AlignBeamError)]
    return ends


@pytest.mark.usefixtures("world")
def test_the_first_end_of_an_answer_counts() -> None:
    answers = remote().parallel()
    answers.begin(1, Asked(said("How?"), remote().config))
    sleep(1)  # its events wait to be taken
    answers.fail(1, TimedOut("too late"))
    ends: list[object] = []
    until(lambda: _add_ends(answers, ends))
    assert len(ends) == 1
    assert answers.step() == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda engine: list(engine.stream(said("How?"))),
        lambda engine: engine.left_out(said("How?"), engine.config, 0),
    ],
)
def test_a_server_that_stands_still_can_be_left(
    ask: Callable[[Engine], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALIGNBEAM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("alignbeam_local.warm.remote_engine._CANCEL_SECONDS", 0.2)
    with ServerWorld(monkeypatch).running() as world:
        world.draft.seconds = 1.5
        engine = remote()
        world.engine.call("pair", lambda _: sleep(1.5))
        engine.cancellation.set()
        started = monotonic()
        with pytest.raises(Cancelled):
            ask(engine)
        assert monotonic() - started < 1.4
        world.draft.seconds = 0
