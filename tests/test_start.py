"""`alignbeam start` in a pseudo-terminal: what it asks, checks, writes, and where it leads."""

from pathlib import Path

import pytest
from alignbeam_local.cli.start.completion import ModelCompleter
from alignbeam_local.cli.start.starter import TOY
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from alignbeam_local.models.registry import Registry
from alignbeam_local.models.toml_files import user_file
from alignbeam_local.paths import models_dir

from .adapters import write_adapter
from .gguf_files import write_gguf
from .running import open_fakes, run, touch_models
from .test_chat_terminal import CTRL_C, CTRL_D, ENTER, REAL, Terminal

#: The program with the fake engine, and models that are looked at without llama.cpp.
PROGRAM = (
    "from alignbeam_local.cli import session; from tests.fake_engine import FakeEngine;"
    "from alignbeam_local.doctor import model_checks; from alignbeam_local.doctor.findings import Finding;"
    "model_checks.findings = lambda config, *_, **__: iter((Finding('draft', 'ok', config.draft),"
    " Finding('pair', 'problem' if 'bad' in config.draft else 'ok', 'how much crosses', 'Take another.')));"
    f"session.open_engine = FakeEngine; {REAL}"
)
ANCHOR = "qwen2.5-coder-1.5b-instruct"


class Start(Terminal):
    """`alignbeam start` with a person in front of it."""

    def __init__(self, *args: str, columns: int = 100) -> None:
        super().__init__(*args, columns=columns, rows=50, program=PROGRAM, command="start")

    def __enter__(self) -> "Start":
        self.expect("model:")
        return self

    def ends(self) -> int:
        self.until(lambda: self._child.poll() is not None)
        return self._child.wait()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    touch_models()
    (models_dir() / f"{ANCHOR}.gguf").touch()
    for name in ("NO_COLOR", "VISUAL", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "mine.gguf")


def test_enter_leads_to_a_chat_with_the_starter() -> None:
    with Start() as terminal:
        terminal.type(ENTER)
        terminal.prompt_after("profile starter")
        assert "ok       pair     how much crosses" in terminal.screen.text
        assert "the next time: alignbeam chat --profile starter" in terminal.screen.text
        assert "anchor [" not in terminal.screen.text
        terminal.type("echo: hello", ENTER)
        terminal.prompt_after("hello\n1 draft, judged not harmful")
        assert terminal.leave() == 0
    assert not user_file().exists()


@pytest.mark.parametrize("columns", [60, 200])
def test_a_file_of_ones_own_and_a_profile(mine: Path, columns: int) -> None:
    with Start(columns=columns) as terminal:
        terminal.type("./no-such-file.gguf", ENTER)
        terminal.until(lambda: terminal.screen.text.count("model:") == 2)
        assert "error:" in terminal.screen.text
        terminal.type(f"{mine}", ENTER)
        terminal.expect(f"anchor [{ANCHOR}]:")
        assert f"{ANCHOR}: 0 MB, is here" in terminal.screen.text
        terminal.type("qwen2.5-coder-0.5b-instruct", ENTER)
        terminal.expect("Keep this choice as a profile?")
        assert not user_file().exists(), "nothing is written before a name is given"
        terminal.type("recommended", ENTER)
        terminal.until(lambda: terminal.screen.text.count("Keep this choice") == 2)
        terminal.type("clinic", ENTER)
        terminal.prompt_after("profile clinic")
        assert terminal.leave() == 0
    knobs = dict(Registry.load().profile("clinic"))
    assert knobs == {
        "draft": str(mine),
        "anchor": "qwen2.5-coder-0.5b-instruct",
        "judge": ANCHOR,
        "on_unsafe": "refuse",
        "steer": "by_request",
        "choice": "by_request",
        "clear_below": 0.2,
    }


