"""The house: imports run down, in no circle; pure modules load no backend; commands import what they need."""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "alignbeam_local"
#: From the ground up: a line may import what stands in lines above it; within a package no circle may be.
LAYERS = """
errors
paths intervals cancellation reading last_words
placing roles
knobs
config
result idle
events
result_json
lm
prompt
models
settings
tokens
search
refusals
judge
heads
llama
machine
pair
engine
warm
conversation
api doctor bench
plan cluster
evaluation
server
training
cli
"""
_FLOOR = {room: floor for floor, line in enumerate(LAYERS.split("\n")) for room in line.split()}
#: No module of these loads a model library, the terminal or the hub, however indirectly.
PURE = (
    *(
        "config",
        "errors",
        "events",
        "result",
        "intervals",
        "paths",
        "search",
        "refusals",
        "prompt",
        "lm",
        "judge",
        "heads",
        "tokens",
    ),
    *("machine.memory", "machine.placement", "machine.context_size", "evaluation.suites"),
    *(
        f"evaluation.reports.{name}"
        for name in ("figures", "table", "plots", "page", "compare", "statistics")
    ),
    "server.page",
    *(
        f"training.{name}"
        for name in ("losses", "objective", "samples", "settings", "token_set", "request", "need")
    ),
    *("training.adapter.peft_folder", "training.adapter.adapter_gguf", "training.adapter.safetensors_file"),
    *("evaluation.runs.metrics", "evaluation.runs.run_directory", "evaluation.runs.saved_runs"),
)
_BACKENDS = {"llama_cpp", "huggingface_hub", "typer", "rich", "prompt_toolkit", "torch", "transformers"}
_HEAVY = {"llama_cpp", "huggingface_hub", "prompt_toolkit", "numpy", "jinja2", "gguf", "markdown_it"}
#: By command what of the heavy ones is loaded before it has read its arguments: `--help` is quick.
NEEDS = {"doctor": {"jinja2", "numpy"}, "eval": {"jinja2", "numpy"}}


class Module(NamedTuple):
    """A module's imports: those that run when it is loaded; and all, of types and in functions too."""

    at_load: frozenset[str]
    anywhere: frozenset[str]


def path_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == PACKAGE else (PACKAGE, *parts)).removesuffix(".__init__")


FILES = {path_of(file): file for folder in (PACKAGE, "cli") for file in (ROOT / folder).rglob("*.py")}


@cache
def module(name: str) -> Module:
    file = FILES[name]
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(file.read_text(encoding="utf-8"))
    anywhere = frozenset(found for node in ast.walk(tree) for found in imported(node, package))
    at_load = frozenset(found for node in loaded(tree) for found in imported(node, package))
    return Module(at_load, anywhere)


def loaded(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run at load: not the bodies of functions, nor what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from loaded(child)


def imported(node: ast.AST, package: str) -> Iterator[str]:
    """The modules that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *filter(None, [node.module])])
        for alias in node.names:
            yield name if (name := f"{base}.{alias.name}") in FILES else base


def ours(names: frozenset[str]) -> list[str]:
    return [name for name in names if name in FILES and name != PACKAGE]


def room(name: str) -> str:
    return name.split(".")[1]


def reached(name: str) -> frozenset[str]:
    """Every module that loading this one loads, the libraries' top names too."""
    found, waiting = set[str](), [name]
    while waiting:
        for other in module(waiting.pop()).at_load - found:
            found.add(other)
            if other in FILES:
                waiting.append(other)
    return frozenset(name if name in FILES else name.split(".")[0] for name in found)


def test_every_room_has_its_floor() -> None:
    assert {room(name) for name in FILES if name != PACKAGE} == set(_FLOOR)


@pytest.mark.parametrize("name", sorted(set(FILES) - {PACKAGE}))
def test_imports_run_down(name: str) -> None:
    upward = [
        other
        for other in ours(module(name).anywhere)
        if room(other) != room(name) and _FLOOR[room(other)] >= _FLOOR[room(name)]
    ]
    assert not upward, f"{name} must not import {', '.join(upward)}"


def test_imports_run_in_no_circle() -> None:
    """Of types neither."""
    graph = {name: set(ours(module(name).anywhere)) - {name} for name in FILES if name != PACKAGE}
    while free := {name for name, others in graph.items() if not others & graph.keys()}:
        graph = {name: others for name, others in graph.items() if name not in free}
    assert not graph, f"a circle is among {', '.join(sorted(graph))}"


@pytest.mark.parametrize("prefix", PURE)
def test_pure_modules_load_no_backend(prefix: str) -> None:
    names = [name for name in FILES if f"{name}.".startswith(f"{PACKAGE}.{prefix}.")]
    assert names
    for name in names:
        loads = reached(name) & _BACKENDS
        assert not loads, f"{name} loads {', '.join(loads)}"


def test_only_one_room_knows_the_backend() -> None:
    knows = {
        room(name)
        for name in FILES
        if any(other.split(".")[0] == "llama_cpp" for other in module(name).anywhere)
    }
    assert knows == {"llama"}


def test_only_training_knows_torch_and_only_its_command_knows_training() -> None:
    """The extra may be missing, and takes a second to load."""
    knows = {
        room(name)
        for name in FILES
        if {other.split(".")[0] for other in module(name).anywhere} & {"torch", "transformers"}
    }
    assert knows <= {"training"}
    users = {
        name
        for name in FILES
        if name != PACKAGE and room(name) != "training"
        if any(room(other) == "training" for other in ours(module(name).anywhere))
    }
    assert {name.removeprefix(f"{PACKAGE}.cli.") for name in users} == {
        "commands.prevention.train",
        "train.settings",
        "train.view",
    }


def test_only_the_cluster_knows_ray_and_nothing_loads_it_unasked() -> None:
    """The extra may be missing, and takes a second to load."""

    def knows_ray(names: frozenset[str]) -> bool:
        return any(other.split(".")[0] == "ray" for other in names)

    assert {room(name) for name in FILES if knows_ray(module(name).anywhere)} == {"cluster"}
    assert not [name for name in FILES if knows_ray(module(name).at_load)]


@pytest.mark.parametrize("name", [name for name in FILES if ".cli.commands." in name])
def test_a_command_imports_only_what_it_needs(name: str) -> None:
    assert reached(name) & _HEAVY == NEEDS.get(name.rpartition(".")[2], set())


def setuptools() -> dict[str, Any]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return dict(tomllib.loads(text)["tool"]["setuptools"])


def test_the_package_list_is_that_of_the_folders() -> None:
    """An editable install does not show a package that was forgotten; a wheel would lack it."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "packages"
    ]
    assert sorted(listed) == sorted(name for name, file in FILES.items() if file.name == "__init__.py")


def test_package_data_is_listed() -> None:
    listed = {
        file
        for package, patterns in setuptools()["package-data"].items()
        for pattern in patterns
        for file in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    folder = ROOT / PACKAGE
    there = {file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert there <= listed


@pytest.mark.parametrize("folder", sorted({str(file.parent.relative_to(ROOT)) for file in FILES.values()}))
def test_no_folder_is_crowded(folder: str) -> None:
    assert len(list((ROOT / folder).glob("*.py"))) <= 16


def test_packages_start_light() -> None:
    """A package's own file is empty, but for the library's, and for what llama.cpp must be loaded in."""
    for name, file in FILES.items():
        if file.name == "__init__.py" and name not in (PACKAGE, f"{PACKAGE}.llama"):
            assert not ast.parse(file.read_text(encoding="utf-8")).body[1:], name
