"""A fault in every phase of one request: what its client sees, what the others see, what `/health` says."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import pytest

from alignbeam_local.engine.scheduler import Asked
from alignbeam_local.errors import (
    AlignBeamError,
    Cancelled,
    ContextFull,
    InternalError,
    ModelError,
    UsageError,
)
from alignbeam_local.events import AnswerText, Withdrawn
from alignbeam_local.prompt.message import Message
from alignbeam_local.server.protocol.record import Record
from alignbeam_local.server.work.engine_thread import Unavailable
from alignbeam_local.server.work.jobs import Accepted, Job, JobEvent
from alignbeam_local.server.work.pair import Pair
from tests.fake_lm import FakeLM, spelt
from tests.fake_loader import fake_engine
from tests.raw_http import Reply, connected, post, question, received, works
from tests.server_world import DRAFT, LONG, ServerWorld, frames, until

REFUSED = "I'm sorry, but I can't help with that."
Extend = Callable[[Mapping[int, Sequence[int]]], None]


class Block:
    """Stops whoever comes in, from the `after`-th time on, until it is opened."""

    def __init__(self, after: int = 0) -> None:
        self.after = after
        self.times = 0
        self.is_in = threading.Event()
        self._opened = threading.Event()

    def __call__(self) -> None:
        self.times += 1
        if self.times > self.after:
            self.is_in.set()
            assert self._opened.wait(10)

    def open(self) -> None:
        self._opened.set()


@contextmanager
def serving(patch: pytest.MonkeyPatch, **options: Any) -> Iterator[ServerWorld]:
    with ServerWorld(patch, **options).running() as world:
        yield world


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerWorld]:
    with serving(monkeypatch) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record for record in caplog.records if record.exc_info]


def before(patch: pytest.MonkeyPatch, lm: FakeLM, act: Callable[[Mapping[int, Sequence[int]]], None]) -> None:
    """Do this before each decode of the model."""
    extend: Extend = lm.extend

    def wrapped(tails: Mapping[int, Sequence[int]]) -> None:
        act(tails)
        extend(tails)

    patch.setattr(lm, "extend", wrapped)


def asking(world: ServerWorld, text: str, **fields: Any) -> socket.socket:
    """A request on its way."""
    sock = connected(world)
    sock.sendall(post(question(text, **fields)))
    return sock


def answered(sock: socket.socket) -> Reply:
    with sock:
        return received(sock)


def told(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.error["code"]


def has_room(world: ServerWorld) -> bool:
    """Whether nothing is in the making and as many as before can be, at once."""
    health = world.engine.health
    if (health.waiting, health.running) != (0, 0):
        return False
    replies = [answered(sock) for sock in [asking(world, "How?") for _ in range(4)]]
    cells = all(lm.used_cells <= lm.num_cells for lms in world.loader.opened.values() for lm in lms)
    return cells and all(reply.status == 200 for reply in replies)


# --- one that fails


def failing_at(world: ServerWorld, error: Exception, text: bytes, least: int) -> Callable[[Any], None]:
    """Fail once: when the sequence of this question has so many tokens."""
    left = [error]

    def act(tails: Mapping[int, Sequence[int]]) -> None:
        for sequence in tails:
            tokens = world.draft.tokens(sequence)
            if left and len(tokens) >= least and text in spelt(DRAFT, tokens):
                raise left.pop()

    return act


PHASES = {"prompt": 0, "mixing": 40, "completing": 60}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("error", [ModelError("no luck"), RuntimeError("secret")], ids=["model", "bug"])
def test_a_decode_that_fails(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch, phase: str, stream: bool, error: Exception
) -> None:
    text = b"" if phase == "prompt" else b"Story?"
    before(monkeypatch, world.draft, failing_at(world, error, text, PHASES[phase]))
    reply = answered(asking(world, "Story?", stream=stream))
    code = "model" if isinstance(error, ModelError) else "internal"
    if stream and reply.status == 200:
        *_, last = frames(reply.body.decode())
        assert last["error"]["code"] == code
    else:
        assert told(reply) == (500, code)
        assert reply.headers["x-should-retry"] == "false"
    assert b"secret" not in reply.body
    assert b"luck" not in reply.body  # a model's own words may name files
    assert world.engine.health.state == "ok"
    assert has_room(world)
    assert len(world.loader.opened["draft"]) == 2  # what failed is not trusted


def test_those_in_the_same_decode_fail_and_those_that_wait_are_answered(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = Block(after=4)
    before(monkeypatch, world.draft, lambda _: block())
    first = [asking(world, "Story?"), asking(world, "Story?", stream=True)]
    assert block.is_in.wait(5)
    until(lambda: world.engine.health.running == 2)
    waiting = asking(world, "How?")
    until(lambda: sum(world.engine._open_jobs.values()) == 3)
    world.draft.fails = ModelError("no luck")
    block.open()
    whole, streamed = map(answered, first)
    assert told(whole) == (500, "model")
    assert frames(streamed.body.decode())[-1]["error"]["code"] == "model"
    assert b"[DONE]" not in streamed.body
    assert answered(waiting).status == 200
    assert has_room(world)


def test_one_whose_context_is_full_fails_alone(world: ServerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(tails: Mapping[int, Sequence[int]]) -> None:
        if any(b"Harm?" in spelt(DRAFT, world.draft.tokens(sequence)) for sequence in tails):
            raise ContextFull("it is full")

    world.draft.seconds = 0.002
    other = asking(world, "Story?")
    until(lambda: world.engine.health.running == 1)
    before(monkeypatch, world.draft, act)
    assert told(answered(asking(world, "Harm?"))) == (400, "context_length_exceeded")
    reply = answered(other)
    assert json.loads(reply.body)["choices"][0]["message"]["content"] == LONG
    assert has_room(world)


def test_a_conversation_that_a_template_refuses_is_the_clients_own_fault(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any) -> None:
        raise ModelError("the chat template failed: roles must alternate")

    with monkeypatch.context() as patch:
        patch.setattr("alignbeam_local.engine.prompters.Prompter.encode", refuses)
        reply = answered(asking(world, "How?"))
    assert told(reply) == (400, "invalid_value")
    assert reply.error["param"] == "messages"
    assert "alternate" in reply.error["message"]
    assert has_room(world)
    assert len(world.loader.opened["draft"]) == 1


def test_megabytes_are_refused_before_they_are_tokenised(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = DRAFT.encode

    def watched(text: Any) -> list[int]:
        encoded.append(len(text))
        return encode(text)

    monkeypatch.setattr(DRAFT, "encode", watched)
    for stream in (False, True):
        reply = answered(asking(world, "x" * 2**20, stream=stream))
        assert told(reply) == (400, "context_length_exceeded")
        assert "at least" in reply.error["message"]
        assert "its context holds 600" in reply.error["message"]
    assert max(encoded, default=0) < 1000


@pytest.mark.parametrize("stream", [False, True])
def test_a_judge_that_fails_shows_nothing(world: ServerWorld, stream: bool) -> None:
    world.draft.seconds = 0.002
    other = asking(world, "Story?")
    world.judge.fails = True
    reply = answered(asking(world, "How?", stream=stream))
    assert b"pan" not in reply.body
    if stream:
        assert frames(reply.body.decode())[-1]["error"]["code"] == "model"
    else:
        assert told(reply) == (500, "model")
    assert json.loads(answered(other).body)["choices"][0]["message"]["content"] == LONG
    assert world.engine.health.state == "ok"
    assert has_room(world)


def test_a_judge_that_fails_in_window_mode_shows_no_more(world: ServerWorld, monkeypatch: Any) -> None:
    judge, verdicts = world.judge.judge, []

    def second_fails(*args: Any) -> Any:
        verdicts.append(args[1])
        world.judge.fails = len(verdicts) == 2
        return judge(*args)

    monkeypatch.setattr(world.judge, "judge", second_fails)
    reply = answered(asking(world, "Story?", stream=True, alignbeam={"stream": "window"}))
    *chunks, last = frames(reply.body.decode())
    content = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert content == verdicts[0][0]
    assert last["error"]["code"] == "model"
    assert has_room(world)


# --- one whose client is gone


def gone(world: ServerWorld, monkeypatch: pytest.MonkeyPatch, sock: socket.socket) -> None:
    """Close the connection, and wait until the server has noticed."""
    cancel, noticed = world.engine.cancel, threading.Event()

    def cancelled(job: Job) -> None:
        cancel(job)
        noticed.set()

    monkeypatch.setattr(world.engine, "cancel", cancelled)
    sock.close()
    assert noticed.wait(5)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("decodes", [0, 2, 40])
def test_a_client_that_goes_frees_its_slot_within_one_decode(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch, decodes: int, stream: bool
) -> None:
    block = Block(decodes)
    before(monkeypatch, world.draft, lambda _: block())
    sock = asking(world, "Story?", stream=stream)
    assert block.is_in.wait(5)
    sleep(0.02)
    gone(world, monkeypatch, sock)
    block.open()
    until(lambda: not world.engine.health.running)
    assert block.times <= decodes + 2
    assert has_room(world)
    assert 'outcome="client_gone"' in world.get("/metrics").text


def test_a_client_that_goes_within_a_long_prompt_frees_its_slot_within_one_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(monkeypatch, context=4000) as world:
        block = Block()
        before(monkeypatch, world.draft, lambda _: block())
        sock = asking(world, "x" * 3000)
        assert block.is_in.wait(5)
        sleep(0.02)
        gone(world, monkeypatch, sock)
        block.open()
        until(lambda: not world.engine.health.running)
        assert max(sum(batch.values()) for batch in world.draft.batches) <= 512
        assert block.times <= 2
        assert has_room(world)


def test_a_new_prompt_is_read_in_pieces_so_that_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(monkeypatch, context=4000) as world:
        world.draft.seconds = 0.002
        sock = asking(world, "Story?")
        until(lambda: world.engine.health.running == 1)
        before_it = world.draft.decodes
        assert answered(asking(world, "x" * 2000)).status == 200
        assert answered(sock).status == 200
        assert max(sum(batch.values()) for batch in world.draft.batches[before_it:]) <= 64 + 3


def test_a_client_that_goes_while_it_is_judged(world: ServerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    block, judge = Block(), world.judge.judge

    def blocked(*args: Any) -> Any:
        block()
        return judge(*args)

    monkeypatch.setattr(world.judge, "judge", blocked)
    sock = asking(world, "Story?", alignbeam={"stream": "window"})
    assert block.is_in.wait(5)
    decodes = world.draft.decodes
    gone(world, monkeypatch, sock)
    block.open()
    until(lambda: not world.engine.health.running)
    assert world.draft.decodes <= decodes + 1
    assert has_room(world)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_while_it_waits_is_never_begun(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    block = Block(6)
    before(monkeypatch, world.draft, lambda _: block())
    running = [asking(world, "How?"), asking(world, "How?")]
    assert block.is_in.wait(5)
    waiting = asking(world, "Story?", stream=stream)
    until(lambda: sum(world.engine._open_jobs.values()) == 3)
    gone(world, monkeypatch, waiting)
    block.open()
    assert all(answered(sock).status == 200 for sock in running)
    assert has_room(world)
    held = [spelt(DRAFT, world.draft.tokens(sequence)) for sequence in range(world.draft.num_sequences)]
    assert not any(b"Story?" in text for text in held)


# --- the engine


def stopped_by_force(world: ServerWorld) -> None:
    """Raise SystemExit within the engine's thread."""
    ident = ctypes.c_ulong(world.engine._thread.ident or 0)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit)) == 1


