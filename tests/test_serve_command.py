"""`alignbeam serve`: its flags, what it refuses, what it says."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from alignbeam_local.cli.serve.access import keys
from alignbeam_local.cli.serve.duration import seconds
from alignbeam_local.cli.serve.further import further
from alignbeam_local.cli.serve.run import Access

from alignbeam_local.config import Config
from alignbeam_local.errors import AlignBeamError, ModelError, RpcError, UsageError
from alignbeam_local.models.registry import Registry
from alignbeam_local.search.steering import steering_of
from alignbeam_local.server import served
from alignbeam_local.server.protocol.chat_request import read_request
from alignbeam_local.server.protocol.completion import fingerprint
from alignbeam_local.server.protocol.replies import reply_to
from alignbeam_local.server.served import as_served, served_models
from alignbeam_local.server.serving import bound
from alignbeam_local.settings import resolve
from tests.running import Ran, run, touch_models
from tests.test_safety_tokens import token_file

PROGRAM = [sys.executable, "-c", "import sys; from alignbeam_local.cli.main import main; sys.exit(main())"]


@pytest.fixture
def _models() -> None:
    touch_models()


@pytest.mark.usefixtures("_models")
def test_beyond_this_machine_a_key_is_demanded() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        ran = run("serve", "--host", host)
        assert (ran.code, ran.out) == (2, "")
        assert "there is no key" in ran.err
    ran = run("serve", "--allow-host", "localhost", "--allow-host", "clinic.example")  # behind a proxy
    assert (ran.code, ran.out) == (2, "")
    assert "--allow-host clinic.example can be reached by others, and there is no key" in ran.err


@pytest.mark.usefixtures("_models")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--api-key-file", "nowhere.txt"), "cannot read nowhere.txt"),
        (("--idle", "soon"), "--idle soon: not a duration"),
        (("--idle", "0s"), "not a duration"),
        (("--port", "70000"), "--port"),
        (("--report", "nowhere.html"), "--report nowhere.html: no such page"),
        (("--queue", "-1"), "--queue"),
        (("--also", "strater"), "Did you mean starter or paper?"),
        (("--also", "starter"), "two pairs have the same name"),
        (("--host", "no.such.host.invalid"), "there is no key"),
    ],
)
def test_what_can_not_be_is_told(args: tuple[str, ...], message: str) -> None:
    ran: Ran = run("serve", *args)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("host", ["a..b", "a" * 70])
def test_a_host_that_is_no_name(host: str) -> None:
    with pytest.raises(UsageError, match=f"can't listen on {host}:8017"):
        bound(host, 8017)


@pytest.mark.usefixtures("_models")
def test_what_was_given_holds_for_further_profiles_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNBEAM_CHOICE", "votes")
    monkeypatch.setenv("ALIGNBEAM_DRAFT", "mine.gguf")
    monkeypatch.setenv("ALIGNBEAM_judge", "mine.gguf")
    flags = {"on_unsafe": "refuse", "threshold": 1.5, "lora": ("mine",)}
    config = further("paper", flags, Registry.load()).config  # which has on_unsafe = lowest, choice = safest
    assert (config.on_unsafe, config.threshold, config.choice) == ("refuse", 1.5, "votes")
    assert (config.draft, config.lora) == ("smollm2-135m-instruct", ())
    assert config.judge == "qwen2.5-coder-0.5b-instruct"
    assert (config.beams, config.parallel) == (3, 4)


@pytest.mark.usefixtures("_models")
def test_what_is_done_to_the_drafts_safety_tokens_does_not_reach_its_anchor(tmp_path: Path) -> None:
    registry, file = Registry.load(), token_file(tmp_path / "tokens.json", "U")
    flags = {"safety_tokens": "boost", "safety_file": str(file), "boost": 2.0}
    pair, anchor = served_models([as_served(resolve(flags, registry, {}).config)], registry).values()
    assert (pair.config.safety_tokens, anchor.config.safety_tokens) == ("boost", "none")
    assert anchor.config.boost == Config().boost
    before = fingerprint({}, pair.marks)
    token_file(file, "T")
    pair, _ = served_models([as_served(resolve(flags, registry, {}).config)], registry).values()
    assert fingerprint({}, pair.marks) != before, "it tells other tokens"


@pytest.mark.usefixtures("_models")
@pytest.mark.parametrize("loss", ["other", "gone"])
def test_no_answer_goes_by_other_safety_tokens_than_the_server_started_with(
    loss: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry, file = Registry.load(), token_file(tmp_path / "tokens.json", "U")
    flags = {"safety_tokens": "boost", "safety_file": str(file)}
    pair, anchor = served_models([as_served(resolve(flags, registry, {}).config)], registry).values()
    request = read_request({"model": pair.id, "messages": [{"role": "user", "content": "How?"}]})
    pair.settled(request, allows_knobs=False)
    if loss == "gone":
        file.unlink()
    else:
        token_file(file, "T", "U")
    with pytest.raises(ModelError, match="has changed") as told:
        pair.settled(request, allows_knobs=False)
    assert (reply_to(told.value).status, str(file) in caplog.text) == (500, True)
    assert str(tmp_path) not in reply_to(told.value).body["error"]["message"]
    anchor.settled(request, allows_knobs=False)  # it goes by none


@pytest.mark.usefixtures("_models")
@pytest.mark.parametrize("own", [{"steer": "always"}, {"stream": "window"}])
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"choice": "safest"},
        {"request_by": "judge"},
        {"choice": "safest", "request_by": "both"},
        {"choice": "votes", "read_request": "off"},
    ],
)
def test_no_client_keeps_the_head_from_reading_its_request(
    flags: dict[str, str], own: dict[str, str]
) -> None:
    config = as_served(resolve({"steer": "by_request", **flags}, Registry.load(), {}).config)
    pair = next(iter(served_models([config], Registry.load()).values()))
    body = {"model": pair.id, "messages": [{"role": "user", "content": "How?"}], "alignbeam": own}
    changed = pair.settled(read_request(body), allows_knobs=False).config
    reads = (config.reads_request, config.scored_by)
    assert (
        (changed.reads_request, changed.scored_by)
        == reads
        == ((False, "judge") if "read_request" in flags else (True, "both"))
    )
    decision = steering_of(changed, 1e-9, 1e-9, 0.3, 0.8)
    assert decision.alpha == changed.alpha, "a request that reads as harmless is steered too"


@pytest.mark.usefixtures("_models")
@pytest.mark.parametrize("what", ["file", "record"])
def test_models_that_are_not_what_the_server_says_are_not_opened(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.load()
    model = next(iter(served_models([as_served(Config.of(registry.profile("starter")))], registry).values()))
    model.require_unchanged(registry)
    if what == "file":
        path = Path(model.files["judge"].path)
        path.write_bytes(path.read_bytes() + b" ")
    else:
        monkeypatch.setattr(served, "records_of", lambda *_: {"judge": "calibrated anew"})
    with pytest.raises(ModelError, match="has changed since the server started") as told:
        model.require_unchanged(registry)
    assert "/" not in reply_to(told.value).body["error"]["message"]


def test_a_machine_behind_the_server_that_is_gone_is_worth_another_try_and_has_no_address() -> None:
    reply = reply_to(RpcError("10.0.0.5:50052 does not answer"))
    assert (reply.status, reply.body["error"]["code"], "retry-after" in reply.headers) == (503, "rpc", True)
    assert "10.0.0.5" not in reply.body["error"]["message"]


@pytest.mark.usefixtures("_models")
@pytest.mark.parametrize("flags", [{"anchor_row": "gated"}, {"safety_tokens": "boost"}])
def test_a_server_without_the_file_that_it_goes_by_does_not_start(
    flags: dict[str, str], tmp_path: Path
) -> None:
    registry = Registry.load()
    (tmp_path / "empty.json").write_text("{}")
    for named, message in (
        (None, "needs a file that names them"),
        ("none.json", "cannot read none.json"),
        (str(tmp_path / "empty.json"), "is no file of tokens"),
    ):
        given = {**flags, "judge": "head", **({"safety_file": named} if named else {})}
        with pytest.raises(AlignBeamError, match=message):
            served_models([as_served(resolve(given, registry, {}).config)], registry)


@pytest.mark.usefixtures("_models")
def test_the_drafts_own_head_can_be_the_judge() -> None:
    registry = Registry.load()
    config = as_served(resolve({"judge": "head"}, registry, {}).config)
    (pair,) = served_models([config], registry).values()  # what the anchor says alone it can't read
    assert (pair.models["judge"], set(pair.files)) == (None, {"draft", "anchor"})


@pytest.mark.usefixtures("_models")
@pytest.mark.parametrize(
    ("knobs", "late"),
    [
        ({"late": "head"}, "judge"),
        ({"late": "window"}, "window"),
        ({}, "off"),
    ],
)
def test_no_answer_head_reads_on_what_an_anchor_alone_says(knobs: dict[str, str], late: str) -> None:
    """It knows the draft's states alone: every window would be without a score, and the answer withdrawn."""
    registry = Registry.load()
    config = as_served(resolve(knobs, registry, {}).config)
    pair, anchor = served_models([config], registry).values()
    assert (pair.config.late, anchor.config.late) == (knobs.get("late", "off"), late)
    assert anchor.config.judged
    assert anchor.config.on_unsafe == "refuse"


