"""The commands with a fake engine: what goes to stdout, what to stderr, and the exit code."""

import errno
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from alignbeam_local.cli import habits, session
from alignbeam_local.cli.views import answer_view
from alignbeam_local.cli.views.story import StoryView
from alignbeam_local.cli.views.view import PlainView

from alignbeam_local.config import KNOBS, Config, knobs_of
from alignbeam_local.events import AnswerText, Done, Withdrawn
from alignbeam_local.knobs.knob import PANELS

from .fake_engine import REFUSED, FakeEngine, fake_result
from .forked import Forked
from .running import CHILD, Ran, touch_models
from .running import run as run_command

CONFIG = Config.of({})
#: What the fake engine has to say when it loads: a pipe hears it too, once, beside the answers.
NOTE = "note: the judge is not calibrated\n"

Run = Callable[..., Ran]


@pytest.fixture
def run(engines: list[FakeEngine]) -> Run:
    """Run a command with fake engines."""
    return run_command


# --- ask


def test_ask_prints_the_answer_and_nothing_else(run: Run, engines: list[FakeEngine]) -> None:
    assert run("ask", "echo: Hello\nthere") == Ran(0, "Hello\nthere\n", "")
    assert engines[0].closed


def test_ask_joins_stdin_a_blank_line_and_its_argument(run: Run, engines: list[FakeEngine]) -> None:
    run("ask", "What is this?", given="line 1\nline 2\n")
    assert engines[0].asked[0][0][0].content == "line 1\nline 2\n\nWhat is this?"
    run("ask", given="only this\n")
    assert engines[1].asked[0][0][0].content == "only this"


def test_ask_joins_words_that_are_not_quoted(run: Run, engines: list[FakeEngine]) -> None:
    assert run("ask", "why", "is", "the  sky", "--seed", "7", "blue?").code == 0
    assert engines[0].asked[0][0][0].content == "why is the  sky blue?"
    assert "[PROMPT]..." in run("ask", "--help").out


def test_a_misspelt_flag_among_the_words_is_no_word(run: Run, engines: list[FakeEngine]) -> None:
    ran = run("ask", "why", "is", "--alhpa", "1", "the", "sky", "blue")
    assert ran.code == 2
    assert "--alhpa" in ran.err
    assert not engines


@pytest.mark.parametrize(("args", "given"), [((), ""), (("",), " \n"), (("x",), b"\xff")])
def test_ask_without_a_prompt_is_a_usage_error(run: Run, args: tuple[str, ...], given: Any) -> None:
    ran = run("ask", *args, given=given)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert "\nhint: " in ran.err


@pytest.mark.parametrize("flags", [(), ("--json",), ("--quiet",)])
def test_ask_explains_on_stderr_and_leaves_stdout_as_it_is(run: Run, flags: tuple[str, ...]) -> None:
    plain, explained = run("ask", "beams", *flags), run("ask", "beams", "--why", *flags)
    assert (explained.code, explained.out) == (0, plain.out)
    told = explained.err.removeprefix(plain.err).splitlines()
    assert told[0] == "refused: the anchor began it · 3 drafts, 1 judged harmful, 1 without a verdict · 1.2 s"
    assert "Mixed tokens of beam 1" in told
    assert "candidates of the mixture" in explained.err, "off a terminal nothing is left out"


def test_on_a_terminal_the_explanation_has_the_place_of_the_story(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_view, "is_terminal", lambda _: True)
    assert run("ask", "beams").err.count("3 drafts") == 1
    assert run("ask", "beams", "--why").err.count("3 drafts") == 1


def test_ask_json_is_one_object_with_the_design_names(run: Run) -> None:
    ran = run("ask", "echo: é", "--json")
    assert ran.err == ""
    result = json.loads(ran.out)
    assert result["text"] == "é"
    assert set(result["config"]) == set(KNOBS)
    assert result["beams"][0]["judge"]["raw"] is None  # not a number


def test_trace_comes_before_the_object_or_on_stderr(run: Run) -> None:
    step, result = map(json.loads, run("ask", "x", "--json", "--trace").out.splitlines())
    assert (step["event"], step["top"][0]["piece"], result["finish_reason"]) == ("step", "Hi", "stop")
    ran = run("ask", "echo: x", "--trace")
    assert ran.out == "x\n"
    assert json.loads(ran.err)["event"] == "step"