def test_an_engine_that_is_stopped_by_force_says_so_to_all(world: ServerWorld) -> None:
    ended: list[AlignBeamError | None] = []
    world.engine.when_ended = ended.append
    world.draft.seconds = 0.02
    whole, streamed, waiting = (asking(world, "Story?", stream=stream) for stream in (False, True, False))
    until(lambda: sum(world.engine._open_jobs.values()) == 3)
    until(lambda: world.engine.health.running == 2)
    stopped_by_force(world)
    assert world.engine.join(5)
    assert told(answered(whole)) == told(answered(waiting)) == (500, "internal")
    *_, last = frames(answered(streamed).body.decode())
    assert "stopped by force" in last["error"]["message"]
    health = world.get("/health")
    assert (health.status_code, health.json()["status"], health.json()["running"]) == (503, "stopped", 0)
    reply = world.post("How?")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "stopped")
    assert reply.headers["retry-after"]
    assert [type(error) for error in ended] == [InternalError]
    assert all(lm.is_closed for lms in world.loader.opened.values() for lm in lms)


def test_an_engine_that_is_stopped_by_force_while_it_waits(world: ServerWorld) -> None:
    stopped_by_force(world)
    assert world.engine.join(5)
    assert world.post("How?").status_code == 503


def test_work_that_nobody_waits_for_any_more_ends_nothing(world: ServerWorld, monkeypatch: Any) -> None:
    world.engine.call("pair", lambda _: sleep(0.1))
    assert world.engine.call("pair", lambda _: 1).cancel()
    assert works(world)
    stopped_by_force(world)
    assert world.engine.join(5)
    with pytest.raises(Unavailable):
        world.engine.call("pair", lambda _: 1).result(1)


