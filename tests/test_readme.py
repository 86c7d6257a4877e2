"""The documents say what the code does: knobs, names, commands, examples, links."""

import ast
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from alignbeam_local.cli.main import make_app
from typer.core import TyperGroup
from typer.main import get_command

from alignbeam_local import errors
from alignbeam_local.config import ALIASES, KNOBS, Config
from alignbeam_local.events import Step
from alignbeam_local.models.registry import Registry
from alignbeam_local.result import Result
from alignbeam_local.settings import _OTHER_VARIABLES, resolve

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
README, INSTALL, MODELS, USE, REFERENCE = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/install.md", "docs/models.md", "docs/use.md", "docs/reference.md")
)
_SYMBOL_OF = {knob: symbol for symbol, knob in ALIASES.items()}


def section(heading: str, text: str) -> str:
    """What stands below a heading, up to the next one of its level or above."""
    level = heading.index(" ")
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{level}}} |\Z)", text, re.M | re.S)
    assert found, heading
    return found[1]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row, headings and rulers left out."""
    table = [line for line in text.splitlines() if line.startswith("|")]
    for line, following in zip(table, [*table[1:], ""], strict=True):
        if not _is_ruler(line) and not _is_ruler(following):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _is_ruler(line: str) -> bool:
    return re.fullmatch(r"\|([ :-]+\|)+", line) is not None


def marked(marker: str, text: str = README) -> str:
    """The code block behind a comment that names it."""
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```", text, re.S)
    assert found, marker
    return found[1]


def slugs(text: str) -> set[str]:
    """The fragments that a document's headings make."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_knob_is_in_the_table_with_its_default() -> None:
    table = {cells[0]: cells[2] for cells in rows(section("## Knobs", REFERENCE))}
    shown = {None: "not set", True: "on", False: "off"}
    expected = {}
    for name, field in Config.model_fields.items():
        symbol = f", `{_SYMBOL_OF[name]}`" if name in _SYMBOL_OF else ""
        is_word = field.default is None or isinstance(field.default, bool)
        expected[f"`{name}`{symbol}"] = shown[field.default] if is_word else f"`{field.default}`"
    assert table == expected


def test_every_variable_is_named() -> None:
    named = {cells[0].strip("`") for cells in rows(section("## Variables", REFERENCE))}
    assert named - {"ALIGNBEAM_` and a knob"} == set(_OTHER_VARIABLES)


def test_every_exit_code_is_named() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {str(kind.exit_code) for kind in kinds if issubclass(kind, errors.AlignBeamError)}
    assert codes <= {cells[0] for cells in rows(section("## Exit codes", REFERENCE))}


def test_every_field_of_a_result_is_named() -> None:
    for kind, heading in ((Result, "## What `--json` returns"), (Step, "## What `--trace` writes")):
        text = section(heading, REFERENCE).split("\n### ")[0]
        assert [cells[0] for cells in rows(text)] == [f"`{field.name}`" for field in fields(kind)]


def test_every_model_is_named_with_its_licence() -> None:
    text = section("## Names and licences", MODELS)
    table = {cells[0]: cells[2] for cells in rows(text) if len(cells) == 4}
    registry = Registry.load()
    assert table == {f"`{name}`": entry.licence for name, entry in registry.models.items()}
    assert all(f"`{name}`" in section("## Profiles", MODELS) for name in registry.profiles)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, fragment = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not fragment or fragment in slugs(target.read_text(encoding="utf-8")), link


def test_ci_runs_the_command_of_the_readme() -> None:
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()[-1] == marked("command: test").strip()


def test_the_commands_of_the_documents_exist() -> None:
    called = [words for path in DOCUMENTS for words in calls(path.read_text(encoding="utf-8"))]
    assert len([*calls(README)]) > 12
    assert len(called) > 100
    for words in called:
        assert {word for word in words if re.match("--?[A-Za-z]", word)} <= flags_of(words), words


