"""What shells complete, and that every help says how."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from alignbeam_local.cli import main as main_module
from alignbeam_local.cli.completion import conversation_names, model_names, profile_names
from alignbeam_local.cli.main import make_app
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from alignbeam_local.config import Config
from alignbeam_local.conversation.log import ConversationLog
from alignbeam_local.conversation.log_file import default_path

from .fake_engine import fake_result
from .running import CHILD, run
from .test_readme import alignbeam_calls, flags_of

Complete = Callable[[str, str], list[str]]


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Complete:
    """The lines that a shell is given for what was typed."""

    def completed(shell: str, line: str) -> list[str]:
        words = line.split(" ")
        monkeypatch.setenv("_ALIGNBEAM_COMPLETE", f"complete_{shell}")
        if shell == "bash":
            monkeypatch.setenv("COMP_WORDS", line)
            monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        else:
            monkeypatch.delenv("COMP_WORDS", raising=False)
            monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
            monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        with pytest.raises(SystemExit) as left:
            main_module.main([])
        assert left.value.code == 0
        return capsys.readouterr().out.splitlines()

    return completed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_flags_and_names(complete: Complete, shell: str) -> None:
    for line, word in {
        "alignbeam fi": "filter",
        "alignbeam logs sh": "show",
        "alignbeam ask --bridge-w": "--bridge-width",
        "alignbeam ask --variant ": "exact",
        "alignbeam chat --draft gemma": "gemma-3-270m",
        "alignbeam filter --profile ": "starter",
        "alignbeam models path smol": "smollm2-135m-instruct",
        "alignbeam bridge smollm2-135m-instruct qwen2.5-coder-0": "qwen2.5-coder-0.5b-instruct",
    }.items():
        assert word in " ".join(complete(shell, line)), line


def test_only_the_called_command_is_imported(complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[str] = []

    def noted(word: str) -> typer.Typer:
        wanted.append(word)
        app: typer.Typer = make_app(word)
        return app

    monkeypatch.setattr(main_module, "make_app", noted)
    for shell in ("bash", "zsh"):
        complete(shell, "alignbeam logs show ")
    complete("fish", "alignbeam ")
    assert wanted == ["logs", "logs", ""]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_ALIGNBEAM_COMPLETE", f"source_{shell}")
    with pytest.raises(SystemExit):
        main_module.main([])
    assert f"_ALIGNBEAM_COMPLETE=complete_{shell}" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_runs_the_script(tmp_path: Path) -> None:
    program = tmp_path / "alignbeam"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(CHILD)} "$@"\n')
    program.chmod(0o755)
    ran = subprocess.run(
        ["bash", "--norc", "-c", _BASH],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout.split(), ran.stderr) == (["drop", "first", "exact"], "")


_BASH = """
eval "$(_ALIGNBEAM_COMPLETE=source_bash alignbeam)"
COMP_WORDS=(alignbeam ask --variant "") COMP_CWORD=3
_alignbeam_completion alignbeam
echo "${COMPREPLY[@]}"
"""


def test_kept_conversations_are_offered_and_no_file_is_made() -> None:
    assert conversation_names("") == []
    assert not default_path().exists()
    with ConversationLog() as log:
        for conversation, name in (("aa11", "tea"), ("bb22", None), ("cc33", "x $(touch y)\\")):
            log.add(conversation, "q", fake_result("a", Config.of({})), name=name)
    assert [word for word, _ in conversation_names("")] == ["cc33", "bb22", "tea"]
    assert conversation_names("t") == [("tea", "")]


def test_what_is_damaged_completes_nothing() -> None:
    config = Path(os.environ["ALIGNBEAM_CONFIG_DIR"])
    config.mkdir(parents=True)
    (config / "models.toml").write_text("no toml")
    default_path().parent.mkdir(parents=True)
    default_path().write_text("no database" * 1000)
    assert (model_names(""), profile_names(""), conversation_names("")) == ([], [], [])


def test_no_offered_word_or_help_can_run_in_zsh() -> None:
    config = Path(os.environ["ALIGNBEAM_CONFIG_DIR"])
    config.mkdir(parents=True)
    (config / "models.toml").write_text("[profiles.mine]\nabout = '\\$(touch y)'\ndraft = \"x\"\n")
    assert ("mine", "$(touch y)") in profile_names("mi")  # typer escapes the $


# --- help


def leaves(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from leaves(command, (*path, name))
        elif isinstance(command, TyperCommand):
            yield (*path, name), command


def test_the_examples_of_every_help_exist() -> None:
    group = get_command(make_app())
    assert isinstance(group, TyperGroup)
    examples = [
        words
        for _, command in leaves(group)
        for line in (command.help or "").splitlines()
        for words in alignbeam_calls(line)
    ]
    assert len(examples) > 25
    for words in examples:
        assert {word for word in words if word.startswith("-")} <= flags_of(words), words


def test_help_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    group = get_command(make_app())
    assert isinstance(group, TyperGroup)
    for path, _ in leaves(group):
        ran = run(*path, "--help")
        assert (ran.code, ran.err) == (0, "")
        assert max(map(len, ran.out.splitlines())) <= 80
        assert "…" not in ran.out
        assert "```" not in ran.out


def test_help_is_a_command_too() -> None:
    assert run("help") == run("--help") == run()
    assert run("help", "logs", "prune") == run("logs", "prune", "--help")
    assert run("help", "nope").code == 2


def test_version_names_both_and_imports_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_module, "import_module", lambda *_: pytest.fail("imported"))
    ran = run("--version")
    assert re.fullmatch(r"alignbeam \S+, llama-cpp-python \S+\n", ran.out)
    assert ran.code == 0