def test_no_job_is_put_down_for_an_engine_that_ends(world: ServerWorld, monkeypatch: Any) -> None:
    ending, closing = threading.Event(), Block()
    (pair,) = world.engine._pairs.values()
    close = pair.close

    def closed() -> None:
        ending.set()
        closing()
        close()

    monkeypatch.setattr(pair, "close", closed)
    stopped_by_force(world)
    assert ending.wait(5)
    assert world.get("/health").json()["status"] == "stopped"
    reply = world.post("How?")
    closing.open()
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "stopped")


@pytest.mark.parametrize("error", [ModelError("no such file"), RuntimeError("a bug")])
def test_a_load_that_fails_ends_the_engine(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    world = ServerWorld(monkeypatch)
    ended: list[AlignBeamError | None] = []
    world.engine.when_ended = ended.append

    def fails(*_: Any, **__: Any) -> bool:
        raise error

    monkeypatch.setattr(world.loader, "place", fails)
    with world.running(wait=False):
        assert world.engine.join(5)
        assert world.get("/health").json()["status"] == "stopped"
        assert world.post("How?").json()["error"]["code"] == "stopped"
    (found,) = ended
    assert isinstance(found, ModelError if isinstance(error, ModelError) else InternalError)
    assert "force" not in found.message


def test_a_load_that_is_stopped_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    world, block = ServerWorld(monkeypatch), Block()
    ended: list[AlignBeamError | None] = []
    world.engine.when_ended = ended.append

    def cut_short(*_: Any, **__: Any) -> bool:
        block()
        raise Cancelled("cancelled")

    monkeypatch.setattr(world.loader, "place", cut_short)
    with world.running(wait=False):
        assert block.is_in.wait(5)
        world.engine.stop()
        block.open()
        assert world.engine.join(5)
    assert ended == [None]


def test_while_models_are_loaded_clients_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world, block = ServerWorld(monkeypatch), Block()
    place = world.loader.place

    def slow(*args: Any, **options: Any) -> bool:
        block()
        return place(*args, **options)

    monkeypatch.setattr(world.loader, "place", slow)
    with world.running(wait=False):
        assert block.is_in.wait(5)
        health = world.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "loading")
        reply = world.post("How?")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "loading")
        assert int(reply.headers["retry-after"]) > 0
        block.open()
        until(lambda: world.engine.health.state == "ok")
        assert works(world)


