"""`alignbeam filter --parallel`: the same lines in the same order, several in the making at once."""

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from alignbeam_local.cli import main, session
from alignbeam_local.cli.filter.run import FilterRun
from alignbeam_local.cli.inputs import Arriving

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.engine.engine import Engine
from alignbeam_local.errors import ServerGone
from alignbeam_local.events import Event, Phase
from alignbeam_local.lm.language_model import Logits
from alignbeam_local.machine.context_size import ContextSize
from alignbeam_local.models.registry import Registry
from alignbeam_local.warm import remote_engine
from alignbeam_local.warm.found_server import FoundServer
from alignbeam_local.warm.remote_engine import RemoteEngine

from .fake_lm import Row, fake_vocabulary, scripted_row, spelt
from .fake_loader import FakeLoader, FakeModel
from .running import STARTER, run, touch_models

VOCABULARY = fake_vocabulary("user", "assistant", "system")
BEGIN = "<|im_end|>\n<|im_start|>assistant\n"
SCRIPT = {f"{n}?{BEGIN}": f"Answer {n}{'!' * (20 - 3 * n)}" for n in range(7)} | {f"slow?{BEGIN}": "z" * 90}
FLAGS = ("--beams", "1", "--temperature", "0", "--repeat-penalty", "1", "--force", "--context", "400")


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> FakeLoader:
    """Real engines over models that answer by a script."""
    return open_fakes(monkeypatch, scripted_row(VOCABULARY, SCRIPT))


def open_fakes(monkeypatch: pytest.MonkeyPatch, row: Row) -> FakeLoader:
    touch_models()
    draft, anchor = STARTER
    found = FakeLoader(
        {draft: FakeModel(VOCABULARY, row), anchor: FakeModel(VOCABULARY, scripted_row(VOCABULARY, SCRIPT))}
    )

    def open_engine(config: Config, registry: Registry, cancellation: Cancellation | None = None) -> Engine:
        return Engine(config, registry, cancellation=cancellation)

    monkeypatch.setattr("alignbeam_local.engine.engine.Loader", found)
    monkeypatch.setattr(session, "open_engine", open_engine)
    return found


@pytest.mark.parametrize("parallel", ["1", "3"])
def test_what_a_lost_server_had_in_the_making_is_asked_again_here(
    loader: FakeLoader, monkeypatch: pytest.MonkeyPatch, parallel: str
) -> None:
    class Remote(RemoteEngine):
        def _serving(self, config: Config) -> FoundServer | None:
            return self._server

    def open_engine(config: Config, registry: Registry, cancellation: Cancellation | None = None) -> Engine:
        server = FoundServer(Path("x"), 1, "pair", config, {}, {}, ())
        return Remote(config, registry, server, cancellation=cancellation)

    def lost(*_: object) -> Iterator[Event]:
        yield Phase("prefill")
        raise ServerGone("it is gone")

    monkeypatch.setattr(session, "open_engine", open_engine)
    monkeypatch.setattr(remote_engine, "_answer", lost)
    ran = run("filter", *FLAGS, "--parallel", parallel, given=GIVEN)
    assert (ran.code, ran.out) == (0, ANSWERS)
    assert loader.opened[STARTER[0]]


def decodes(loader: FakeLoader) -> int:
    return sum(lm.decodes for lm in loader.opened[STARTER[0]])


GIVEN = "".join(f"{n}?\n" for n in range(7))
ANSWERS = "".join(f"{text}\n" for text in list(SCRIPT.values())[:7])


def test_answers_come_in_the_order_of_their_lines(loader: FakeLoader) -> None:
    alone = run("filter", *FLAGS, given=GIVEN)
    before = decodes(loader)
    ran = run("filter", *FLAGS, "--parallel", "3", given=GIVEN)
    assert (ran.code, ran.out) == (alone.code, alone.out) == (0, ANSWERS)
    assert decodes(loader) - before < before / 2
    lms = loader.opened[STARTER[0]]
    assert lms[-1].num_sequences == 3 * lms[0].num_sequences
    assert all(lm.is_closed for lm in lms)


def test_lines_that_are_blank_or_fail_keep_their_places(loader: FakeLoader) -> None:
    given = f"0?\n\n{'x' * 500}\n6?\n"
    ran = run("filter", *FLAGS, "--parallel", "4", given=given)
    assert (ran.code, ran.out) == (1, f"{SCRIPT[f'0?{BEGIN}']}\n\n\n{SCRIPT[f'6?{BEGIN}']}\n")
    assert "error: line 3: the conversation needs" in ran.err
    assert ran.err.endswith("error: 1 of 3 prompts failed\n")


