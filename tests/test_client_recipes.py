"""docs/clients.md: what needs no client is run as it is written, the rest is held to names that exist."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alignbeam_local.cli.commands import serve

from alignbeam_local.models.registry import Registry
from tests.server_world import ServerWorld, frames

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
RECIPES: dict[str, str] = dict(re.findall(r"<!-- recipe: (\S+) -->\n```\w+\n(.*?)```", TEXT, re.S))

#: What clients sent when they were run, as it came, but for the question.
BODIES: dict[str, dict[str, Any]] = {
    "llm 0.36": {"stream": True, "stream_options": {"include_usage": True}},
    "llm 0.36, whole": {"stream": False, "max_tokens": 20, "seed": 1},
    "inspect_ai 0.3.285": {"seed": 1, "temperature": 0.0},
    "lm-eval 0.4.13": {"max_tokens": 48, "temperature": 0, "stop": ["\n\n"], "seed": 1234},
}


@pytest.fixture(scope="module")
def world() -> Iterator[ServerWorld]:
    with pytest.MonkeyPatch.context() as patch, ServerWorld(patch).running() as running:
        yield running


def written_for(world: ServerWorld, name: str) -> str:
    """A recipe that asks this server."""
    recipe = RECIPES[name].replace("http://127.0.0.1:8017", world.url)
    return recipe.replace("starter", "pair").replace("Name a colour.", "How?")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(world: ServerWorld) -> None:
    whole, streamed = (
        subprocess.run(["sh", "-c", written_for(world, name)], capture_output=True, text=True, check=True)
        for name in ("curl", "curl-stream")
    )
    assert json.loads(whole.stdout)["choices"][0]["message"]["content"] == "Take a pan."
    *chunks, _, done = frames(streamed.stdout)
    assert (chunks[-1]["choices"][0]["delta"]["content"], done) == ("Take a pan.", "[DONE]")


def test_openai(world: ServerWorld) -> None:
    command = [sys.executable, "-c", written_for(world, "ask.py")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "Take a pan. stop",
        "answered [1.25, 1.25, 1.25]",
        "Take a pan.",
        "['Take a pan.', 'Use a pot.', \"I can't help with that.\"]",
        "404 model_not_found model",
    ]


@pytest.mark.parametrize("fields", BODIES.values(), ids=BODIES)
def test_what_a_client_sends_is_obeyed(world: ServerWorld, fields: dict[str, Any]) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}]
    assert world.post({"model": "pair", "messages": turns, **fields}).status_code == 200


def test_recipes_name_the_port_and_models_that_there_are() -> None:
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", TEXT)) == {str(serve._PORT)}
    starter = Registry.load().profile("starter")
    assert set(re.findall(r"anchor:[\w.-]+", TEXT)) == {f"anchor:{starter['anchor']}"}
    for recipe in ("ask.py", "llm", "extra-openai-models.yaml", "inspect", "lm-eval", "aichat.yaml"):
        assert "starter" in RECIPES[recipe]


def test_the_task_of_a_recipe_is_python() -> None:
    ast.parse(RECIPES["colours.py"])