@pytest.mark.usefixtures("_models")
def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = run("serve", "--port", str(taken.getsockname()[1]))
    assert ran.code == 2
    assert "can't listen on 127.0.0.1" in ran.err


@pytest.mark.usefixtures("_models")
def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignbeam_local.cli.serve.extra.find_spec", lambda _: None)
    ran = run("serve")
    assert ran.code == 2
    assert "pip install 'alignbeam-local[server]'" in ran.err


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("first-key\n\nsecond-key\n")
    assert keys(str(file), {"ALIGNBEAM_API_KEY": "from-env"}) == [b"first-key", b"second-key"]
    assert keys(None, {"ALIGNBEAM_API_KEY": "from-environment"}) == [b"from-environment"]
    assert keys(None, {}) == []


@pytest.mark.parametrize("text", ["short", "with space in it", "schlüssel-mit-ü", "\n\n"])
def test_keys_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(UsageError):
        keys(str(file), {})


def test_durations() -> None:
    assert [seconds(text, "--idle") for text in ("90", "90s", "1.5m", "2h", None)] == [90, 90, 90, 7200, None]


@pytest.mark.models
def test_a_real_server_answers_an_ask_and_ends_by_a_signal() -> None:
    serve = [*PROGRAM, "serve", "--port", "0", "--max-tokens", "8", "--parallel", "2"]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        lines = iter(server.stderr.readline, "")
        assert any(line.startswith("ready") for line in lines)
        ask = [*PROGRAM, "ask", "--json", "--max-tokens", "8", "Hi"]
        warm, cold = (
            subprocess.run([*ask, *more], capture_output=True, text=True, check=True).stdout
            for more in ([], ["--no-server"])
        )
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    assert warm.split('"timings"')[0] == cold.split('"timings"')[0]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.5", "127.0.0.5"),
        ("::1", "[::1]"),
        ("localhost", "localhost"),
        ("0.0.0.0", "127.0.0.1"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_it_goes_by_the_address_that_it_was_given(host: str, name: str) -> None:
    rules = Access(host, 0, [b"some-key"], ["My.Name"], [], allows_knobs=False).rules
    assert rules.allows_host(f"{name}:8017")
    assert rules.allows_host("my.name")
    assert not rules.allows_host("evil.example")


def test_beyond_this_machine_a_server_without_names_goes_by_any() -> None:
    rules = Access("0.0.0.0", 0, [b"some-key"], [], [], allows_knobs=False).rules
    assert rules.allows_host("any.name.at.all:8017")
