"""Paths as users write them: `~` in every place, files whose names begin with it, and no home at all."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from alignbeam_local.cli.main import make_app
from typer.main import get_command

from alignbeam_local import paths
from alignbeam_local.errors import AlignBeamError, UsageError
from alignbeam_local.evaluation.suites.suites import load_suite
from alignbeam_local.models.registry import Registry
from alignbeam_local.models.toml_files import user_file
from alignbeam_local.paths import user_path

from .fake_engine import FakeEngine
from .gguf_files import write_gguf
from .running import run

pytestmark = pytest.mark.usefixtures("llama_cpp_asked_once")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory that is empty, and the folder in which commands run."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_a_tilde_at_the_start_is_a_home_directory(home: Path) -> None:
    assert user_path("~/x") == home / "x"
    assert user_path("~") == home
    assert user_path("~root/x").is_absolute()
    for here in ("./~x", "./~/x", "a~", "a/~/b"):
        assert user_path(here) == Path(here)


@pytest.mark.parametrize(
    "args",
    [
        ("ask", "x", "--draft", "~nouser/x.gguf"),
        ("models", "inspect", "~nouser/x.gguf"),
        ("models", "import", "~nouser/x.gguf"),
        ("filter", "--template", "@~nouser/x"),
        ("eval", "run", "--suite", "~nouser/x.csv", "--out", "y"),
        ("eval", "run", "--suite", "x", "--out=~nouser/y"),
        ("logs", "export", "--out=~nouser/x.md"),
    ],
)
def test_the_home_of_nobody_is_a_message(args: tuple[str, ...]) -> None:
    ran = run(*args)
    assert (ran.code, ran.out) == (2, "")
    assert "there is no home directory ~nouser\nhint: ./~nouser/" in ran.err


@pytest.mark.parametrize("args", [("models", "path"), ("ask", "hi", "-f"), ("serve", "--api-key-file")])
def test_a_broken_address_of_a_file_is_a_message(args: tuple[str, ...]) -> None:
    ran = run(*args, "file://[x")
    assert (ran.code, ran.out) == (2, "")
    assert "file://[x is no file's address" in ran.err
    assert "Traceback" not in ran.err


def test_the_home_of_nobody_is_a_message_that_names_file_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    user_file().parent.mkdir(parents=True)
    user_file().write_text('[models.mine]\npath = "~nouser/x.gguf"\n')
    assert "[models.mine]: path = ~nouser/x.gguf: there is no home" in run("models", "list").err
    monkeypatch.setenv("ALIGNBEAM_DATA_DIR", "~nouser/x")
    assert "environment ALIGNBEAM_DATA_DIR: ~nouser/x: there is no home" in run("logs", "list").err


def test_a_file_whose_name_begins_with_a_tilde(engines: list[FakeEngine]) -> None:
    write_gguf(Path("~x.gguf"))
    assert Registry.load().require("./~x.gguf").path == Path("~x.gguf")
    assert run("models", "inspect", "./~x.gguf").code == 0
    Path("~t").write_text("echo: {prompt}")
    assert run("filter", "--template", "@./~t", given="on\n").out == "on\n"
    ran = run("chat", given="echo: a\n/export ./~talk.md\n")
    assert ran.code == 0
    assert Path("~talk.md").exists()


def test_a_tilde_expands_wherever_a_file_is_named(home: Path, engines: list[FakeEngine]) -> None:
    write_gguf(home / "x.gguf")
    user_file().parent.mkdir(parents=True)
    user_file().write_text('[models.mine]\npath = "~/x.gguf"\n')
    for spec in ("~/x.gguf", "mine"):
        assert Registry.load().require(spec).path == home / "x.gguf"
    (home / "t").write_text("echo: {prompt}")
    assert run("filter", "--template=@~/t", given="on\n").out == "on\n"
    (home / "s.jsonl").write_text('{"prompt": "x", "label": "benign"}\n')
    assert load_suite("~/s.jsonl:benign", lambda _: Path())
    assert run("chat", given="echo: a\n/export ~/talk.md\n").code == 0
    assert run("logs", "export", "--out=~/all.md").code == 0
    assert {path.name for path in home.iterdir()} == {"x.gguf", "t", "s.jsonl", "talk.md", "all.md"}
    assert not list(Path().iterdir())


def test_every_path_of_every_command_expands() -> None:
    """A parameter that takes a file takes it through `user_path`; Typer's own paths know no `~`."""
    kinds = dict(_parameters(get_command(make_app())))
    files = {name: kind.parameter_info.parser for name, kind in kinds.items() if _is_path(kind.annotation)}
    assert len(files) >= 12
    assert {name for name, parser in files.items() if parser is not user_path} == set()


def _parameters(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    for parameter in command.params:
        yield f"{name} {parameter.name}", parameter.type_descriptor
    for word, inner in getattr(command, "commands", {}).items():
        yield from _parameters(inner, f"{name} {word}")


def _is_path(annotation: Any) -> bool:
    return annotation is Path or Path in get_args(annotation)


# --- no home


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and without a password entry."""
    for variable in [
        name for name in os.environ if name.startswith(("ALIGNBEAM_", "XDG_")) or name == "HOME"
    ]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 5)


@pytest.mark.parametrize(
    "args", [("config", "path"), ("models", "list"), ("ask", "x"), ("logs", "list"), ("chat",)]
)
@pytest.mark.usefixtures("nobody")
def test_without_a_home_every_command_says_what_to_set(args: tuple[str, ...]) -> None:
    ran = run(*args)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: your home directory is not known")
    assert "ALIGNBEAM_DATA_DIR" in ran.err


@pytest.mark.usefixtures("nobody")
def test_without_a_home_what_a_library_asks_for_is_said_too() -> None:
    ran = run("--install-completion", "bash")
    assert (ran.code, "internal" in ran.err) == (1, False)
    assert "home directory is not known" in ran.err


@pytest.mark.usefixtures("nobody")
def test_without_a_home_doctor_says_so_and_goes_on() -> None:
    ran = run("doctor")
    assert ran.code == 1
    assert ran.out.count("your home directory is not known") >= 4


@pytest.mark.usefixtures("nobody")
def test_without_a_home_the_directories_that_are_given_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CONFIG", "DATA", "CACHE"):
        monkeypatch.setenv(f"ALIGNBEAM_{name}_DIR", str(tmp_path / name))
    assert run("config", "path").out == f"{tmp_path}/CONFIG/config.toml\n"
    assert run("logs", "path").code == 0
    with pytest.raises(UsageError, match="no home directory ~"):
        user_path("~/x")


@pytest.mark.usefixtures("nobody")
def test_a_place_that_is_no_whole_path_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "user_data_path", lambda *_, **__: Path("~/.local/share/alignbeam"))
    with pytest.raises(AlignBeamError, match="home directory"):
        paths.data_dir()