def test_a_job_that_came_while_the_models_were_closed_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, config = fake_engine(monkeypatch, ServerWorld(monkeypatch).loader)
    pair = Pair(engine)
    told: list[JobEvent] = []
    asked = [Asked([Message("user", "How?")], config.with_values(each)) for each in ({}, {"beams": 30})]
    for each in asked:
        pair.add(Job(each, told.extend))
    assert told == []
    list(pair.load())
    assert [type(event) for event in told] == [Accepted, UsageError]


def test_what_nobody_uses_is_closed_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(monkeypatch, idle_seconds=0.05) as world:
        for _ in range(2):
            until(lambda: all(lm.is_closed for lm in world.loader.opened["draft"]))
            assert world.get("/health").status_code == 200
            assert works(world)
        until(lambda: not world.engine._pairs["pair"].is_open)
        world.loader.has_memory = False
        reply = world.post("How?")
        assert (reply.status_code, reply.json()["error"]["code"]) == (500, "model")
        assert world.get("/health").status_code == 200
        world.loader.has_memory = True
        assert works(world)
        assert has_room(world)


def test_models_that_changed_while_they_were_closed_are_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(monkeypatch, idle_seconds=0.05) as world:
        pair = world.engine._pairs["pair"]
        until(lambda: not pair.is_open)

        def changed() -> None:
            raise ModelError("/models/draft.gguf has changed since the server started: start it again")

        monkeypatch.setattr(pair, "_require_unchanged", changed)
        reply = world.post("How?")
        assert (reply.status_code, reply.json()["error"]["code"]) == (500, "model")
        assert not pair.is_open
        monkeypatch.setattr(pair, "_require_unchanged", lambda: None)
        assert works(world)


def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(monkeypatch, parallel=1, queue_limit=1) as world:
        block = Block()
        before(monkeypatch, world.draft, lambda _: block())
        first = asking(world, "How?")
        assert block.is_in.wait(5)
        second = asking(world, "How?", stream=True)
        until(lambda: sum(world.engine._open_jobs.values()) == 2)
        for stream in (False, True):
            reply = answered(asking(world, "How?", stream=stream))
            assert told(reply) == (429, "queue_full")
            assert reply.error["type"] == "rate_limit_error"
            assert int(reply.headers["retry-after"]) >= 1
        block.open()
        assert [answered(sock).status for sock in (first, second)] == [200, 200]
        assert works(world)


