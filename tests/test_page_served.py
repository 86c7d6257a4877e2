"""The page and what it reads, from a real server over models without weights."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from alignbeam_local import __version__
from alignbeam_local.server.page.page import KNOBS, live_page

from .server_world import ServerWorld, asked, frames


@pytest.fixture(scope="module")
def world() -> Iterator[ServerWorld]:
    with pytest.MonkeyPatch.context() as patch, ServerWorld(patch, keys=[b"sesame"]).running() as running:
        yield running


def test_the_page_comes_with_its_policy_and_without_a_key(world: ServerWorld) -> None:
    page = world.get("/")
    assert (page.status_code, page.content) == (200, live_page().html)
    assert page.headers["content-security-policy"] == live_page().policy
    assert page.headers["content-type"].startswith("text/html")


def test_it_is_told_what_it_may_ask_and_nothing_of_models(world: ServerWorld) -> None:
    info = world.get("/page/info").json()
    assert (info["version"], info["allows_knobs"], info["needs_key"]) == (__version__, False, True)
    assert set(info["knobs"]) == set(KNOBS)
    assert world.get("/v1/models").status_code == 401


def test_a_last_chunk_has_every_choice_among_the_beams(world: ServerWorld) -> None:
    key = {"authorization": "Bearer sesame"}
    own = {"stream": "hold", "include": []}
    *_, last, _ = frames(world.post(asked("How?", stream=True, alignbeam=own), headers=key).text)
    rows = last["alignbeam"]["selection"]["chosen"]["safest"]
    assert rows["refuse"] == [{"from": 1.0, "beam": None}, {"from": 1.25, "beam": 0}]
    assert rows["lowest"] == [{"from": 1.0, "beam": 0}]


def test_reports_are_linked_and_may_do_nothing_but_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "a b.html"
    page.write_text("<h1>Refusals</h1>")
    with ServerWorld(monkeypatch, reports={page.stem: page}).running() as world:
        (link,) = world.get("/page/info").json()["reports"]
        assert link == {"name": "a b", "url": "/reports/a%20b"}
        shown = world.get(link["url"])
        assert shown.text == "<h1>Refusals</h1>"
        assert shown.headers["content-security-policy"].startswith(
            "sandbox allow-scripts; default-src 'none'"
        )
        assert world.get("/reports/..%2Fa%20b").status_code == 404
        page.unlink()
        assert world.get(link["url"]).status_code == 404


def test_where_a_key_is_needed_no_report_is_named(world: ServerWorld) -> None:
    assert world.get("/page/info").json()["reports"] == []
    assert world.get("/reports/x").status_code == 401
