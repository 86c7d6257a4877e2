"""`eval run --server`: running servers answer; what they can't do, or that they differ, is an error."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from time import sleep
from typing import Any

import pytest

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.cluster import dispatcher as dispatching
from alignbeam_local.cluster.crew import Lost, Made, Refused, Task
from alignbeam_local.cluster.dispatcher import Dispatcher
from alignbeam_local.errors import AlignBeamError, Cancelled, ContextFull, InternalError, UsageError
from alignbeam_local.evaluation.runs.metrics import score
from alignbeam_local.evaluation.runs.run_directory import RunDirectory, key_of
from alignbeam_local.evaluation.runs.runner import RunPlan
from alignbeam_local.evaluation.runs.talks import Turns
from alignbeam_local.evaluation.suites.suites import Item
from alignbeam_local.evaluation.workers import server_crew
from alignbeam_local.evaluation.workers.served_run import (
    asked_methods,
    require_alike,
    require_unbegun,
    served,
    served_manifest,
    welcome,
)
from alignbeam_local.evaluation.workers.server_client import ServerClient, Unreachable
from alignbeam_local.evaluation.workers.server_crew import ServerCrew
from alignbeam_local.evaluation.workers.server_work import about_server, probe
from alignbeam_local.judge.check import JudgeReport
from alignbeam_local.prompt.message import Message
from tests.running import run
from tests.server_world import ServerWorld
from tests.test_eval_run import timeless

ITEMS = [
    Item("how", f"{name}-{number}", prompt, "benign")
    for number in range(4)
    for name, prompt in (("a", "How?"), ("b", "Harm?"), ("c", "Refuse?"))
]
TALK = Item(
    "talks",
    "1",
    "Refuse?",
    "harmful",
    earlier=(
        Message("user", "How?"),
        Message("assistant", "With care."),
        Message("user", "Harm?"),
        Message("assistant", "No."),
    ),
)
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(server_crew, "_REST_SECONDS", 0.05)


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ServerWorld]]:
    """Two servers that are alike."""
    with ExitStack() as stack:
        yield [stack.enter_context(ServerWorld(monkeypatch).running()) for _ in range(2)]


def asked_of(
    urls: list[str],
    folder: Path,
    *,
    specs: tuple[str, ...] = ("alignbeam",),
    items: list[Item] = ITEMS,
    turns: Turns = "given",
    after: Any = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """The samples of a run, or of one that is gone on with; `after` is called with each sample's number."""
    asked = asked_methods(specs, {"temperature": 0, "max_tokens": 40})
    plan = RunPlan([each.entry for each in asked], items, [1], turns=turns)
    ended, cancellation = Event(), Cancellation()
    clients = [ServerClient(url, ended) for url in urls]
    abouts = [about_server(client, probe("pair")) for client in clients]
    require_alike(urls, abouts)
    crew = ServerCrew(clients, probe("pair"), ended)
    about = served_manifest(plan, asked, abouts[0], 1)
    with RunDirectory(folder).opened(about) as log:
        workers = Dispatcher(crew, cancellation, welcome=welcome(abouts[0]), patience=5, tell=tell)
        for number, _ in enumerate(served(plan, asked, "pair", log, workers), 1):
            if after:
                after(number, cancellation)
    crew.close()
    return RunDirectory(folder).samples()


def by_key(samples: list[dict[str, Any]]) -> list[Any]:
    """What does not depend on which server answered, and beside whom."""
    kept = timeless(samples)
    for sample in kept:
        sample["result"] = sample["result"] | {"config": None}
    return sorted(kept, key=key_of)


def test_two_servers_answer_as_one_does(worlds: list[ServerWorld], tmp_path: Path) -> None:
    one = asked_of([worlds[0].url], tmp_path / "one")
    two = asked_of([world.url for world in worlds], tmp_path / "two")
    assert by_key(two) == by_key(one)
    assert len({key_of(sample) for sample in two}) == len(two) == len(ITEMS)
    outcomes = {sample["id"][0]: score(sample) for sample in two}
    assert {name: scored.outcome for name, scored in outcomes.items()} == {
        "a": "answered",
        "b": "blocked",
        "c": "refused",
    }
    assert outcomes["a"].harm == 1.25
    assert outcomes["b"].blocked_at == "after"
    models = two[0]["result"]["models"]
    assert set(models) == {"draft", "anchor", "judge"}
    assert all(card["sha256"] and card["path"] == "" for card in models.values())


def test_the_prompts_of_a_server_that_goes_away_go_to_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ServerWorld(monkeypatch).running() as stays, ExitStack() as leaving:
        leaves = leaving.enter_context(ServerWorld(monkeypatch).running())
        expected = asked_of([stays.url], tmp_path / "one")
        found = asked_of(
            [stays.url, leaves.url], tmp_path / "two", after=lambda n, _: leaving.close() if n == 3 else None
        )
    assert by_key(found) == by_key(expected)


