"""Every command that has `--json` prints JSON: they are found in the app, so that none is forgotten."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alignbeam_local.cli.main import make_app
from typer.main import get_command

from alignbeam_local.config import Config
from alignbeam_local.conversation.log import ConversationLog
from alignbeam_local.engine import open_judge as judge_loading
from alignbeam_local.machine import probe
from alignbeam_local.result import ModelCard

from .fake_engine import fake_result
from .llama_models import write_tiny
from .running import Ran, open_fakes, run
from .test_bench import ran as bench_ran  # noqa: F401 (a fixture)
from .test_bench import talk  # noqa: F401 (a fixture)
from .test_judge import make_judge

pytestmark = pytest.mark.usefixtures("llama_cpp_asked_once")

PAIRS = [
    {"question": f"Steal {n}?", "answer": "HARM" if label == "compliance" else "No.", "label": label}
    for label in ("compliance", "refusal")
    for n in range(2)
]

#: What each command is run with, and what comes on stdin.
CALLS: dict[str, list[tuple[str, ...]]] = {
    "ask": [("echo: é",), ("--trace", "x"), ("--show-config",)],
    "filter": [(), ("--jsonl",), ("--show-config",)],
    "chat": [("--show-config",)],
    "bridge": [("tiny.gguf", "tiny.gguf"), ("tiny.gguf", "tiny.gguf", "./tiny.gguf")],
    "bench": [(), ("--sweep", "K=1,2")],
    "doctor": [(), ("--draft", "tiny.gguf", "--anchor", "tiny.gguf", "--judge", "tiny.gguf")],
    "plan": [("--draft", "tiny.gguf", "--depth", "0", "--judge", "tiny.gguf", "--machine", "ram=8G,cores=2")],
    "models list": [()],
    "models import": [("tiny.gguf", "--name", "mine")],
    "models rm": [("smollm2-135m-instruct", "--yes")],
    "models verify": [("./tiny.gguf",)],
    "models inspect": [("tiny.gguf",), ("bare.gguf",)],
    "judge check": [("any", "--pairs", "pairs.jsonl"), ("any", "--pairs", "pairs.jsonl", "--injections")],
    "logs list": [()],
    "logs show": [(), ("tea",)],
    "logs search": [("tea",), ("nothing",)],
    "config show": [()],
    "heads show": [()],
}
#: Run with readers and models of their own in tests/test_heads.py, test_tokens.py and test_train_command.py.
ELSEWHERE = ["heads check", "heads fit", "tokens find", "tokens salient", "tokens show", "train"]
GIVEN = '{"prompt": "echo: é"}\n{"prompt": "full"}\n'


def with_json() -> Iterator[str]:
    """The commands that have the flag, by all their words."""
    commands = {(name,): command for name, command in get_command(make_app()).commands.items()}  # type: ignore[attr-defined]
    while commands:
        words, command = commands.popitem()
        commands |= {(*words, name): sub for name, sub in getattr(command, "commands", {}).items()}
        if any("--json" in option.opts for option in command.params):
            yield " ".join(words)


@pytest.fixture
def here(few_examples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with two models and pairs, fakes for whatever runs models, a conversation that was kept."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "tiny.gguf", "llama")
    write_tiny(tmp_path / "bare.gguf", "llama", has_weights=False)
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, PAIRS)))
    monkeypatch.setattr(probe, "require_vocabulary", lambda *_: None)
    monkeypatch.setattr(probe, "weights_may_be_repacked", lambda *_, **__: True)
    judge, _ = make_judge()

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[Any]:
        yield judge, ModelCard("fake", "fake.gguf", "ab", "Q4")

    monkeypatch.setattr(judge_loading, "open_judge", opened)
    with ConversationLog() as log:
        log.add("aa11", "What is tea?", fake_result("A drink", Config.of({"draft": "x"})), name="tea")


def test_every_command_with_json_is_run_here() -> None:
    assert sorted(with_json()) == sorted([*CALLS, *ELSEWHERE])


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("call", [(*name.split(), *args) for name, calls in CALLS.items() for args in calls])
def test_it_prints_json(
    call: tuple[str, ...], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if call[0] == "bench":
        done: Ran = request.getfixturevalue("bench_ran")(*call[1:], "--json")[0]
    else:
        open_fakes(monkeypatch)
        done = run(*call, "--json", given=GIVEN)
    assert "internal:" not in done.err
    assert done.out, done.err
    lines = done.out.splitlines() if call[0] in ("ask", "filter", "bridge") else [done.out]
    assert lines
    for line in lines:
        assert isinstance(json.loads(line), dict | list)


@pytest.mark.usefixtures("here")
def test_a_file_is_inspected_as_text_and_as_json() -> None:
    found = json.loads(run("models", "inspect", "tiny.gguf", "--json").out)
    sizes = found["block_bytes"]
    assert found["architecture"] == "llama"
    assert sizes
    assert all(isinstance(size, int) for size in sizes.values())
    line = next(line for line in run("models", "inspect", "tiny.gguf").out.splitlines() if "block_b" in line)
    assert line.split()[1] == f"{sum(sizes.values()):,}"
