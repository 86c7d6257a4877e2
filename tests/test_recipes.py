"""The recipes of docs/recipes.md, run as they are written, with the fake engine."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from configparser import ConfigParser
from email.message import EmailMessage
from mailbox import Maildir
from pathlib import Path

import pytest

from .running import CHILD, touch_models
from .test_readme import alignbeam_calls, flags_of

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"<!-- recipe: (\S+) -->\n```\w+\n(.*?)```", TEXT, re.S))

Cook = Callable[..., "subprocess.CompletedProcess[str]"]


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


@pytest.fixture
def cook(tmp_path: Path) -> Cook:
    """Run a recipe in an empty home; `alignbeam` has the fake engine there."""
    touch_models()
    program = tmp_path / "bin" / "alignbeam"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(CHILD)} "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def cooked(name: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", "-c", RECIPES[name]],
            cwd=tmp_path,
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )

    return cooked


@needs("jq")
def test_mailbox(cook: Cook, tmp_path: Path) -> None:
    box = Maildir(tmp_path / "Maildir")
    for number, (subject, body) in enumerate([("Öl", "echo {é}"), ("tea", "two")]):
        mail = EmailMessage()
        mail["From"], mail["Subject"] = f"{number}@example.org", subject
        mail.set_content(body)
        if number == 0:
            mail.add_alternative("<p>echo</p>", subtype="html")
        box.add(mail)
    (tmp_path / "mail-rows.py").write_text(RECIPES["mail-rows.py"])
    ran = cook("mailbox")
    assert sorted(ran.stdout.splitlines()) == [
        "0@example.org: Öl: Summarise this mail in one sentence: echo {é} ",
        "1@example.org: tea: Summarise this mail in one sentence: two ",
    ]


def test_add_summary(cook: Cook) -> None:
    mail = "From: a@example.org\nSubject: \x1b[2J\n\nHello\n\nthere\n"
    ran = cook("add-summary", mail)
    head, _, body = ran.stdout.partition("\n\n")
    assert (ran.returncode, body) == (0, "Hello\n\nthere\n")
    *old, summary = head.split("\n")
    assert old == mail.split("\n")[:2]
    assert summary.startswith("X-Summary: From: a@example.org Subject: [2J  Hello  there  Summarise this")


def test_a_mail_is_delivered_where_nothing_answers(cook: Cook, tmp_path: Path) -> None:
    (tmp_path / "bin" / "alignbeam").write_text("#!/bin/sh\necho harm; exit 1\n")
    ran = cook("add-summary", "A: b\n\nHello\n")
    assert (ran.returncode, ran.stdout) == (0, "A: b\nX-Summary: (none)\n\nHello\n")


@needs("xargs")
def test_xargs(cook: Cook, tmp_path: Path) -> None:
    notes(tmp_path)
    assert cook("xargs").returncode == 0
    assert (tmp_path / "notes/a b.txt.summary").read_text() == "one\ntwo\n\nSummarise this.\n"


def test_files(cook: Cook, tmp_path: Path) -> None:
    notes(tmp_path)
    assert sorted(cook("files").stdout.splitlines()) == ["Summarise this: one two ", "Summarise this: three "]


def notes(folder: Path) -> None:
    (folder / "notes").mkdir()
    (folder / "notes/a b.txt").write_text("one\ntwo\n")
    (folder / "notes/c.txt").write_text("three\n")


@needs("jq")
def test_jq(cook: Cook, tmp_path: Path) -> None:
    (tmp_path / "questions.txt").write_text("echo: one\nrefuse\nfull\n")
    cook("jq")
    assert (tmp_path / "answered.tsv").read_text() == "1\tone\n"
    assert (tmp_path / "refused.tsv").read_text() == "2\trefused by the judge\n"
    assert (tmp_path / "failed.tsv").read_text() == "3\tthe prompt is too long\n"


def test_nightly(cook: Cook, tmp_path: Path) -> None:
    folder = tmp_path / "questions"
    folder.mkdir()
    (folder / "questions.jsonl").write_text('{"prompt": "echo: one"}\n{"prompt": "full"}\n')
    assert cook("nightly").returncode == 1
    answers = (folder / "answers.jsonl").read_text()
    assert len(answers.splitlines()) == 2
    assert (folder / "answers.jsonl").stat().st_mode & 0o777 == 0o600
    (tmp_path / "bin" / "alignbeam").write_text("#!/bin/sh\nexit 3\n")
    assert cook("nightly").returncode == 3
    assert (folder / "answers.jsonl").read_text() == answers


def test_the_unit_calls_what_there_is_and_shuts_the_network_out(tmp_path: Path) -> None:
    unit = ConfigParser(strict=False, interpolation=None, delimiters="=")
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(RECIPES["alignbeam.service"])
    service = unit["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "alignbeam"
    assert {word for word in words if word.startswith("-")} <= flags_of(words)
    assert (service["PrivateNetwork"], service["IPAddressDeny"]) == ("yes", "any")
    if shutil.which("systemd-analyze"):
        text = RECIPES["alignbeam.service"].replace(program, sys.executable)
        (tmp_path / "alignbeam.service").write_text(text)
        (tmp_path / "alignbeam.timer").write_text(RECIPES["alignbeam.timer"])
        command = ["systemd-analyze", "verify", "./alignbeam.service", "./alignbeam.timer"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (0, "")


def test_the_flags_of_the_recipes_exist() -> None:
    calls = [words for line in TEXT.splitlines() for words in alignbeam_calls(line)]
    assert len(calls) > 6
    for words in calls:
        if words[0] in ("ask", "filter", "models"):
            assert {word for word in words if word.startswith("--")} <= flags_of(words), words
