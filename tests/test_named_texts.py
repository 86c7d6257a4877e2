"""Roles and templates: texts kept by name in the configuration directory."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from alignbeam_local.cli.chat.completion import ChatCompleter
from alignbeam_local.cli.completion import role_names, template_names
from alignbeam_local.cli.named_texts import KEPT_ROLES, KEPT_TEMPLATES, NamedTexts
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from alignbeam_local.errors import UsageError

from .fake_engine import FakeEngine
from .running import run
from .test_chat import chat, said

COMMANDS = ("ask", "filter", "chat")
NO_NAMES = ("", ".", "..", "../x", "a/b", "/x", ".x", "a b", "x\n", "~x", "a\\b", "@x")


def keep(kind: str, text: str | bytes) -> Path:
    """Write the file of a role or a template, such as `roles/brief.md`."""
    file = Path(os.environ["ALIGNBEAM_CONFIG_DIR"]) / kind
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


# --- roles


@pytest.mark.parametrize("command", COMMANDS)
def test_a_role_is_the_system_prompt(engines: list[FakeEngine], command: str) -> None:
    keep("roles/brief.md", "@you: be brief.\nAnd kind: é\n")
    assert run(command, "--role", "brief", given="echo: hi\n").code == 0
    assert engines[0].asked[0][1].system == "@you: be brief.\nAnd kind: é"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_mark_and_foreign_line_ends_are_no_part_of_a_text(engines: list[FakeEngine], encoding: str) -> None:
    keep("roles/brief.md", "Be brief.\r\nNow: é\r\n".encode(encoding))
    keep("templates/echo.txt", "echo: é {prompt}\r\n".encode(encoding))
    ran = run("ask", "--role", "brief", "--template", "echo", "hi")
    assert (ran.code, ran.out) == (0, "é hi\n")
    assert engines[0].asked[0][1].system == "Be brief.\nNow: é"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_role_and_a_system_prompt_are_one_too_many(engines: list[FakeEngine], command: str) -> None:
    keep("roles/brief.md", "Be brief.")
    ran = run(command, "--role", "brief", "--system", "", given="hi\n")
    assert (ran.code, ran.out, engines) == (2, "", [])
    assert "error: --role and --system are both given" in ran.err
    assert "leave one out" in ran.err


@pytest.mark.parametrize("command", ["bench", "eval run"])
def test_measurements_have_no_roles(command: str) -> None:
    assert "--role" not in run(*command.split(), "--help").out


def test_a_chat_takes_another_role(engines: list[FakeEngine]) -> None:
    keep("roles/brief.md", "Be brief.\n")
    keep("roles/none.md", "\n")
    ran = chat("/role brief", "echo: a", "/role brief", "/role none", "echo: b")
    for told in ("Be brief. (was none)", "Be brief. (as before)", "none (was Be brief.)"):
        assert f"system = {told}\n" in ran.err
    assert [config.system for _, config in engines[0].asked] == ["Be brief.", None]


def test_role_alone_lists_the_roles(engines: list[FakeEngine]) -> None:
    assert f"no role is kept yet; NAME.md in {KEPT_ROLES.folder} would be one" in chat("/role").out
    for name in ("roles/tutor.md", "roles/brief.v2.md", "roles/x.txt", "roles/.x.md", "roles/a b.md"):
        keep(name, "x")
    assert chat("/role").out == "brief.v2\ntutor\n"


def test_a_chat_goes_on_after_a_role_that_is_not_there(engines: list[FakeEngine]) -> None:
    ran = chat("/role brief", "echo: hi")
    assert (ran.code, said(engines[0])) == (1, ["echo: hi"])
    assert "error: /role: there is no role 'brief'" in ran.err


# --- templates


def test_filter_takes_a_template_by_name(engines: list[FakeEngine]) -> None:
    keep("templates/echo-1.txt", "echo: <{prompt}>\n")
    assert run("filter", "--template", "echo-1", given="a\nb\n")[:2] == (0, "<a>\n<b>\n")


def test_a_kept_template_has_any_field_of_an_object(engines: list[FakeEngine]) -> None:
    keep("templates/dear.txt", "echo: Dear {name}")
    ran = run("filter", "--jsonl", "--template", "dear", given='{"name": "Ann"}')
    assert '"text": "Dear Ann"' in ran.out
    ran = run("filter", "--template", "dear", given="Ann\n")
    assert (ran.code, "error: --template: no field {name}" in ran.err) == (2, True)


def test_ask_puts_all_of_its_prompt_into_a_template(engines: list[FakeEngine], tmp_path: Path) -> None:
    keep("templates/around.txt", "Begin\n{prompt}\nend\n")
    file = tmp_path / "notes.txt"
    file.write_text("of a file", encoding="utf-8")
    for template in ("around", "Begin\n{prompt}\nend", f"@{KEPT_TEMPLATES.folder / 'around.txt'}"):
        assert run("ask", "--template", template, "-f", str(file), "words", given="piped {x}").code == 0
        asked = said(engines[-1])[0]
        assert asked.startswith("Begin\n")
        assert asked.endswith("\n\npiped {x}\n\nwords\nend")
        assert "of a file" in asked


@pytest.mark.parametrize("command", ["ask", "filter"])
@pytest.mark.parametrize("template", ["no field", "a/b", "../x", "..", "{title}"])
def test_what_is_neither_a_name_nor_a_template(
    engines: list[FakeEngine], command: str, template: str
) -> None:
    keep("x.txt", "{prompt}")
    ran = run(command, "--template", template, given="hi\n")
    assert (ran.code, ran.out, engines) == (2, "", [])
    assert ran.err.startswith("error: --template: ")
    assert "no field" in ran.err


# --- names


@pytest.mark.parametrize(
    ("args", "file", "kept"),
    [
        (("ask", "--role", "x1"), "roles/x1.md", "roles/{}.md"),
        (("ask", "--template", "x1"), "templates/x1.txt", "templates/{}.txt"),
        (("filter", "--template", "x1"), "templates/x1.txt", "templates/{}.txt"),
    ],
)
def test_a_name_that_is_not_there(
    engines: list[FakeEngine], args: tuple[str, ...], file: str, kept: str
) -> None:
    noun, path = args[1].removeprefix("--"), Path(os.environ["ALIGNBEAM_CONFIG_DIR"]) / file
    belongs = f"Its text belongs in {path}."
    known = f"No {noun} is kept yet.", f"{noun.capitalize()}s: pot, tea.", "Did you mean x12?"
    for names, hint in zip(((), ("tea", "pot"), ("x12",)), known, strict=True):
        for name in names:
            keep(kept.format(name), "{prompt}")
        ran = run(*args, given="hi\n")
        assert (ran.code, ran.out, engines) == (2, "", [])
        assert f"error: {args[1]}: there is no {noun} 'x1'" in ran.err
        assert f"{hint} {belongs}" in " ".join(ran.err.split())


@pytest.mark.parametrize("texts", [KEPT_ROLES, KEPT_TEMPLATES])
@pytest.mark.parametrize("name", NO_NAMES)
def test_no_name_leads_out_of_the_folder(texts: NamedTexts, name: str) -> None:
    for file in ("x.md", "x.txt", "roles/.x.md", "roles/a/b.md", "templates/.x.txt", "templates/a/b.txt"):
        keep(file, "secret")
    with pytest.raises(UsageError, match="is not the name of a") as refused:
        texts.read(name, "--flag")
    assert refused.value.hint.startswith("A name has letters")


def test_a_file_that_cannot_be_read_is_a_message(engines: list[FakeEngine]) -> None:
    keep("roles/bad.md", b"\xff\xfa")
    (KEPT_ROLES.folder / "folder.md").mkdir()
    for name, message in {"bad": "is not UTF-8", "folder": "cannot read"}.items():
        ran = run("ask", "--role", name, "hi")
        assert (ran.code, engines, message in ran.err) == (2, [], True)
        assert ran.err.startswith("error: --role: ")
        assert "in UTF-8" in ran.err


def test_a_folder_that_is_none_is_a_message_and_completes_nothing(engines: list[FakeEngine]) -> None:
    keep("roles", "a file")
    ran = run("ask", "--role", "x", "hi")
    assert (ran.code, f"cannot read {KEPT_ROLES.folder}" in ran.err) == (2, True)
    assert (role_names(""), completed("/role ")) == ([], [])


# --- completion


def completed(line: str) -> list[str]:
    completer = ChatCompleter(SimpleNamespace())
    return [one.text for one in completer.get_completions(Document(line), CompleteEvent())]


def test_names_are_completed() -> None:
    assert (role_names(""), template_names(""), completed("/role ")) == ([], [], [])
    for name in ("tea", "toast"):
        keep(f"roles/{name}.md", "x")
        keep(f"templates/{name}.txt", "x")
    keep("roles/x $(touch y).md", "x")
    assert role_names("") == [("tea", ""), ("toast", "")]
    assert role_names("te") == template_names("te") == [("tea", "")]
    for line, names in {"/role ": ["tea", "toast"], "/role to": ["toast"], "/role tea ": []}.items():
        assert completed(line) == names
    assert completed("/rol") == ["/role"]
