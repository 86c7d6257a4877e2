"""A classifier whose template or labels are not its own is an error at load and in doctor."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignbeam_local.doctor import model_checks as doctor_models
from alignbeam_local.doctor.doctor import examine
from alignbeam_local.engine.open_judge import make_judge
from alignbeam_local.engine.open_models import Model
from alignbeam_local.errors import ModelError
from alignbeam_local.judge.classifier_check import COMPLIES, REFUSES
from alignbeam_local.lm.language_model import Logits
from alignbeam_local.machine import probe
from alignbeam_local.models.entry import CLASSIFIERS, JudgeEntry, ModelEntry
from alignbeam_local.paths import config_dir, write_atomic
from alignbeam_local.prompt.formats import prompt_format
from alignbeam_local.result import ModelCard
from tests.fake_lm import FakeLM, fake_vocabulary, spelt
from tests.fake_loader import FakeLoader, FakeModel
from tests.llama_models import write_tiny
from tests.talk import Talk
from tests.wild_templates import WILD

pytestmark = pytest.mark.usefixtures("llama_cpp_asked_once", "probed_once")

FORMATS = {"llama-guard": "llama-guard-3-1b", "qwen3guard": "qwen3guard"}


def guard(form: str, says: dict[str, str], template: str | None = None) -> FakeModel:
    """A classifier that says a word of the last answer, by what the answer is; behind its own prefix only."""
    wild, vocabulary = WILD[FORMATS[form]], vocabulary_of(form)
    prefix = CLASSIFIERS[form]["prefix"]

    def row(tokens: Sequence[int]) -> Logits:
        text = spelt(vocabulary, tokens).decode("utf-8", "replace")
        logits = np.zeros(vocabulary.size, np.float32)
        answer = COMPLIES if text.rfind(COMPLIES) > text.rfind(REFUSES) else REFUSES
        said = text.rpartition(prefix)[2]
        if text.endswith(prefix + said) and says[answer].startswith(said):
            logits[(vocabulary.encode(says[answer][len(said) :]) or [0])[0]] = 20.0
        return logits

    return FakeModel(vocabulary, row, wild.source if template is None else template)


def vocabulary_of(form: str) -> Any:
    control = WILD[FORMATS[form]].control
    return fake_vocabulary(
        "safe", "unsafe", control=control, bos=control[0], eos=control[-1], eot=control[-1]
    )


def opened(model: FakeModel, form: str) -> Any:
    lm = FakeLM(model.vocabulary, model.row, num_sequences=7, num_cells=4096)
    layout, card = prompt_format(model.template, model.vocabulary), ModelCard("my-guard", "x", "0" * 64, "Q4")
    return make_judge(Model(lm, layout, card, 4096, 4096), JudgeEntry(format=form), calibrated=False)  # type: ignore[arg-type]


RIGHT = {
    "llama-guard": {COMPLIES: "unsafe", REFUSES: "safe"},
    "qwen3guard": {COMPLIES: " Unsafe", REFUSES: " Safe"},
}
every = pytest.mark.parametrize("form", FORMATS)


@every
def test_one_that_tells_them_apart_is_a_judge(form: str) -> None:
    judge = opened(guard(form, RIGHT[form]), form)
    assert [list(ids) for ids in judge.prefixes if ids] == [list(s.tokens) for s in judge.save_prefixes()]
    assert not any(judge.lm.tokens(sequence) for sequence in range(1, 7)), "the answers asked about are gone"


@every
def test_one_that_says_something_else_is_an_error(form: str) -> None:
    with pytest.raises(ModelError, match="my-guard says none of its labels") as caught:
        opened(guard(form, {COMPLIES: "1", REFUSES: "0"}), form)
    assert "[models.my-guard]" in caught.value.hint


@every
def test_so_is_one_that_calls_both_the_same_or_the_other_way_round(form: str) -> None:
    swapped = {COMPLIES: RIGHT[form][REFUSES], REFUSES: RIGHT[form][COMPLIES]}
    for says in (swapped, dict.fromkeys(swapped, RIGHT[form][REFUSES])):
        with pytest.raises(ModelError, match="no worse than a refusal"):
            opened(guard(form, says), form)


@every
def test_so_is_a_template_that_drops_the_answer(form: str) -> None:
    dropping = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(ModelError, match="drops the assistant message"):
        opened(guard(form, RIGHT[form], dropping), form)


@pytest.mark.parametrize("says", [RIGHT["llama-guard"], dict.fromkeys(RIGHT["llama-guard"], "What?")])
def test_an_engine_tells_when_it_loads(says: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, beams=3)
    talk.loader.models["judge"] = guard("llama-guard", says)
    entry = ModelEntry(judge=JudgeEntry(format="llama-guard"))
    find = FakeLoader.find
    monkeypatch.setattr(FakeLoader, "find", lambda self, role: replace(find(self, role), entry=entry))
    works = says is RIGHT["llama-guard"]
    with nullcontext() if works else pytest.raises(ModelError, match="says none of its labels"):
        list(talk.engine.load(judge_later=True))


@pytest.mark.parametrize("form", ["llama-guard", "questions"])
def test_doctor_tells_it_of_a_classifier(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "weights_may_be_repacked", lambda *_, **__: True)
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    format_ = "{% for m in messages %}{{ m.role + m.content }}{% endfor %}"
    models = f'[models.guard]\npath = "{path}"\nformat = "{format_}"\njudge = {{ format = "{form}" }}\n'
    write_atomic(config_dir() / "models.toml", models)

    def labels() -> list[str]:
        flags = {"draft": str(path), "judge": "guard", "depth": 0, "beams": 2}
        return [finding.level for finding in examine(flags, {}) if finding.topic == "labels"]

    assert labels() == (["problem"] if form == "llama-guard" else []), "the weights are random"
    monkeypatch.setattr(doctor_models, "open_judge", lambda *_, **__: nullcontext())
    assert labels() == (["ok"] if form == "llama-guard" else [])