def test_fail_on_refusal(run: Run) -> None:
    assert run("ask", "refuse") == Ran(0, f"{REFUSED}\n", "")
    assert run("ask", "refuse", "--fail-on-refusal").code == 4
    assert run("ask", "withdraw", "--fail-on-refusal") == Ran(4, f"{REFUSED}\n", "")
    assert run("ask", "x", "--fail-on-refusal").code == 0


def test_knobs_reach_the_engine(run: Run, engines: list[FakeEngine]) -> None:
    run("ask", "x", "-N", "3", "-K", "1", "-B", "7", "--alpha", "0.25", "--ignore-eos", "--system", "S")
    config = engines[0].config
    assert (config.depth, config.beams, config.bridge_width) == (3, 1, 7)
    assert (config.alpha, config.ignore_eos, config.system) == (0.25, True, "S")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("ask", "x", "--alpha", "1.5"), 2, "error: --alpha: alpha = '1.5'"),
        (("ask", "x", "-K", "0"), 2, "error: --beams: beams = '0'"),
        (("ask", "x", "--alhpa", "1"), 2, "--alpha"),
        (("ask", "x", "--profile", "strater"), 2, "hint: Did you mean starter or paper?"),
        (("ask", "full"), 1, "error: the prompt is too long\nhint: Shorten it."),
        (("ask", "x", "--draft", "gemma-3-270m"), 3, "alignbeam models pull gemma-3-270m, or add --pull"),
        (("ask", "x", "--draft", "/no/such.gguf"), 3, "error: no such file: /no/such.gguf"),
        (("filter", "--null", "--jsonl"), 2, "error: --null and --jsonl"),
    ],
)
def test_errors_have_a_message_and_a_code(run: Run, args: tuple[str, ...], code: int, message: str) -> None:
    ran = run(*args)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("run", "x"), "Try: alignbeam chat --draft MODEL"),
        (("pull", "x"), "Try: alignbeam models pull MODEL"),
        (("chat", "./x.gguf"), "Try: alignbeam chat --draft ./x.gguf"),
        (("start", "./x.gguf"), "Try: alignbeam chat --draft ./x.gguf"),
        (("chat", "--jugde", "./x.gguf"), "Try: alignbeam chat --help"),
        (("nonsense",), "Try: alignbeam --help"),
        (("why is the sky blue",), 'For one prompt: alignbeam ask "PROMPT"'),
        (("chat", "hello", "there"), "A chat asks for it when it has begun."),
        (("filter", "hello"), "Prompts come on stdin, one a line."),
        (("filter", "--nonsense"), "Try: alignbeam filter --help"),
        (("ask", "--model", "x", "hi"), "The model that answers is named by --draft MODEL."),
        (("chat", "-m=x"), "The model that answers is named by --draft MODEL."),
    ],
)
def test_what_other_tools_take_is_told_by_its_name_here(run: Run, args: tuple[str, ...], hint: str) -> None:
    ran = run(*args)
    assert ran.code == 2
    assert f"hint: {hint}" in ran.err


@pytest.mark.parametrize("meant", habits.MEANT.values())
def test_a_hint_names_commands_that_exist(run: Run, meant: str) -> None:
    for command in re.findall(r"alignbeam ((?:models )?[a-z]+)", meant):
        assert run(*command.split(), "--help").code == 0


def test_a_bug_is_one_line_unless_debugging(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> FakeEngine:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr(session, "open_engine", fail)
    ran = run("ask", "x")
    assert ran.code == 1
    assert ran.err.splitlines()[0] == "error: internal: ZeroDivisionError: by design"
    assert "Traceback" not in ran.err
    monkeypatch.setenv("ALIGNBEAM_DEBUG", "1")
    assert "Traceback" in run("ask", "x").err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/no/entry"),
            [
                "error: /no/entry: Permission denied",
                "hint: Check the path, its permissions and the free space on its disk.",
            ],
        ),
        (OSError(errno.ENOSPC, "No space left on device"), ["error: No space left on device"]),
        (OSError("odd"), ["error: odd"]),
    ],
)
def test_an_error_of_the_system_names_the_path(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: OSError, told: list[str]
) -> None:
    def fail(*_: object) -> FakeEngine:
        raise error

    monkeypatch.setattr(session, "open_engine", fail)
    ran = run("ask", "x")
    assert (ran.code, ran.err.splitlines()) == (1, told)


def test_a_folder_that_was_removed_is_said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for args in (("logs", "export", "--out", "x.md"), ("ask", "x", "--draft", "./x.gguf")):
        ran = run(*args)
        assert ran.code in (1, 3)
        assert "the current folder was removed" in ran.err or "no such file: x.gguf" in ran.err


