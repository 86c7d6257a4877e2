"""The documents say what the code does: knobs, names, commands, examples, links."""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

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
README = (ROOT / "README.md").read_text(encoding="utf-8")
_SYMBOL_OF = {knob: symbol for symbol, knob in ALIASES.items()}


def section(heading: str) -> str:
    """What stands below a heading, up to the next one of its level or above."""
    level = heading.index(" ")
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{level}}} |\Z)", README, re.M | re.S)
    assert found, heading
    return found[1]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row, headings and rulers left out."""
    table = [line for line in text.splitlines() if line.startswith("|")]
    for line, following in zip(table, [*table[1:], ""], strict=True):
        if not line.startswith("|--") and not following.startswith("|--"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def marked(marker: str) -> str:
    """The code block behind a comment that names it."""
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```", README, re.S)
    assert found, marker
    return found[1]


def slugs(text: str) -> set[str]:
    """The fragments that a document's headings make."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_knob_is_in_the_table_with_its_default() -> None:
    table = {cells[0]: cells[1] for cells in rows(section("## Every knob")) if len(cells) == 4}
    shown = {None: "not set", True: "`on`", False: "`off`"}
    expected = {}
    for name, field in Config.model_fields.items():
        symbol = f", `{_SYMBOL_OF[name]}`" if name in _SYMBOL_OF else ""
        is_word = field.default is None or isinstance(field.default, bool)
        expected[f"`{name}`{symbol}"] = shown[field.default] if is_word else f"`{field.default}`"
    assert table == expected


def test_every_variable_is_named() -> None:
    named = set(re.findall(r"`(ALIGNBEAM_\w+)`", section("### Where values come from")))
    assert named == set(_OTHER_VARIABLES)


def test_every_exit_code_is_named() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {str(kind.exit_code) for kind in kinds if issubclass(kind, errors.AlignBeamError)}
    assert codes <= {cells[0] for cells in rows(section("## Exit codes"))}


def test_every_field_of_a_result_is_named() -> None:
    text = section("## What `--json` returns")
    assert [cells[0] for cells in rows(text)] == [f"`{field.name}`" for field in fields(Result)]
    assert {f"`{field.name}`" for field in fields(Step)} <= set(re.findall(r"`\w+`", text))


def test_every_model_is_named_with_its_licence() -> None:
    text = section("## Models and their licences")
    table = {cells[0]: cells[2] for cells in rows(text) if len(cells) == 4}
    registry = Registry.load()
    assert table == {f"`{name}`": entry.licence for name, entry in registry.models.items()}
    assert all(f"`{name}`" in text for name in registry.profiles)


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


def test_the_commands_of_the_readme_exist() -> None:
    called = [words for line in shell_lines() for words in alignbeam_calls(line)]
    assert len(called) > 20
    for words in called:
        assert {word for word in words if word.startswith("-")} <= flags_of(words), words


def shell_lines() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S)
    return [line for block in blocks for line in block.splitlines()]


def alignbeam_calls(line: str) -> Iterator[list[str]]:
    """The words behind every `alignbeam` of a line, each up to the end of its command."""
    code = re.sub(r" +#.*", "", line)
    for words in re.findall(r"""alignbeam((?: +(?:"[^"]*"|'[^']*'|[^\s|;&<>()"']+))+)""", code):
        yield shlex.split(words)


def flags_of(words: list[str]) -> set[str]:
    """The flags that the sub-command in these words knows."""
    command = get_command(make_app())
    for word in words:
        if isinstance(command, TyperGroup):
            command = command.commands[word]
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def test_the_example_of_a_users_models_works() -> None:
    write_config("models.toml", marked("example: models.toml"))
    registry = Registry.load()
    assert registry.profile_models("clinic") == ("my-medical-8b", "qwen2.5-coder-1.5b-instruct", "my-guard")
    assert registry.models["my-guard"].judge.labels == {"safe": 1, "unsafe": 5}


def test_the_example_of_a_configuration_works() -> None:
    write_config("config.toml", marked("example: config.toml"))
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

    sentence = next(line for line in README.splitlines() if "decide what is loaded" in line)
    named = re.findall(r"`(\w+)`", sentence.split("decide")[0])
    assert set(named) == set(LOADING_KNOBS) <= set(KNOBS)


def test_errors_say_how_to_rebuild_as_the_readme_does() -> None:
    command = errors.rebuild_hint().partition("pip install ")[2]
    assert README.count(command) == README.count("--force-reinstall")