def test_a_row_that_needs_more_than_is_open_is_answered_too(loader: FakeLoader) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"{n}?", "id": n} for n in range(5)]
    rows[2] |= {"max_tokens": 600, "depth": 40}
    rows[3] |= {"kv": "state"}
    given = "".join(f"{json.dumps(row)}\n" for row in rows)
    ran = run("filter", *FLAGS, "--jsonl", "--trace", "--parallel", "3", given=given)
    told = [json.loads(line) for line in ran.out.splitlines()]
    found = [line for line in told if "event" not in line]
    assert [one["id"] for one in found] == list(range(5))
    assert [one.get("text") for one in found] == [
        None if n == 3 else SCRIPT[f"{n}?{BEGIN}"] for n in range(5)
    ]
    assert found[3]["error"]["message"] == "kv can't change between answers"
    assert len(loader.opened[STARTER[0]]) == 2, "opened anew once"
    steps = [sum("event" in line for line in told[: told.index(one)]) for one in found]
    assert steps == sorted(steps)
    assert steps[0] == 6, "the steps of a row come before it"


def test_a_pair_that_cannot_be_had_fails_its_row(loader: FakeLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    place = loader.place

    def check(needs: Mapping[str, tuple[Path, ContextSize]], *, spare: int) -> bool:
        loader.has_memory = all(room.shared_cells < 3000 for _, room in needs.values())
        return place(needs, spare=spare)

    monkeypatch.setattr(loader, "place", check)
    rows = [{"prompt": "0?"}, {"prompt": "1?", "depth": 400}, {"prompt": "2?"}]
    given = "".join(f"{json.dumps(row)}\n" for row in rows)
    ran = run("filter", *FLAGS, "--jsonl", "--parallel", "2", given=given)
    found = list(map(json.loads, ran.out.splitlines()))
    assert [one.get("text") for one in found] == [SCRIPT[f"0?{BEGIN}"], None, SCRIPT[f"2?{BEGIN}"]]
    assert found[1]["error"]["message"] == "not enough memory"


def sleepy(seconds: float) -> Row:
    scripted = scripted_row(VOCABULARY, SCRIPT)

    def row(tokens: Sequence[int]) -> Logits:
        if b"slow?" in spelt(VOCABULARY, tokens):
            time.sleep(seconds)
        return scripted(tokens)

    return row


def test_a_line_that_takes_too_long_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    open_fakes(monkeypatch, sleepy(0.05))
    given = "slow?\n6?\n"
    ran = run("filter", *FLAGS, "--parallel", "2", "--timeout", "1.5", given=given)
    assert (ran.code, ran.out) == (1, f"\n{SCRIPT[f'6?{BEGIN}']}\n")
    assert "error: line 1: no answer in 1.5 seconds\n" in ran.err


def test_ctrl_c_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    lms = open_fakes(monkeypatch, sleepy(0.05)).opened
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    ran = run("filter", *FLAGS, "--parallel", "2", given="slow?\n6?\n")
    timer.join()
    assert (ran.code, ran.out) == (130, "")
    assert all(lm.is_closed for lm in lms[STARTER[0]])


def test_ctrl_c_ends_a_run_in_which_nothing_is_decoded(
    loader: FakeLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FilterRun.write

    def interrupted(run: FilterRun, number: int, *rest: Any) -> None:
        write(run, number, *rest)
        if number == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(FilterRun, "write", interrupted)
    ran = run("filter", *FLAGS, "--parallel", "2", given="\n" * 500)
    assert (ran.code, ran.out.count("\n") < 20) == (130, True)


# --- records as they arrive


def test_a_record_is_taken_when_it_is_whole_and_not_waited_for() -> None:
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as stream, os.fdopen(theirs, "wb", buffering=0) as writer:
        source = Arriving(stream, b"\n")
        steps: list[tuple[bytes, list[bytes | None]]] = [
            (b"", [None]),
            (b"on", [None]),
            (b"e\ntwo\nth", [b"one", b"two", None]),
            (b"ree\n", [b"three", None]),
            (b"last", [None]),
        ]
        for written, taken in steps:
            writer.write(written)
            assert [source.take(wait=False) for _ in taken] == taken
        writer.close()
        assert [source.take(wait=False), source.take()] == [b"last", None]


def test_a_line_does_not_wait_for_lines_to_come(loader: FakeLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind `tail -f`: each line is written only when the answer to the one before is there."""
    ours, theirs = os.pipe()
    written = io.BytesIO()

    def talk() -> None:
        with os.fdopen(theirs, "wb", buffering=0) as writer:
            for n in range(3):
                writer.write(f"{n}?\n".encode())
                wait(lambda n=n: written.getvalue().count(b"\n") > n)  # type: ignore[misc]

    thread = threading.Thread(target=talk)
    thread.start()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(os.fdopen(ours, "rb")))
        patch.setattr("sys.stdout", io.TextIOWrapper(written, "utf-8"))
        code = main.main(["filter", *FLAGS, "--parallel", "4"])
        found = written.getvalue().decode()
    thread.join()
    assert (code, found) == (0, "".join(ANSWERS.splitlines(keepends=True)[:3]))


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
