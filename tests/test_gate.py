"""Who may come in: keys, Hosts, Origins."""

from collections.abc import Iterator

import httpx2
import openai
import pytest

from alignbeam_local.server.gate import LOOPBACK, GateRules
from tests.server_world import ServerWorld

KEY = "correct-horse"
#: What openai 6.49 for JavaScript adds to a request of its stream helper.
OF_OPENAIS_PAGES = [
    f"x-stainless-{name}"
    for name in (
        "arch",
        "helper-method",
        "lang",
        "os",
        "package-version",
        "retry-count",
        "runtime",
        "runtime-version",
        "timeout",
    )
]


@pytest.fixture(scope="module")
def world() -> Iterator[ServerWorld]:
    rules = GateRules(keys=[KEY.encode(), b"second-key"], hosts=LOOPBACK, origins=["https://ok.example"])
    with pytest.MonkeyPatch.context() as patch, ServerWorld(patch, rules=rules).running() as running:
        yield running


def test_a_key_opens_in_either_header(world: ServerWorld) -> None:
    for headers in ({"authorization": f"Bearer {KEY}"}, {"x-api-key": "second-key"}):
        assert world.post("How?", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {KEY}"}, {"x-api-key": "é"}]
)
def test_without_a_key_nothing_opens_but_health(world: ServerWorld, headers: dict[str, str]) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    for reply in (
        world.post("How?", headers=encoded),
        world.get("/v1/models", headers=encoded),
        world.get("/metrics", headers=encoded),
    ):
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
        assert reply.headers["www-authenticate"] == "Bearer"
    health = world.get("/health", headers=encoded)
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert "draft" not in health.text


def test_openais_client_knows_the_error(world: ServerWorld) -> None:
    with pytest.raises(openai.AuthenticationError):
        world.openai("nope").models.list()
    assert world.openai(KEY).models.list().data


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8017", 200),
        ("[::1]", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("", 403),
    ],
)
def test_a_host_that_is_not_this_server_is_refused(world: ServerWorld, host: str, status: int) -> None:
    reply = world.get("/health", headers={"host": host})
    assert reply.status_code == status
    if status == 403:
        assert reply.json()["error"]["type"] == "permission_error"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("https://127.0.0.1", 200),
        ("app://obsidian.md", 200),
        ("vscode-webview://abc", 200),
        ("https://ok.example", 200),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("http://localhost:3000.evil.example", 403),
        ("null", 403),
        ("file://", 403),
    ],
)
def test_pages_of_other_origins_may_not_ask(world: ServerWorld, origin: str, status: int) -> None:
    headers = {"origin": origin, "authorization": f"Bearer {KEY}"}
    reply = world.post("How?", headers=headers)
    assert reply.status_code == status
    allowed = reply.headers.get("access-control-allow-origin")
    assert (allowed == origin) == (status == 200)


def test_a_page_of_the_server_itself_may_ask(world: ServerWorld) -> None:
    own = world.url.replace("127.0.0.1", "localhost")
    headers = {"origin": own, "host": own.removeprefix("http://"), "x-api-key": KEY}
    assert world.post("How?", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("origin", "is_allowed"), [("http://localhost:1", True), ("https://evil.example", False)]
)
def test_a_preflight_is_answered_without_a_key(world: ServerWorld, origin: str, is_allowed: bool) -> None:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": f"authorization,content-type,{','.join(OF_OPENAIS_PAGES)}",
    }
    reply = httpx2.request("OPTIONS", f"{world.url}/v1/chat/completions", headers=headers)
    assert (reply.status_code == 200) == is_allowed
    assert ("access-control-allow-origin" in reply.headers) == is_allowed


def test_beyond_this_machine_any_name_will_do() -> None:
    assert GateRules(keys=[b"k"]).allows_host("clinic.example:8017")