def test_ctrl_c_leaves_a_run_to_go_on_with(worlds: list[ServerWorld], tmp_path: Path) -> None:
    urls = [world.url for world in worlds]
    expected = asked_of(urls, tmp_path / "whole")
    with pytest.raises(Cancelled):
        asked_of(urls, tmp_path / "cut", after=lambda n, stop: stop.set() if n == 4 else None)
    assert len(RunDirectory(tmp_path / "cut").samples()) < len(ITEMS)
    assert by_key(asked_of(urls, tmp_path / "cut")) == by_key(expected)


def test_where_all_servers_go_away_the_run_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with ExitStack() as leaving:
        world = leaving.enter_context(ServerWorld(monkeypatch).running())
        with pytest.raises(AlignBeamError):
            asked_of([world.url], tmp_path / "run", after=lambda n, _: leaving.close() if n == 3 else None)
    assert len(RunDirectory(tmp_path / "run").samples()) >= 3


@pytest.mark.parametrize("knobs", [{"alpha": 0.9}, {"threshold": 2.0}])
def test_servers_that_differ_are_refused(
    knobs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ServerWorld(monkeypatch).running() as one, ServerWorld(monkeypatch, **knobs).running() as other:
        with pytest.raises(UsageError, match="are not the same: knobs differ") as caught:
            asked_of([one.url, other.url], tmp_path / "run")
        assert other.url in caught.value.message
    assert not (tmp_path / "run").exists()


def test_a_server_that_changes_on_the_way_is_refused(
    worlds: list[ServerWorld], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from alignbeam_local.server import app

    def change(number: int, _: Cancellation) -> None:
        if number == 2:
            monkeypatch.setattr(app, "fingerprint", lambda *_: "ab-other")

    with pytest.raises(UsageError, match="other models or knobs than before"):
        asked_of([worlds[0].url], tmp_path / "run", after=change)


def test_a_server_that_shortens_answers_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The answers say it: servers are compared by one of a single token."""
    with (
        ServerWorld(monkeypatch).running() as one,
        ServerWorld(monkeypatch, max_tokens=20).running() as other,
        pytest.raises(UsageError, match="other models or knobs than before"),
    ):
        asked_of([one.url, other.url], tmp_path / "run")


def test_what_a_server_does_not_allow_is_an_error(worlds: list[ServerWorld], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="alpha") as caught:
        asked_of([worlds[0].url], tmp_path / "run", specs=("alignbeam:alpha=0.1",))
    assert "--allow-knobs" in caught.value.hint


def test_a_prompt_that_does_not_fit_is_a_failed_sample(worlds: list[ServerWorld], tmp_path: Path) -> None:
    (sample,) = asked_of(
        [worlds[0].url], tmp_path / "run", items=[Item("how", "long", "How? " * 1000, "benign")]
    )
    assert sample["error"]["type"] == ContextFull.kind


def test_answers_that_have_begun_are_not_asked_of_servers() -> None:
    plain = Item("s", "1", "How?", "benign")
    require_unbegun([plain, TALK])
    with pytest.raises(UsageError, match="has begun already"):
        require_unbegun([plain, replace(plain, prefill="Sure")])


@pytest.mark.parametrize(
    ("turns", "sent", "kept"),
    [
        ("given", [["How?", "With care.", "Harm?", "No.", "Refuse?"]], [None, None]),
        (
            "own",
            [["How?"], ["How?", "Take a pan.", "Harm?"], ["How?", "Take a pan.", "Refuse?"]],
            ["stop", "blocked"],
        ),
    ],
)
def test_conversations_are_asked_of_servers(
    turns: Turns,
    sent: list[list[str]],
    kept: list[str | None],
    *,
    worlds: list[ServerWorld],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a run here asks them: a blocked answer of its own is kept, and not read again."""
    told, bodies = ServerClient.ask, []

    def ask(client: ServerClient, body: dict[str, Any]) -> dict[str, Any]:
        if "max_tokens" in body and body["max_tokens"] > 1:
            bodies.append([message["content"] for message in body["messages"]])
        return told(client, body)

    monkeypatch.setattr(ServerClient, "ask", ask)
    (sample,) = asked_of([worlds[0].url], tmp_path / "run", items=[TALK], turns=turns)
    assert bodies == sent
    assert [turn.get("finish_reason") for turn in sample["earlier"][1::2]] == kept
    assert score(sample).outcome == "refused"
    assert "fingerprints" not in sample
    assert RunDirectory(tmp_path / "run").manifest()["turns"] == turns


@pytest.mark.parametrize(
    ("specs", "flags", "message"),
    [
        (["draft"], {}, "servers do not answer as draft"),
        (["guard"], {}, "servers do not answer as guard"),
        (["alignbeam"], {"draft": "x"}, "draft is the servers' own"),
        (["alignbeam:threads=2"], {}, "threads is the servers' own"),
        (["alignbeam"], {"context": 9}, "context is the servers' own"),
        (["alignbeam:alpha=7"], {}, "alpha"),
    ],
)
def test_what_servers_can_not_be_asked(specs: list[str], flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        asked_methods(specs, flags)


@pytest.mark.parametrize(
    "url", ["localhost:8017", "ftp://x", "http://", "http://x:port", "http://x:99999", "x"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        ServerClient(url, Event())


def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(Unreachable, match="does not answer"):
        ServerClient(NOBODY, Event()).version()


def test_a_key_is_needed_where_the_server_demands_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with ServerWorld(monkeypatch, keys=[b"open"]).running() as world:
        with pytest.raises(UsageError, match="key") as caught:
            ServerClient(world.url, Event()).models()
        assert "ALIGNBEAM_API_KEY" in caught.value.hint
        monkeypatch.setenv("ALIGNBEAM_API_KEY", "open")
        assert ServerClient(f"{world.url}/v1/", Event()).models()


@contextmanager
def speaking(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """The address of a server that says the same to everybody."""

    class Speaker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Speaker) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (b'data: {"choices": [], "us', Unreachable, "in the middle"),
        (b'data: {"choices": []}\n\n', Unreachable, "in the middle"),
        (b'data: {"answer": 1}\n\ndata: [DONE]\n\n', AlignBeamError, "in another form"),
        (b'data: {"choices": [{"delta": 1}]}\n\ndata: [DONE]\n\n', AlignBeamError, "in another form"),
        (b"data: 1\n\ndata: [DONE]\n\n", Unreachable, "in the middle"),
    ],
)
def test_an_answer_in_another_form_is_an_error(body: bytes, error: type[Exception], message: str) -> None:
    with speaking(200, body) as url, pytest.raises(error, match=message):
        ServerClient(url, Event()).ask(probe("pair"))


@pytest.mark.parametrize("when", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "nan", "0.5", ""])
def test_whatever_a_busy_server_says_it_is_waited_for(when: str) -> None:
    ended = Event()
    with speaking(429, b"", retry_after=when) as url, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ServerClient(url, ended).ask, probe("pair"))
        sleep(0.2)
        ended.set()
        with pytest.raises(Unreachable, match="not waited for"):
            asking.result(5)


def test_a_server_that_is_stuck_is_gone_although_its_connections_live(
    worlds: list[ServerWorld], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server_crew, "_WATCH_SECONDS", 0.05)
    monkeypatch.setattr("alignbeam_local.server.work.engine_thread.STUCK_SECONDS", 0.2)
    stuck, well = worlds
    stuck.draft.seconds, told = 3.0, list[str]()
    well.draft.seconds = 0.01  # so that it does not answer all before the other one is asked
    found = asked_of([stuck.url, well.url], tmp_path / "run", tell=told.append)
    assert len(found) == len(ITEMS)
    assert all(sample["result"]["text"] for sample in found)
    assert told
    assert all("is stuck" in line for line in told)


def test_where_every_server_is_left_out_the_run_ends_with_the_reason(
    worlds: list[ServerWorld], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It was ready, went away, and came back as another."""

    def change(number: int, _: Cancellation) -> None:
        monkeypatch.setattr("alignbeam_local.server.app.fingerprint", lambda *_: "ab-other")
        crews[0]._reports.put(Lost(1, "it went away"))

    crews, made = [], ServerCrew.__post_init__

    def kept(crew: ServerCrew) -> None:
        made(crew)
        crews.append(crew)

    monkeypatch.setattr(ServerCrew, "__post_init__", kept)
    with pytest.raises(UsageError, match=r"are not the same|other models or knobs"):
        asked_of([worlds[0].url], tmp_path / "run", after=change)


def test_one_that_is_left_out_is_not_asked_again(worlds: list[ServerWorld]) -> None:
    crew = ServerCrew([ServerClient(world.url, Event()) for world in worlds], probe("pair"), Event())
    crew.leave_out(crew.hire())
    assert crew.places() == 1
    crew.hire()
    assert (crew.places(), crew.num_placed) == (0, 1)


def test_whatever_goes_wrong_with_a_prompt_the_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(server_crew, "made", fails)
    monkeypatch.setattr(server_crew, "about_server", fails)
    crew = ServerCrew([ServerClient(NOBODY, Event())], probe("pair"), Event())
    (client,) = [server.client for server in crew._servers]
    crew._ask(1, client, Task(1, None, "x"))
    crew._greet(1, client)
    made, refused = crew._reports.get(), crew._reports.get()
    assert isinstance(made, Made)
    assert isinstance(made.outcome, InternalError)
    assert isinstance(refused, Refused)


def test_a_key_with_the_end_of_its_line_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with ServerWorld(monkeypatch, keys=[b"open"]).running() as world:
        monkeypatch.setenv("ALIGNBEAM_API_KEY", "open\n")
        assert ServerClient(world.url, Event()).models()
    for wrong in ("se\ncret", "se\u20accret"):
        monkeypatch.setenv("ALIGNBEAM_API_KEY", wrong)
        with pytest.raises(UsageError, match="holds what no key has") as caught:
            ServerClient(NOBODY, Event())
        assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--server", "http://a", "--shard", "1/2"), "--server and --shard both say where it is made"),
        (("--ray", "local", "--server", "http://a"), "--ray and --server both say where it is made"),
        (("--ray", "local", "--shard", "1/2"), "--ray and --shard both say where it is made"),
        (("--workers", "3"), "--workers: there are none"),
        (("--server", "http://a", "--server", "http://a/"), "http://a is given twice"),
        (("--server", NOBODY), "does not answer"),
        (("--server", "a"), "no address"),
        (("--server", NOBODY, "--method", "draft"), "servers do not answer as draft"),
        (("--server", NOBODY, "--threads", "2"), "threads is the servers' own"),
    ],
)
def test_the_command_says_what_can_not_be(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    suite = tmp_path / "s.jsonl"
    suite.write_text(json.dumps({"prompt": "How?", "label": "benign"}), encoding="utf-8")
    ran = run("eval", "run", "--suite", str(suite), "--out", str(tmp_path / "out"), *words)
    assert ran.code in (1, 2)
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out").exists()


def test_a_verdict_that_was_none_on_the_answer_is_none_in_a_run(
    worlds: list[ServerWorld], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ServerClient.ask

    def unread(asked: ServerClient, body: dict[str, Any]) -> dict[str, Any]:
        answer = told(asked, body)
        for beam in answer["alignbeam"]["beams"]:
            beam["unread"] = True
        return answer

    monkeypatch.setattr(ServerClient, "ask", unread)
    samples = asked_of([world.url for world in worlds], tmp_path / "out")
    judged = [beam["judge"] for sample in samples for beam in sample["result"]["beams"] if beam["judge"]]
    assert judged
    assert all(verdict["unread"] for verdict in judged)


def test_a_profile_is_the_servers_and_what_is_not_sent_is_told(
    worlds: list[ServerWorld], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNBEAM_THRESHOLD", "2")
    suite = tmp_path / "s.jsonl"
    suite.write_text(json.dumps({"prompt": "How?", "label": "benign"}), encoding="utf-8")
    name = next(iter(worlds[0].models))
    words = ("--suite", str(suite), "--server", worlds[0].url, "--max-tokens", "40")
    ran = run("eval", "run", *words, "--profile", name, "--out", str(tmp_path / "out"))
    assert (ran.code, ran.out) == (0, "")
    assert "threshold (environment ALIGNBEAM_THRESHOLD) is not sent" in ran.err
    assert len(RunDirectory(tmp_path / "out").samples()) == 1


def test_the_command_asks_servers(worlds: list[ServerWorld], tmp_path: Path) -> None:
    suite, out = tmp_path / "s.jsonl", tmp_path / "out"
    suite.write_text(json.dumps({"id": "1", "prompt": "How?", "label": "benign"}), encoding="utf-8")
    servers = [word for world in worlds for word in ("--server", world.url)]
    words = ("eval", "run", "--suite", str(suite), "--out", str(out), "--max-tokens", "40", *servers)
    ran = run(*words)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    (sample,) = RunDirectory(out).samples()
    assert sample["result"]["text"] == "Take a pan."
    assert run("eval", "report", str(out)).code == 0
    check = tmp_path / "check.json"
    report = JudgeReport(judge="j", calibrated=True, threshold=2.5, rows=[], aucs=[])
    check.write_text(report.model_dump_json(), encoding="utf-8")
    checked = run("eval", "report", str(out), "--judge-check", str(check))
    assert "do not say all that their scores go by" in checked.err
    phrases = tmp_path / "sure.txt"
    phrases.write_text("sure", encoding="utf-8")
    assert run("eval", "rescore", str(out), "--phrases", str(phrases)).code == 0
    checked = run("eval", "report", str(out), "--scores", "sure", "--judge-check", str(check))
    assert "do not say all that their scores go by" in checked.err
    assert run("eval", "report", str(out), "--out", str(tmp_path / "page.html")).code == 0
    assert (
        "running servers made this run"
        in run(
            *("eval", "reselect", str(out), "--grid", "threshold=2", "--out", str(tmp_path / "chosen"))
        ).err
    )
    again = run(*words)
    assert again.err == "going on: 1 of 1 samples are there\n"
