"""The knob `lora`: what may stand there, what is loaded for it, and where a profile's adapters belong."""

import json
from pathlib import Path

import pytest
from alignbeam_local.cli.pulling import needed_models

from alignbeam_local.cluster.model_work import roles_about
from alignbeam_local.config import Config
from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.methods.specs import parse_method
from alignbeam_local.evaluation.reports.sweep import profile_table
from alignbeam_local.evaluation.runs.runner import RunPlan, manifest
from alignbeam_local.heads.answer_head import ANSWER_HEADS
from alignbeam_local.knobs.values import LoraSpec
from alignbeam_local.models.hashes import file_sha256
from alignbeam_local.models.registry import Registry
from alignbeam_local.models.toml_files import user_file
from alignbeam_local.paths import config_file, write_atomic
from alignbeam_local.result import AdapterCard, ModelCard
from alignbeam_local.settings import SourcedConfig, resolve
from tests.adapters import write_adapter
from tests.llama_models import write_tiny
from tests.running import run
from tests.test_answer_heads import record as answer_record

TOML = """
[models.mine]
hub = { repo = "owner/mine", file = "mine.gguf" }

[profiles.clinic]
draft = "base"
lora = ["mine:0.5", "./other.gguf"]
"""


def settings(**flags: object) -> SourcedConfig:
    return resolve(flags, Registry.load(), {})


@pytest.mark.parametrize(
    ("given", "specs"),
    [
        ("a.gguf", [("a.gguf", 1.0)]),
        ("a.gguf:0.5", [("a.gguf", 0.5)]),
        ("hf:o/r/f.gguf", [("hf:o/r/f.gguf", 1.0)]),
        ("hf:o/r/f.gguf:-2", [("hf:o/r/f.gguf", -2.0)]),
        (["a", "b:0"], [("a", 1.0), ("b", 0.0)]),
        ('["a", "b:3"]', [("a", 1.0), ("b", 3.0)]),
        ("none", []),
        (["none"], []),
    ],
)
def test_files_and_scales(given: object, specs: list[tuple[str, float]]) -> None:
    assert Config.of({"lora": given}).adapters == tuple(LoraSpec(*spec) for spec in specs)


@pytest.mark.parametrize(
    "given", ["", ":1", "a:nan", "a:inf", "a:101", ["a", "a:2"], True, 3, "a:", ["none", "a"], ["a", "none"]]
)
def test_what_cannot_be(given: object) -> None:
    with pytest.raises(UsageError, match="lora = "):
        Config.of({"lora": given})


def test_a_profile_names_adapters_which_are_pulled_with_its_models() -> None:
    write_atomic(user_file(), TOML)
    config = settings(profile="clinic").config
    assert config.lora == ("mine:0.5", "./other.gguf")
    assert {"base", "mine", "./other.gguf"} <= set(needed_models(config))
    assert Registry.load().profile_models("clinic") == ("base", "mine", "./other.gguf")


def test_a_profiles_adapters_go_with_its_draft_alone() -> None:
    write_atomic(user_file(), TOML)
    assert settings(profile="clinic", draft="another").config.lora == ()
    assert settings(profile="clinic", draft="another", lora=["a"]).config.lora == ("a",)
    assert settings(profile="clinic").override({"draft": "another"}, "chat").config.lora == ()
    assert settings(draft="another", lora=["a"]).override({"draft": "b"}, "chat").config.lora == ("a",)
    write_atomic(config_file(), 'lora = "mine"\n')
    assert settings(draft="another").config.lora == ("mine",)


def test_a_method_has_adapters_of_its_own_and_the_manifest_their_hashes(tmp_path: Path) -> None:
    base, mine = write_tiny(tmp_path / "base.gguf", "llama"), write_adapter(tmp_path / "mine.gguf")
    config = Config.of({"draft": str(base), "anchor": str(base)})
    entries = [parse_method(spec, config) for spec in ("draft", f"draft:lora={mine}:0.5", "anchor")]
    about = manifest(RunPlan(entries, [], [1]), Registry({}, {}, ""))["methods"]
    drafts = [one["models"]["draft"] for one in about.values()]
    assert drafts[1]["adapters"] == [{"name": "mine", "sha256": file_sha256(mine), "scale": 0.5}]
    assert "adapters" not in drafts[0]
    assert str(tmp_path) not in json.dumps(about[entries[0].name])


