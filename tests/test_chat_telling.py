"""Commands of a chat say what they did, and show what was asked for; a text may come from a file."""

from pathlib import Path

import pytest

from .fake_engine import FakeEngine
from .running import run
from .test_chat import chat
from .test_chat_terminal import ENTER, Terminal

pytestmark = pytest.mark.usefixtures("engines")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("/set alpha 0.8", "alpha = 0.8 (was 0.5)"),
        ("/set alpha 0.5", "alpha = 0.5 (as before)"),
        ("/set B=9", "bridge_width = 9 (was "),
        ("/set ignore_eos on", "ignore_eos = on (was off)"),
        ("/system Be brief.", "system = Be brief. (was none)"),
        ("/system", "system = none (as before)"),
        (f"/system {'long ' * 50}", f"system = {('long ' * 50)[:59]}… (was none)"),
        (
            "/model anchor smollm2-135m-instruct",
            "anchor = smollm2-135m-instruct (was qwen2.5-coder-0.5b-instruct)",
        ),
        ("/model profile starter", "profile = starter (was "),
        ("/clear", "a new conversation begins\n"),
    ],
)
def test_a_command_says_what_it_did(command: str, line: str) -> None:
    err = chat(command).err
    if command == "/model profile starter":
        assert "profile = starter" in err
    else:
        assert line in err


def test_clear_says_how_to_go_back() -> None:
    ran = chat("echo: a", "/save taxes of 2025", "/clear")
    assert "a new conversation begins; /load 'taxes of 2025' goes back to the one before\n" in ran.err
    assert "goes back" not in chat("echo: a", "/clear", args=("--no-log",)).err


def test_a_knob_alone_is_shown() -> None:
    ran = chat("/set alpha 0.8", "/set alpha", "/set K", "/set system", "/set alhpa")
    assert "alpha = 0.8 (chat)\n" in ran.out
    assert "default: 0.5\n" in ran.out
    assert "beams = 3 (default)\n" in ran.out
    assert "system = none (default)\n" in ran.out
    assert "error: there is no knob 'alhpa'\nhint: Did you mean alpha?" in ran.err
    assert ran.code == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/set grammar root ::= (", "the grammar is none that llama.cpp reads"),
        ('/set json_schema {"type": "no such"}', "JSON schema"),
    ],
)
def test_a_grammar_that_is_none_is_said_at_once(
    command: str, message: str, engines: list[FakeEngine]
) -> None:
    ran = chat(command, "/set grammar", "/set json_schema", "a")
    assert message in ran.err
    assert "grammar = none (default)" in ran.out, "nothing is changed"
    assert "json_schema = none (default)" in ran.out
    assert len(engines[0].asked) == 1, "the chat goes on"
    assert ran.err.count("error: ") == 1


def test_the_conversation_so_far() -> None:
    long = " ".join(f"word{n}" for n in range(100))
    ran = chat("/history", "echo: one", f"echo: {long}", "/history", "/history x", "/history " + "9" * 5000)
    assert "nothing has been asked yet" in ran.err
    assert "99' is no number of questions" in ran.err
    assert "'x' is no number of questions" in ran.err
    short = ran.out.removeprefix(f"one\n{long}\n")
    assert short.startswith(">>> echo: one\none\n>>> echo: word0 word1 ")
    assert " …\nword0 " in short
    assert len(short) < len(long)
    assert chat("echo: one", "echo: two", "/history 1").out == "one\ntwo\n>>> echo: two\ntwo\n"
    whole = chat("echo: one", f"echo: {long}", "/history all").out
    assert whole.endswith(f">>> echo: one\none\n>>> echo: {long}\n{long}\n")


def test_the_talk_that_is_gone_on_with_is_shown_on_a_terminal() -> None:
    chat("echo: one", "echo: two", "echo: three", "/save taxes")
    ran = chat("/load taxes")
    assert ran.out == "", "in a pipe answers stand alone"
    with Terminal() as terminal:
        terminal.type("/load taxes", ENTER)
        terminal.prompt_after(
            "going on with taxes: 3 answers so far\n>>> echo: two\ntwo\n>>> echo: three\nthree"
        )
        assert terminal.leave() == 0


# --- a system prompt from a file


def test_a_system_prompt_comes_from_a_file(
    tmp_path: Path, engines: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "prompt.txt").write_bytes("\ufeffBe brief.\r\nAnd kind: é\n".encode())
    for name in ("~/prompt.txt", str(tmp_path / "prompt.txt")):
        assert run("ask", "--system", f"@{name}", "echo: hi").code == 0
        assert engines[-1].asked[-1][1].system == "Be brief.\nAnd kind: é"
        chat(f"/system @{name}", "echo: hi")
        assert engines[-1].asked[-1][1].system == "Be brief.\nAnd kind: é"
        chat(f"/set system @{name}", "echo: hi")
        assert engines[-1].asked[-1][1].system == "Be brief.\nAnd kind: é"


@pytest.mark.parametrize("name", ["@no-such.txt", "@", "@~nobody-here/x", "@http://127.0.0.1/x"])
def test_a_file_that_cannot_be_read_is_an_error(name: str, engines: list[FakeEngine]) -> None:
    ran = run("ask", "--system", name, "echo: hi")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: --system: ")
    assert "hint: " in ran.err
    ran = chat(f"/system {name}", "echo: hi")
    assert "error: /system: " in ran.err
    assert engines[-1].asked[-1][1].system is None


def test_a_path_begins_with_an_at_only_as_a_flag(
    monkeypatch: pytest.MonkeyPatch, engines: list[FakeEngine]
) -> None:
    monkeypatch.setenv("ALIGNBEAM_SYSTEM", "@channel is how you begin")
    assert run("ask", "echo: hi").code == 0
    assert engines[-1].asked[-1][1].system == "@channel is how you begin"
