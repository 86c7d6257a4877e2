"""Bytes that are no UTF-8, in arguments, variables and knobs: refused before anything is done."""

import json

import pytest

from alignbeam_local.paths import data_dir

from .fake_engine import FakeEngine
from .running import run

NO_TEXT = "caf\udce9"


@pytest.mark.parametrize(
    "args",
    [
        ("logs", "search", NO_TEXT),
        ("logs", "show", NO_TEXT),
        ("logs", "export", "--out", f"{NO_TEXT}.md"),
        ("chat", "--session", NO_TEXT),
        ("chat", f"--system={NO_TEXT}"),
        ("ask", "x", NO_TEXT),
        ("filter", "--template", NO_TEXT),
        ("eval", "run", "--suite", NO_TEXT, "--system", "x", "--out", "y"),
        ("eval", "run", "--suite", "x", "--system", NO_TEXT, "--out", "y"),
        ("models", "import", f"/{NO_TEXT}.gguf"),
        ("models", "pull", NO_TEXT),
        (NO_TEXT,),
    ],
)
def test_bytes_that_are_no_text_are_refused_in_every_argument(args: tuple[str, ...]) -> None:
    ran = run(*args)
    (place,) = (number for number, word in enumerate(args, 1) if NO_TEXT in word)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: argument {place}, '")
    assert "is not Unicode text\nhint: Give it as UTF-8" in ran.err
    assert not data_dir().exists(), "something was kept"


@pytest.mark.parametrize("variable", ["ALIGNBEAM_SYSTEM", "ALIGNBEAM_DATA_DIR"])
def test_bytes_that_are_no_text_are_refused_in_the_environment(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, NO_TEXT)
    ran = run("config", "show")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: environment {variable} is not Unicode text\n")


def test_escapes_that_are_no_text_are_refused_in_a_knob_of_a_row(engines: list[FakeEngine]) -> None:
    row = '{"prompt": "x", "system": "\\ud800"}'
    ran = run("filter", "--jsonl", given=f'{row}\n{{"prompt": "echo: on"}}\n')
    failed, answered = map(json.loads, ran.out.splitlines())
    assert "not unicode text" in failed["error"]["message"]
    assert answered["text"] == "on"