@pytest.mark.parametrize("package", ["llama-cpp-python", "no-such-package"])
def test_the_versions_are_told_where_llama_cpp_cannot_be_loaded(package: str) -> None:
    code = (
        "import sys; sys.modules['llama_cpp'] = None; from alignbeam_local.cli import main;"
        f"main._BINDING = {package!r}; sys.exit(main.main(['--version']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    told = version(package) if package == "llama-cpp-python" else "not installed"
    assert ran.stdout == f"alignbeam {version('alignbeam-local')}, {package} {told}\n"


def test_show_config_names_every_source(run: Run, engines: list[FakeEngine]) -> None:
    ran = run("ask", "--show-config", "--alpha", "0.25")
    rows = {line.split()[0]: line for line in ran.out.splitlines()}
    assert list(rows) == list(KNOBS)
    assert rows["alpha"].split()[1:] == ["0.25", "--alpha"]
    shown = json.loads(run("ask", "--show-config", "--json").out)
    assert shown["draft"] == {"value": "smollm2-135m-instruct", "source": "default profile starter"}
    assert engines == []


def test_every_default_that_is_a_value_is_shown(run: Run) -> None:
    assert "[default: 0]" in " ".join(run("ask", "--help").out.split("--threads")[1].split("--kv")[0].split())
    assert "[default: False]" not in run("ask", "--help").out


def test_every_knob_has_a_flag_and_a_panel(run: Run) -> None:
    assert sorted(knob for panel in PANELS for knob in knobs_of(panel)) == sorted(KNOBS)
    for command in ("ask", "filter", "chat"):
        text = run(command, "--help").out
        missing = {knob for knob in KNOBS if f"--{knob.replace('_', '-')}" not in text}
        assert missing == (set() if command == "filter" else {"parallel"})


def test_who_answers_one_prompt_at_a_time_has_room_for_one(
    run: Run, engines: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNBEAM_PARALLEL", "4")
    assert json.loads(run("ask", "--json", "echo: a").out)["config"]["parallel"] == 1
    shown = json.loads(run("filter", "--show-config", "--json").out)
    assert shown["parallel"] == {"value": 4, "source": "environment ALIGNBEAM_PARALLEL"}


# --- filter


def test_filter_answers_line_by_line(run: Run) -> None:
    assert run("filter", given="echo: one\r\n\necho: two") == Ran(0, "one\n\ntwo\n", NOTE)
    assert run("filter", given="") == Ran(0, "", NOTE)


def test_filter_null_keeps_newlines_and_lines_do_not(run: Run) -> None:
    assert run("filter", "--null", given="echo: a\nb\0echo: c\0").out == "a\nb\0c\0"
    jsonl = run("filter", "--jsonl", given='{"prompt": "echo: a\\nb"}\n')
    assert json.loads(jsonl.out)["text"] == "a\nb"


def test_filter_makes_newlines_spaces(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    class TwoLines(FakeEngine):
        def stream(self, messages: Any, config: Config | None = None) -> Iterator[Any]:
            texts.append(messages[-1].content)
            yield Done(fake_result("a\nb\r\nc\u2028d", self.config))

    monkeypatch.setattr(session, "open_engine", TwoLines)
    assert run("filter", given="x\n").out == "a b c\u2028d\n"
    assert texts == ["x"]


def test_a_bad_line_is_an_empty_line_and_the_run_goes_on(run: Run) -> None:
    ran = run("filter", given=b"echo: one\n\xff\nfull\necho: two\n")
    assert (ran.code, ran.out) == (1, "one\n\n\ntwo\n")
    assert "error: line 2: the line is not UTF-8" in ran.err
    assert "error: line 3: the prompt is too long\nhint: Shorten it." in ran.err
    assert ran.err.splitlines()[-1] == "error: 2 of 4 prompts failed"


def test_jsonl_keeps_fields_and_takes_knobs(run: Run, engines: list[FakeEngine]) -> None:
    rows = [
        {
            "id": 7,
            "prompt": "echo: x",
            "alpha": 0.8,
            "depth": 2,
            "A": "one",
            "B": "y",
            "N": "z",
            "system": "S",
            "tag": [1, None],
        },
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "echo: c"},
            ]
        },
    ]
    ran = run("filter", "--jsonl", given="\n".join(map(json.dumps, rows)) + "\n\n")
    first, second, third = map(json.loads, ran.out.splitlines())
    assert (first["id"], first["tag"], first["prompt"], first["text"]) == (7, [1, None], "echo: x", "x")
    assert (first["config"]["alpha"], first["config"]["depth"], first["config"]["system"]) == (0.8, 2, "S")
    assert second["error"]["message"] == "there is nothing to answer"
    assert (third["text"], third["config"]["alpha"]) == ("c", 0.5)
    assert [m.role for m in engines[0].asked[1][0]] == ["system", "user", "assistant", "user"]
    assert ran.code == 1