def test_a_manifest_and_workers_know_the_answer_head_of_the_draft_with_its_adapters(tmp_path: Path) -> None:
    """A run that is gone on with after another fit would hold answers that two heads judged."""
    base, mine = write_tiny(tmp_path / "base.gguf", "llama"), write_adapter(tmp_path / "mine.gguf")
    config = Config.of({"draft": str(base), "depth": 0, "beams": 1, "lora": [f"{mine}:0.5"]})
    card = AdapterCard("mine", str(mine), file_sha256(mine), 0.5)
    weights = ModelCard("base", str(base), file_sha256(base), "F32", (card,)).weights_sha256
    found = []
    for intercept in (0.0, 1.0):
        fitted = answer_record(model_sha256=weights, intercept=intercept)
        ANSWER_HEADS.save(fitted, ANSWER_HEADS.file(weights, fitted.key))
        entries = [parse_method(spec, config) for spec in ("draft", "draft:lora=none")]
        about = manifest(RunPlan(entries, [], [1]), Registry({}, {}, ""))["methods"].values()
        adapted, plain = (one["models"]["draft"] for one in about)
        assert "head" not in plain
        assert roles_about(config, Registry({}, {}, ""))["draft"] == adapted
        found.append(adapted.get("head"))
    assert None not in found
    assert len(set(found)) == 2


def test_the_method_anchor_has_none() -> None:
    config = Config.of({"draft": "d", "anchor": "a", "lora": ["mine"]})
    assert parse_method("anchor", config).config.lora == ()
    assert parse_method("draft", config).config.lora == ("mine",)


def test_a_sweeps_profile_names_adapters_so_that_they_are_found_from_anywhere(tmp_path: Path) -> None:
    mine = write_adapter(tmp_path / "mine.gguf")
    config = Config.of({"draft": str(mine), "lora": [f"{mine}:0.25"]})
    table = profile_table("new", "", parse_method("draft", config), Registry({}, {}, ""))
    assert f'lora = ["{mine}:0.25"]' in table
    assert "lora" not in profile_table(
        "new", "", parse_method("draft", Config.of({"draft": str(mine)})), Registry({}, {}, "")
    )


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["f:abc"], "'abc' is no scale: that is a number, such as 0.5"),
        (["f.gguf:0,5"], "'0,5' is no scale"),
        (["none", "f.gguf"], "none says that there is no adapter: it stands alone"),
    ],
)
def test_what_is_wrong_with_an_adapter_is_said(flags: list[str], told: str) -> None:
    ran = run("ask", "hi", *(word for flag in flags for word in ("--lora", flag)))
    assert ran.code == 2
    assert told in ran.err


def test_a_colon_may_be_the_files_own() -> None:
    for text in ("hf:o/r/f.gguf", "./a:b.gguf", "hf:o", "c:/a/b"):
        assert Config.of({"lora": text}).adapters == (LoraSpec(text, 1.0),)


def test_a_folder_is_no_adapter_and_it_is_said_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    config = tmp_path / "run" / "adapter" / "adapter_config.json"
    config.touch()
    base = write_tiny(tmp_path / "base.gguf", "llama")

    def hint(folder: Path) -> str:
        flags = ("--draft", str(base), "--anchor", str(base), "--judge", str(base))
        ran = run("ask", "hi", *flags, "--lora", str(folder))
        assert (ran.code, "is a directory" in ran.err) == (3, True)
        return " ".join(ran.err.split())

    export = f"alignbeam train export {config.parent} --base MODEL --out FILE.gguf"
    assert export in hint(config.parent)
    assert export in hint(tmp_path / "run")
    written = write_adapter(tmp_path / "run" / "adapter.gguf")
    assert f"Give the file in it: {written}" in hint(tmp_path / "run")
    assert "train export" not in hint(tmp_path)


def test_how_a_method_names_two_adapters() -> None:
    with pytest.raises(UsageError, match="lora is given twice") as error:
        parse_method("draft:lora=a,lora=b", Config())
    assert error.value.hint == """Several are one list: --method 'draft:lora=["A","B"]'."""
    assert parse_method('draft:lora=["a:0.5","b"]', Config()).config.lora == ("a:0.5", "b")
    with pytest.raises(UsageError) as other:
        parse_method("draft:alpha=0.1,alpha=0.2", Config())
    assert other.value.hint == "Give it once."


def test_a_scale_is_kept_to_its_last_digit(tmp_path: Path) -> None:
    mine = str(write_adapter(tmp_path / "mine.gguf"))
    for scale in (0.123456789, 1.0, 0.5, -2.0, 1 / 3, 1e-7):
        kept = Registry({}, {}, "").lasting_adapter(LoraSpec(mine, scale))
        assert Config.of({"lora": kept}).adapters == (LoraSpec(mine, scale),)
    assert LoraSpec("a", 1.0).text == "a:1"