def test_an_adapter_is_asked_for_its_model(mine: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter.gguf")
    with Start(columns=200) as terminal:
        terminal.type(str(adapter), ENTER)
        terminal.expect("its model:")
        assert "That is a LoRA adapter" in terminal.screen.text
        terminal.type(str(mine), ENTER)
        terminal.expect(f"anchor [{ANCHOR}]:")
        assert f"{mine}: the model without its adapter, which is loaded anyway" in terminal.screen.text
        terminal.type(str(mine), ENTER)
        terminal.expect("Keep this choice as a profile?")
        terminal.type("clinic", ENTER)
        terminal.prompt_after("profile clinic")
        assert "draft mine + adapter ← anchor mine" in terminal.screen.text
        assert terminal.leave() == 0
    knobs = dict(Registry.load().profile("clinic"))
    assert (knobs["draft"], knobs["anchor"], knobs["lora"]) == (str(mine), str(mine), [f"{adapter}:1"])


def test_a_known_name_without_a_profile() -> None:
    with Start() as terminal:
        terminal.type("smollm2-135m-instruct", ENTER)
        terminal.expect("anchor [")
        terminal.type(ENTER)
        terminal.expect("Keep this choice")
        terminal.type(ENTER)
        terminal.prompt_after("profile recommended")
        assert "next time: alignbeam chat --profile recommended --draft smollm2-135m-instruct" in (
            " ".join(terminal.screen.text.split())
        )
        assert f"draft smollm2-135m-instruct ← anchor {ANCHOR}" in terminal.screen.text
        assert terminal.leave() == 0
    assert not user_file().exists()


def test_what_is_in_the_way_ends_it(tmp_path: Path) -> None:
    bad = write_gguf(tmp_path / "bad.gguf")
    with Start() as terminal:
        terminal.type(str(bad), ENTER)
        terminal.expect("anchor [")
        terminal.type(ENTER)
        terminal.expect("hint: Take another.")
        assert terminal.ends() == 3
    assert not user_file().exists()


def test_what_is_missing_is_fetched_only_if_that_is_wanted() -> None:
    (models_dir() / f"{ANCHOR}.gguf").unlink()
    with Start() as terminal:
        terminal.type("smollm2-135m-instruct", ENTER)
        terminal.expect(f"{ANCHOR}: 1,117 MB, to be fetched", "anchor [")
        terminal.type(ENTER)
        terminal.expect("Fetch now? [Y/n]")
        terminal.type("n", ENTER)
        terminal.expect("is not here yet")
        assert terminal.ends() == 3


@pytest.mark.parametrize(("key", "code"), [(CTRL_C, 130), (CTRL_D, 0)])
@pytest.mark.parametrize("before", [(), ("smollm2-135m-instruct",), ("smollm2-135m-instruct", "")])
def test_it_is_left_at_any_question(key: str, code: int, before: tuple[str, ...]) -> None:
    questions = ("model:", "anchor [", "Keep this choice")
    with Start() as terminal:
        for question, typed in zip(questions, before, strict=False):
            terminal.expect(question)
            terminal.type(typed, ENTER)
        terminal.expect(questions[len(before)])
        terminal.type(key)
        assert terminal.ends() == code
        assert "Traceback" not in terminal.screen.text
    assert not user_file().exists()


def test_without_a_terminal_it_names_what_to_use() -> None:
    ran = run("start")
    assert ran.code == 2
    assert "alignbeam ask" in ran.err
    assert "alignbeam chat" in ran.err


def test_the_help_offers_it() -> None:
    assert "alignbeam start" in " ".join(run().out.split())


def test_names_and_files_are_completed(tmp_path: Path, mine: Path) -> None:
    (tmp_path / "notes.txt").touch()
    completer = ModelCompleter(Registry.load())
    assert completed(completer, "smol") == ["smollm2-135m-instruct"]
    assert completed(completer, f"{tmp_path}/") == ["mine.gguf"]


def completed(completer: ModelCompleter, begun: str) -> list[str]:
    found = completer.get_completions(Document(begun), CompleteEvent())
    return [one.text for one in found if not one.text.startswith("alignbeam")]


def test_ask_tells_of_the_toy_once_on_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALIGNBEAM_MODELS_DIR", str(tmp_path / "others"))
    open_fakes(monkeypatch)
    assert "toy" not in run("ask", "echo: x").err, "a script hears nothing"
    monkeypatch.setattr("alignbeam_local.cli.start.starter.is_terminal", lambda _: True)
    assert "toy" not in run("ask", "echo: x", "--profile", "starter").err
    assert "toy" not in run("ask", "echo: x", "--quiet").err
    assert f"note: {TOY}\n" in run("ask", "echo: x").err
    assert "toy" not in run("ask", "echo: x").err
