"""The project as a library: its one import, its documented examples, its errors."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import alignbeam_local as alignbeam
from alignbeam_local.engine.engine import Engine
from alignbeam_local.events import BeamText, Done
from tests.fake_lm import scripted_row
from tests.fake_loader import FakeLoader, FakeModel
from tests.talk import ANCHOR, BEGIN, DRAFT

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "docs" / "library.md"
JUDGE = "qwen2.5-coder-0.5b-instruct"  # of the starter, and its anchor


def documented(path: Path) -> Iterator[str]:
    for code in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
        if "alignbeam" in code:
            yield code


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch, few_examples: None) -> FakeLoader:
    """`./my-model.gguf` is there, and so are the default profile's anchor and judge."""
    script = {BEGIN: ["Blue light scatters most.", "It scatters.", "I can't say."]}
    found = FakeLoader(
        {
            "./my-model.gguf": FakeModel(DRAFT, scripted_row(DRAFT, script)),
            JUDGE: FakeModel(ANCHOR, scripted_row(ANCHOR, script)),
        }
    )
    monkeypatch.setattr("alignbeam_local.engine.engine.Loader", found)
    monkeypatch.setenv("ALIGNBEAM_FORCE", "true")
    return found


@pytest.mark.parametrize("code", [*documented(LIBRARY), *documented(ROOT / "README.md")])
def test_the_documented_examples_run(
    code: str, loader: FakeLoader, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(code, "example", "exec"), {})
    assert capsys.readouterr().out


def test_what_was_stopped_is_one_answer(loader: FakeLoader) -> None:
    engine = alignbeam.load(draft="./my-model.gguf", beams=1, depth=1, max_tokens=20, temperature=0)
    whole = engine.answer("How?")
    stream = engine.stream("How?")
    for event in stream:
        if isinstance(event, BeamText):
            engine.cancellation.set()
    assert isinstance(event, Done)
    assert event.result.finish_reason == "cancelled"
    assert engine.answer("How?").text == whole.text


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = {"llama_cpp", "numpy", "pydantic", "rich", "typer", "jinja2", "huggingface_hub"}
    code = f"import sys, alignbeam_local as a; assert 'load' in dir(a); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_every_public_name_is_there() -> None:
    for name in alignbeam.__all__:
        assert getattr(alignbeam, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = alignbeam.nothing


def test_a_question_by_itself_is_a_conversation_of_one_turn(loader: FakeLoader) -> None:
    with alignbeam.load(draft="./my-model.gguf", beams=1, temperature=0, max_tokens=12) as engine:
        plain, turns = engine.answer("Why?"), engine.answer([alignbeam.Message("user", "Why?")])
        assert plain.text == turns.text != ""
        assert engine.answer("Why?", max_tokens=3).usage.completion_tokens == 3
        with pytest.raises(alignbeam.UsageError, match="context can't change between answers"):
            engine.answer("Why?", context=256)


def test_a_result_is_the_object_of_json(loader: FakeLoader) -> None:
    with alignbeam.load(draft="./my-model.gguf", beams=1) as engine:
        result = engine.answer("Why?", max_tokens=4)
    assert json.loads(json.dumps(result.as_dict()))["text"] == result.text


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"alpah": 0.8}, "load: unknown knob 'alpah'"),
        ({"alpha": 8}, "alpha: alpha = 8"),
        ({"draft": "nowhere"}, "nowhere is not here"),
        ({"profile": "nobody"}, "profile: unknown profile"),
    ],
)
def test_errors_are_the_projects_own(knobs: dict[str, Any], message: str, loader: FakeLoader) -> None:
    with pytest.raises(alignbeam.AlignBeamError) as raised:
        alignbeam.load(**knobs)
    assert raised.value.message.startswith(message)
    assert raised.value.hint or "nowhere" in message


def test_what_was_opened_is_closed_when_the_load_fails(
    loader: FakeLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Engine] = []

    def close(engine: Engine) -> None:
        closed.append(engine)

    monkeypatch.setattr(Engine, "close", close)
    loader.has_memory = False
    with pytest.raises(alignbeam.ModelError, match="not enough memory"):
        alignbeam.load(draft="./my-model.gguf")
    assert len(closed) == 1


@pytest.mark.models
def test_the_readme_example_answers_on_a_real_model() -> None:
    with alignbeam.load(draft="smollm2-135m-instruct", alpha=0.8, threads=2, max_tokens=16) as engine:
        result = engine.answer("Why is the sky blue?")
    assert result.text
    assert result.config["alpha"] == 0.8