def test_an_engine_that_drains_answers_what_runs_and_takes_no_more(world: ServerWorld) -> None:
    world.draft.seconds = 0.005
    running = [asking(world, "Story?", stream=stream) for stream in (False, True, False)]
    until(lambda: sum(world.engine._open_jobs.values()) == 3)
    world.engine.drain()
    health = world.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "stopping")
    reply = world.post("How?")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "shutting_down")
    assert reply.headers["retry-after"]
    replies = list(map(answered, running))
    assert [reply.status for reply in replies] == [200] * 3
    assert b"[DONE]" in replies[1].body
    assert world.engine.join(5)


def test_an_engine_that_stops_gives_no_half_answer_for_a_whole_one(world: ServerWorld) -> None:
    world.draft.seconds = 0.02
    window = {"stream": "window"}
    whole, streamed = asking(world, "Story?"), asking(world, "Story?", stream=True, alignbeam=window)
    waiting = asking(world, "Story?")
    until(lambda: world.engine.health.running == 2)
    until(lambda: sum(world.engine._open_jobs.values()) == 3)
    world.engine.stop()
    assert told(answered(whole)) == told(answered(waiting)) == (503, "shutting_down")
    reply = answered(streamed)
    assert frames(reply.body.decode())[-1]["error"]["code"] == "shutting_down"
    assert world.engine.join(5)


def test_health_tells_when_the_engine_is_stuck(world: ServerWorld, monkeypatch: Any) -> None:
    monkeypatch.setattr("alignbeam_local.server.work.engine_thread.STUCK_SECONDS", 0.1)
    block = Block()
    before(monkeypatch, world.draft, lambda _: block())
    sock = asking(world, "How?")
    assert block.is_in.wait(5)
    until(lambda: world.engine.health.state == "stuck")
    health = world.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "stuck")
    assert health.json()["last_step_s"] >= 0.1
    block.open()
    assert answered(sock).status == 200
    assert world.get("/health").status_code == 200


def test_a_verdict_of_many_decodes_is_not_stuck(world: ServerWorld, monkeypatch: Any) -> None:
    monkeypatch.setattr("alignbeam_local.server.work.engine_thread.STUCK_SECONDS", 0.2)
    judge, begun = world.judge.judge, threading.Event()

    def slow(*args: Any) -> Any:
        begun.set()
        for _ in range(30):
            sleep(0.02)
            world.loader.opened["judge"][-1].batches.append({0: 1})
        return judge(*args)

    monkeypatch.setattr(world.judge, "judge", slow)
    sock = asking(world, "How?")
    assert begun.wait(5)
    found = set()
    end = monotonic() + 0.5
    while monotonic() < end:
        found.add(world.engine.health.state)
        sleep(0.01)
    assert answered(sock).status == 200
    assert found == {"ok"}


def test_what_a_verdict_has_passed_is_not_lost_where_the_next_one_comes_at_once() -> None:
    record = Record(Job(None, lambda _: None))  # type: ignore[arg-type]
    assert record.take([AnswerText("passed"), Withdrawn(REFUSED)]) == "passed"
    record = Record(Job(None, lambda _: None))  # type: ignore[arg-type]
    assert record.take([Withdrawn(REFUSED)]) == REFUSED


# --- a process of its own

PROGRAM = """
import sys
from tests.server_world import ServerWorld
import pytest
from alignbeam_local.server.serving import bound, serve
world = ServerWorld(pytest.MonkeyPatch())
sock = bound("127.0.0.1", 0)
print(sock.getsockname()[1], flush=True)
open_ = world.loader.open
def opened(*args):
    model = open_(*args)
    model.lm.seconds = 0.01
    return model
world.loader.open = opened
serve(world.app, sock, world.engine)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_lets_answers_end_and_a_second_one_does_not(
    monkeypatch: pytest.MonkeyPatch, signals: int
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        world = ServerWorld(monkeypatch)
        world.url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        until(lambda: world.get("/health").status_code == 200)
        socks = [asking(world, "Story?"), asking(world, "Story?", stream=True)]
        until(lambda: world.get("/health").json()["running"] == 2)
        begun = monotonic()
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            sleep(0.2)
        whole, streamed = map(answered, socks)
        _, stderr = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in stderr
    if signals == 1:
        assert (whole.status, b"[DONE]" in streamed.body) == (200, True)
    else:
        assert monotonic() - begun < 3
        assert told(whole) == (503, "shutting_down")
        assert frames(streamed.body.decode())[-1]["error"]["code"] == "shutting_down"