@pytest.mark.parametrize(
    ("line", "identity", "message"),
    [
        ("{", None, "not JSON"),
        ("[1]", None, "not a JSON object"),
        ('{"id": 3}', 3, "give either prompt or messages"),
        ('{"id": "a", "prompt": 3}', "a", "prompt"),
        ('{"id": 3, "prompt": " "}', 3, "there is nothing to answer"),
        ('{"id": 3, "prompt": "\\ud800"}', 3, "not Unicode"),
        ('{"id": 3, "prompt": "x", "messages": []}', 3, "either prompt or messages"),
        ('{"id": 3, "messages": [{"role": "tool", "content": "x"}]}', 3, "messages"),
        ('{"id": 3, "prompt": "x", "alpha": 2}', 3, "alpha = 2"),
        ('{"id": 3, "prompt": "x", "draft": "gemma-3-270m"}', 3, "draft can't change"),
        ('{"id": 3, "prompt": "full"}', 3, "too long"),
        ('{"id": NaN, "prompt": "x"}', None, "NaN is not a JSON number"),
        ("[" * 100_000, None, "not JSON"),
    ],
)
def test_a_bad_row_is_an_error_object(run: Run, line: str, identity: Any, message: str) -> None:
    ran = run("filter", "--jsonl", given=f'{line}\n{{"prompt": "echo: on"}}\n')
    failed, answered = map(json.loads, ran.out.splitlines())
    assert set(failed) == {"id", "line", "error"}
    assert (failed["id"], failed["line"]) == (identity, 1)
    assert set(failed["error"]) == {"type", "message", "hint"}
    assert message in failed["error"]["message"]
    assert answered["text"] == "on"
    assert (ran.code, ran.err) == (1, f"{NOTE}error: 1 of 2 prompts failed\n")


def test_an_error_object_has_the_number_of_its_line(run: Run) -> None:
    ran = run("filter", "--jsonl", given='{"prompt": "echo: a"}\n\n{\n\n{}\n')
    assert [json.loads(line).get("line") for line in ran.out.splitlines()] == [None, 3, 5]


def test_a_field_that_the_result_overwrites_is_warned_of_once(run: Run) -> None:
    row = '{"prompt": "echo: a", "text": "mine", "models": 1, "beams": 2}\n'
    ran = run("filter", "--jsonl", given=row * 2)
    assert [json.loads(line)["text"] for line in ran.out.splitlines()] == ["a", "a"]
    warning = "warning: field '{}' has the name of a field of the result, which overwrites it; rename it\n"
    assert (ran.code, ran.err) == (0, NOTE + warning.format("models") + warning.format("text"))


def test_a_field_like_a_knob_is_warned_of_once(run: Run) -> None:
    ran = run("filter", "--jsonl", given='{"prompt": "x", "treshold": 1, "topic": 1}\n' * 2)
    assert ran.code == 0
    assert ran.err.count("warning: field 'treshold'") == 1
    assert "topic" not in ran.err


def test_filter_fail_on_refusal(run: Run) -> None:
    assert run("filter", "--fail-on-refusal", given="refuse\nx\n") == Ran(4, f"{REFUSED}\nx\n", NOTE)
    assert run("filter", "--fail-on-refusal", given="refuse\nfull\n").code == 1


# --- chat


def test_chat_from_a_pipe(run: Run, engines: list[FakeEngine]) -> None:
    lines = "echo: one\n/set N 3\n/system S\nrefuse\n/clear\n/nope\n/set draft x\n/set alpha 7\n"
    lines += "echo: two\n/bye\nx\n"
    ran = run("chat", given=lines)
    assert (ran.code, ran.out) == (1, f"one\n{REFUSED}\ntwo\n")
    (first, before), (second, after), (third, _) = engines[0].asked
    assert (before.depth, after.depth, after.system) == (6, 3, "S")
    assert [m.content for m in first] == ["echo: one"]
    assert [m.content for m in second] == ["echo: one", "one", "refuse"]
    assert [m.content for m in third] == ["echo: two"]
    assert "unknown command '/nope'" in ran.err
    assert "unknown model 'x'" in ran.err
    assert "chat: alpha = '7'" in ran.err