def calls(text: str) -> Iterator[list[str]]:
    """Every call of `alignbeam` in the shell blocks of a document and in the cells of its tables."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    cells = re.findall(r"^\|.*`(alignbeam [^`]+)`", text, re.M)
    return (words for line in (*lines, *cells) for words in alignbeam_calls(line.replace("\\|", "|")))


def alignbeam_calls(line: str) -> Iterator[list[str]]:
    """The words behind every `alignbeam` of a line, each up to the end of its command."""
    code = re.sub(r" +#.*", "", line)
    for words in re.findall(r"""alignbeam((?: +(?:"[^"]*"|'[^']*'|[^\s|;&<>()"']+))+)""", code):
        yield shlex.split(words)


@cache
def _app() -> Any:
    """Every command, made once."""
    return get_command(make_app())


def flags_of(words: list[str]) -> set[str]:
    """The flags that the sub-command in these words knows."""
    command = _app()
    for word in takewhile(lambda word: not word.startswith("-"), words):
        if isinstance(command, TyperGroup):
            command = command.commands[word]
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def test_the_example_of_a_users_models_works() -> None:
    write_config("models.toml", marked("example: models.toml", MODELS))
    registry = Registry.load()
    assert registry.profile_models("clinic") == ("my-medical-8b", "qwen2.5-coder-1.5b-instruct", "my-guard")
    assert registry.models["my-guard"].judge.labels == {"safe": 1, "unsafe": 5}


def test_the_example_of_a_configuration_works() -> None:
    write_config("config.toml", marked("example: config.toml", USE))
    config = resolve({}, Registry.load(), {}).config
    assert (config.profile, config.max_tokens, config.on_unsafe) == ("starter", 300, "refuse")


def write_config(name: str, text: str) -> None:
    folder = Path(os.environ["ALIGNBEAM_CONFIG_DIR"])
    folder.mkdir(parents=True)
    (folder / name).write_text(text, encoding="utf-8")


def test_contributing_lists_every_package() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = [cells[0].strip("`") for cells in rows(text.split("## The code\n")[1])]
    packages = [
        path.parent for folder in ("alignbeam_local", "cli") for path in (ROOT / folder).rglob("__init__.py")
    ]
    folders = {str(path.relative_to(ROOT)) for path in packages}
    assert set(listed) == {name for name in folders if not name.startswith("alignbeam_local/evaluation/")}


def test_knobs_fixed_at_loading_are_named() -> None:
    from alignbeam_local.engine.engine import LOADING_KNOBS

    sentence = next(line for line in REFERENCE.splitlines() if "decide what is loaded" in line)
    named = re.findall(r"`(\w+)`", sentence)
    assert set(named) == set(LOADING_KNOBS) <= set(KNOBS)


def test_errors_say_how_to_rebuild_as_the_page_on_installing_does() -> None:
    command = errors.rebuild_hint().partition("pip install ")[2]
    assert INSTALL.count(command) == INSTALL.count("--force-reinstall") == 4


def test_the_readme_is_a_front_page() -> None:
    assert len(README.splitlines()) <= 200
    first, second = marked("command: ask"), marked("command: test")
    assert first.count("\n") == second.count("\n") == 1
    assert first.rstrip().endswith('"Why is the sky blue?"')


def test_the_library_example_is_python() -> None:
    ast.parse(marked("example: library"))


def test_every_page_is_one_click_away() -> None:
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"README.md"}
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert pages == set(re.findall(r"\]\((\w+\.md)\)", index))
    assert pages == set(re.findall(r"\]\(docs/(\w+\.md)[)#]", README))


def test_errors_name_pages_and_headings_that_exist() -> None:
    sources = [path for folder in ("alignbeam_local", "cli") for path in (ROOT / folder).rglob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    named = re.findall(r"[Ss]ee '([^']+)' in ([\w/.]+\.md|the README)", text)
    assert len(named) >= 3
    for heading, page in named:
        lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
        assert f"## {heading}" in lines, (heading, page)


def test_the_picture_asks_no_other_machine() -> None:
    picture = (ROOT / "docs/chat.svg").read_text(encoding="utf-8")
    assert "docs/chat.svg" in README
    assert not re.search(r"(href|src)=|url\((?!#)|@import", picture)
