"""`alignbeam logs`: what it prints, what it deletes, and when it asks."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alignbeam_local.cli.chat.transcript import opened
from alignbeam_local.cli.commands.logs import outdated
from alignbeam_local.cli.console import asking, tables, terminal
from alignbeam_local.cli.line.input import typed_lines
from alignbeam_local.cli.views import logs as logs_view

from alignbeam_local.config import Config
from alignbeam_local.conversation.log import ConversationLog
from alignbeam_local.conversation.log_file import default_path
from alignbeam_local.conversation.stored import StoredConversation

from .fake_engine import REFUSED, fake_result
from .running import run

CONFIG = Config.of({"draft": "smollm2-135m-instruct", "system": "Be brief."})


@pytest.fixture
def kept() -> None:
    """A conversation of two turns with a name, then one without."""
    with ConversationLog() as log:
        log.add("aa11", "What is\ttea?\nSay.", fake_result("A *drink*\x1b[31m.", CONFIG), name="tea")
        log.add("aa11", "And harm?", fake_result(REFUSED, CONFIG, "blocked"))
        log.add("bb22", "Hello", fake_result("World", CONFIG))


pytestmark = pytest.mark.usefixtures("kept")


def test_a_list_is_tab_separated_in_a_pipe() -> None:
    ran = run("logs", "list")
    rows = [line.split("\t") for line in ran.out.splitlines()]
    assert [(row[0], row[1], *row[3:]) for row in rows] == [
        ("bb22", "", "1", "Hello"),
        ("aa11", "tea", "2", "What is tea? Say."),
    ]
    assert len(run("logs", "list", "--limit", "1").out.splitlines()) == 1
    assert [one["id"] for one in json.loads(run("logs", "list", "--json").out)] == ["bb22", "aa11"]


def test_a_list_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with ConversationLog() as log:
        log.add("cc33", "long " * 100 + "\x1b[2J", fake_result("x", CONFIG))
    for module in (logs_view, tables):
        monkeypatch.setattr(module, "is_terminal", lambda _: True)
    monkeypatch.setenv("COLUMNS", "80")
    head, first, *_ = run("logs", "list").out.splitlines()
    assert head.split()[:3] == ["id", "name", "used"]
    assert first.startswith("cc33")
    assert len(first) <= 80
    assert "…" in first


def test_show_is_markdown_of_the_last_or_the_named_one() -> None:
    assert "## You\n\nHello\n\n## Assistant\n\nWorld\n" in run("logs", "show").out
    text = run("logs", "show", "tea").out
    assert text.startswith("# tea\n\nid aa11, started ")
    assert text.count("## System\n\nBe brief.") == 1
    assert text.endswith(f"## You\n\nAnd harm?\n\n## Assistant (blocked)\n\n{REFUSED}\n")
    assert "tea?" not in run("logs", "show", "aa", "--limit", "1").out
    shown = json.loads(run("logs", "show", "tea", "--json").out)
    assert [one["result"]["finish_reason"] for one in shown["exchanges"]] == ["stop", "blocked"]


def test_a_kept_text_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[31m." in run("logs", "show", "tea").out
    monkeypatch.setattr(terminal, "is_terminal", lambda _: True)
    assert "\x1b" not in run("logs", "show", "tea").out
    monkeypatch.setattr(logs_view, "is_terminal", lambda _: True)
    assert "\x1b[31m." not in run("logs", "search", "drink").out


def test_search_shows_where_the_words_stand() -> None:
    (row,) = run("logs", "search", "DRINK", "tea").out.splitlines()
    assert row.split("\t")[0] == "aa11"
    assert run("logs", "search", "coffee").out == ""
    assert [one["question"] for one in json.loads(run("logs", "search", "--json", "hello").out)] == ["Hello"]


def test_nothing_to_show_is_no_fault_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "is_terminal", lambda _: True)
    monkeypatch.setattr(logs_view, "is_terminal", lambda _: True)
    ran = run("logs", "search", "coffee")
    assert (ran.code, ran.out, ran.err) == (0, "", "nothing kept matches\n")
    run("logs", "prune", "--all", "--yes")
    assert run("logs", "list").code == 0


def test_export_in_three_forms(tmp_path: Path) -> None:
    text = run("logs", "export").out
    assert text.index("# tea") < text.index("# bb22")
    (whole,) = json.loads(run("logs", "export", "tea", "--format", "json").out)
    assert (whole["name"], len(whole["exchanges"])) == ("tea", 2)
    out = tmp_path / "all.jsonl"
    assert run("logs", "export", "--format", "jsonl", "--out", str(out)).out == ""
    rows = [json.loads(line) for line in out.read_text().split("\n")[:-1]]
    assert [(row["conversation"], row["prompt"], row["text"]) for row in rows] == [
        ("aa11", "What is\ttea?\nSay.", "A *drink*\x1b[31m."),
        ("aa11", "And harm?", REFUSED),
        ("bb22", "Hello", "World"),
    ]
    assert out.stat().st_mode & 0o777 == 0o600


def test_export_writes_what_the_ending_says_unless_told_otherwise(tmp_path: Path) -> None:
    written = {}
    for name, *args in (
        ("w.json",),
        ("w.JSONL",),
        ("w.md",),
        ("w.txt", "--format", "json"),
        ("v.json", "-f", "md"),
    ):
        assert run("logs", "export", "tea", "--out", str(tmp_path / name), *args).code == 0
        written[name] = (tmp_path / name).read_text()
    assert json.loads(written["w.json"]) == json.loads(written["w.txt"])
    assert len(written["w.JSONL"].split("\n")) == 3
    assert written["w.md"] == written["v.json"] == run("logs", "export", "tea", "--format", "md").out
    ran = run("logs", "export", "tea", "--out", str(tmp_path / "w.doc"))
    assert (ran.code, (tmp_path / "w.doc").exists()) == (2, False)
    assert ran.err.splitlines()[1] == "hint: .md, .json or .jsonl. Or give --format."


def test_export_overwrites_only_if_told_to(tmp_path: Path) -> None:
    out = tmp_path / "all.md"
    out.write_text("precious")
    ran = run("logs", "export", "--out", str(out))
    assert (ran.code, ran.err) == (2, f"error: {out} is there already\nhint: --force overwrites it.\n")
    assert out.read_text() == "precious"
    assert run("logs", "export", "--out", str(out), "--force").code == 0
    assert "# tea" in out.read_text()


def test_path() -> None:
    assert run("logs", "path").out == f"{default_path()}\n"


@pytest.mark.parametrize(
    ("args", "left"),
    [
        (("tea",), ["bb22"]),
        (("aa", "tea"), ["bb22"]),
        (("--keep", "1"), ["bb22"]),
        (("--older-than", "1h"), ["bb22", "aa11"]),
        (("--older-than", "0m"), []),
        (("--older-than", "0m", "--keep", "1"), ["bb22"]),
        (("--all",), []),
    ],
)
def test_prune_deletes_what_was_said(args: tuple[str, ...], left: list[str]) -> None:
    ran = run("logs", "prune", *args, "--yes")
    assert (ran.code, ran.out) == (0, "")
    assert [line.split("\t")[0] for line in run("logs", "list").out.splitlines()] == left
    assert ran.err == {2: "there is nothing to delete\n", 1: "deleted 1 conversation\n"}.get(
        len(left), "deleted 2 conversations\n"
    )


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("tea", "--all"),
        ("--older-than", "", "--keep", "1", "--yes"),
        ("--all", "--keep", "0", "--yes"),
        ("--all", "--keep", "1"),
        ("--older-than", "3"),
        ("coffee", "--yes"),
    ],
)
def test_prune_must_be_told_what(args: tuple[str, ...]) -> None:
    ran = run("logs", "prune", *args)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")


def test_prune_asks_and_without_a_terminal_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run("logs", "prune", "--all")
    assert (ran.code, ran.err) == (
        2,
        "error: this would delete 2 conversations\nhint: Add --yes to delete without being asked.\n",
    )
    monkeypatch.setattr(asking, "is_terminal", lambda _: True)
    assert run("logs", "prune", "--all", given="n\n").code == 130
    assert len(run("logs", "list").out.splitlines()) == 2
    assert run("logs", "prune", "--all", given="y\n").code == 0
    assert run("logs", "list").out == ""
    assert "there are no conversations" in run("logs", "show").err


def test_prune_all_deletes_what_was_typed_too() -> None:
    typed_lines().write_text("+secret\n")
    run("logs", "prune", "tea", "--yes")
    assert typed_lines().exists()
    assert (
        run("logs", "prune", "--all", "--yes").err == "deleted 1 conversation and the lines typed in chats\n"
    )
    assert not typed_lines().exists()
    assert run("logs", "prune", "--all", "--yes").err == "there is nothing to delete\n"


def test_prune_leaves_what_a_chat_has_open() -> None:
    with opened(is_kept=True, name="tea", continued=False):
        ran = run("logs", "prune", "tea", "--yes")
        assert (ran.code, ran.err.splitlines()[0]) == (2, "error: a chat has tea open")
        assert run("logs", "prune", "bb22", "--all").code == 2
        ran = run("logs", "prune", "--older-than", "0m", "--yes")
        assert (ran.code, ran.err) == (0, "note: a chat has tea open: it stays\ndeleted 1 conversation\n")
    assert [line.split("\t")[0] for line in run("logs", "list").out.splitlines()] == ["aa11"]
    assert run("logs", "prune", "tea", "--yes").err == "deleted 1 conversation\n", "the chat has ended"


def test_age_is_since_the_last_question() -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    days = [
        StoredConversation(str(day), None, "", (now - timedelta(days=day)).isoformat(), 1, None, None)
        for day in range(5)
    ]
    assert [one.id for one in outdated(days, timedelta(days=2), 0, now)] == ["3", "4"]
    assert [one.id for one in outdated(days, timedelta(days=2), 4, now)] == ["4"]
    assert [one.id for one in outdated(days, None, 4, now)] == ["4"]