def test_chat_says_once_that_one_beam_is_unjudged(run: Run) -> None:
    ran = run("chat", "-K", "1", given="a\nb\n")
    assert ran.err.count("not judged") == 1
    assert "not judged" not in run("chat", "-K", "1", "--on-unsafe", "refuse", given="a\n").err


def test_an_error_leaves_the_chat_going(run: Run, engines: list[FakeEngine]) -> None:
    ran = run("chat", given="full\necho: on\n")
    assert (ran.code, ran.out) == (1, "on\n")
    assert [m.content for m in engines[0].asked[1][0]] == ["echo: on"]


# --- views


class Terminal(io.StringIO):
    """A stream that says a person is there."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_the_answer_at_once_and_no_control_characters() -> None:
    out = Terminal()
    view = PlainView(out)
    view.show(AnswerText("a\x1b[31m\x9b2J\tb\r"))
    assert out.getvalue() == "a[31m2J\tb"
    view.show(Withdrawn("no"))
    view.show(Done(fake_result("no", CONFIG, "withdrawn")))
    assert out.getvalue().startswith("a[31m2J\tb\n[withdrawn")
    assert out.getvalue().endswith("no\n")


def test_a_pipe_gets_the_answer_when_it_stands() -> None:
    out = io.StringIO()
    view = PlainView(out)
    view.show(AnswerText("bad"))
    assert out.getvalue() == ""
    view.show(Done(fake_result("no\x1b", CONFIG, "withdrawn")))
    assert out.getvalue() == "no\x1b\n"


def test_the_story_is_the_last_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    view = StoryView(PlainView(io.StringIO()), progress_only=False, prefix="")
    for event in FakeEngine(CONFIG).stream([_user("echo: hi")]):
        view.show(event)
    view.close()
    assert "\x1b" not in err.getvalue()
    assert err.getvalue().endswith("1 draft, judged not harmful · 1.2 s\n")


def _user(text: str) -> Any:
    from alignbeam_local.prompt.message import Message

    return Message("user", text)


def test_a_result_is_the_design_object() -> None:
    assert list(fake_result("x", CONFIG).as_dict()) == [
        *("text", "reasoning", "finish_reason", "chosen", "refusal", "beams", "bridge", "usage", "timings"),
        *("config", "models", "version", "llama_cpp", "notices", "steering", "late", "anchors"),
    ]


# --- processes


@pytest.fixture
def starter() -> None:
    touch_models()


@pytest.mark.usefixtures("starter")
def test_a_reader_that_leaves_ends_the_filter_quietly() -> None:
    child = Forked(CHILD, "filter")
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdin.write(b"echo: one\n")
    child.stdin.flush()
    assert child.stdout.readline() == b"one\n"
    child.stdout.close()
    child.stdin.write(b"echo: two\n" * 1000)
    child.stdin.close()
    assert child.stderr.read() == NOTE.encode()
    assert child.wait(30) == 141


@pytest.mark.usefixtures("starter")
def test_closed_streams_end_the_filter_cleanly() -> None:
    command = f"{sys.executable} -c '{CHILD}' filter"
    root = Path(__file__).parents[1]
    for redirected in ("<&-", "<&- >&-"):
        ran = subprocess.run(
            f"{command} {redirected}", shell=True, cwd=root, capture_output=True, check=False, timeout=60
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", NOTE.encode())


@pytest.mark.usefixtures("starter")
def test_ctrl_c_stops_an_answer_and_the_filter() -> None:
    child = Forked(CHILD, "filter", "--trace")
    assert child.stdin is not None
    assert child.stderr is not None
    child.stdin.write(b"slow\n")
    child.stdin.flush()
    while not child.stderr.readline().startswith(b"{"):  # the first step: the answer is being made
        pass
    child.send_signal(2)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize("flags", [("--bridge-width", "99999"), ()])
def test_bridge_takes_its_knob_as_all_commands_do(
    flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not flags:
        monkeypatch.setenv("ALIGNBEAM_BRIDGE_WIDTH", "zz")
    ran = run_command("bridge", "a", "b", *flags)
    assert (ran.code, "bridge_width = " in ran.err) == (2, True)
