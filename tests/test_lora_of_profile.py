"""A profile's adapters go with its draft: they stay where it is meant, and are not left out in silence."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import alignbeam_local as alignbeam
from alignbeam_local.config import Config
from alignbeam_local.doctor.doctor import examine
from alignbeam_local.models.registry import Registry
from alignbeam_local.models.toml_files import user_file
from alignbeam_local.paths import config_file, write_atomic
from alignbeam_local.settings import SourcedConfig, resolve

from .adapters import write_adapter
from .fake_engine import FakeEngine
from .llama_models import write_tiny
from .running import run


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The file of `base`, which the profile clinic puts an adapter on; `loose` says no draft."""
    path = write_tiny(tmp_path / "base.gguf", "llama")
    write_atomic(
        user_file(),
        f"""
[models.base]
path = "{path}"

[models.mine]
path = "{write_adapter(tmp_path / "mine.gguf")}"

[profiles.clinic]
draft = "base"
lora = ["mine:0.5"]

[profiles.loose]
lora = ["mine"]

[profiles.plain]
draft = "base"
""",
    )
    return path


def settings(environ: dict[str, str] | None = None, **flags: object) -> SourcedConfig:
    return resolve(flags, Registry.load(), environ or {})


def test_they_stay_where_the_draft_is_named_once_more(base: Path) -> None:
    link = base.with_name("link.gguf")
    link.symlink_to(base)
    for draft in ("base", str(base), os.path.relpath(base), str(link)):
        for found in (
            settings(profile="clinic", draft=draft),
            settings({"ALIGNBEAM_DRAFT": draft}, profile="clinic"),
            settings(profile="clinic").override({"draft": draft}, "chat"),
        ):
            assert (found.config.lora, found.left_out) == (("mine:0.5",), ""), draft
            assert found.sources["lora"] == "profile clinic"


def test_another_draft_has_none_of_them_and_that_is_said(base: Path) -> None:
    found = settings(profile="clinic").override({"draft": "another.gguf"}, "chat")
    assert found.config.lora == ()
    assert found.sources["lora"] == "not profile clinic"
    (notice,) = found.notices
    for part in ("profile clinic", "mine:0.5", "its draft base", "another.gguf (chat)", "lora = none"):
        assert part in notice
    back = found.override({"draft": str(base)}, "chat")
    assert (back.config.lora, back.notices) == (("mine:0.5",), [])
    for silent in ({"lora": "none"}, {"lora": ["a"]}):
        assert settings(profile="clinic", draft="another.gguf", **silent).notices == []


def test_adapters_of_a_profile_without_a_draft_are_on_any(base: Path) -> None:
    assert settings(profile="loose").config.lora == ("mine",)
    assert settings(profile="loose", draft="another.gguf").config.lora == ("mine",)
    before = settings(draft="another.gguf")
    assert before.with_profile("loose", Registry.load(), "chat").config.lora == ("mine",)
    write_atomic(config_file(), 'profile = "loose"\n')
    assert settings(profile="plain").config.lora == ("mine",)


def test_another_profiles_draft_is_as_that_profile_says(base: Path) -> None:
    write_atomic(config_file(), 'profile = "clinic"\n')
    found = settings(profile="plain")
    assert found.config.lora == ()
    assert "profile clinic: its adapters" in found.notices[0]
    assert settings(profile="loose").config.lora == ("mine",)


def test_the_default_profiles_draft_brings_its_adapters_along(base: Path) -> None:
    """A profile that names no draft answers with the default profile's, which is not without them."""
    with user_file().open("a") as file:
        file.write("[profiles.quick]\nbeams = 1\n")
    user_file().write_text('default_profile = "clinic"\n' + user_file().read_text())
    for found in (settings(profile="quick"), settings().with_profile("quick", Registry.load(), "chat")):
        assert (found.config.draft, found.config.lora) == ("base", ("mine:0.5",))
    plain = settings(profile="plain")
    assert (plain.config.lora, plain.notices) == ((), [])
    assert settings(profile="quick", draft="another.gguf").left_out


def test_a_chat_tells_of_adapters_that_go_and_come(base: Path, engines: list[FakeEngine]) -> None:
    other = write_tiny(base.with_name("other.gguf"), "llama")
    lines = [f"/model {other}", "/lora", "/model base", "/lora", "a"]
    ran = run("chat", "--profile", "clinic", "--depth", "0", given="".join(f"{line}\n" for line in lines))
    assert "lora = none (was mine:0.5)" in ran.err
    assert "note: profile clinic: its adapters (mine:0.5) are for its draft base" in ran.err
    assert "lora = mine:0.5 (was none)" in ran.err
    assert "no adapter is on the draft\nmine:0.5\n" in ran.out
    assert engines[0].asked[0][1].lora == ("mine:0.5",)


def test_doctor_and_the_library_tell_too(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = examine({"profile": "clinic", "draft": "another.gguf"}, {}, verify=False, network=False)
    (warning,) = (finding for finding in found if finding.topic == "lora")
    assert (warning.level, "mine:0.5" in warning.message) == ("warning", True)
    monkeypatch.setattr("alignbeam_local.api.Engine", FakeEngine)
    with pytest.warns(UserWarning, match="its adapters"):
        alignbeam.load(draft="smollm2-135m-instruct", profile="clinic", environ={})


def test_a_training_takes_the_file_without_them(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from alignbeam_local.training import run as training

    configs: list[Config] = []

    def train(_: object, config: Config, __: object) -> Iterator[None]:
        configs.append(config)
        return iter(())

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setenv("ALIGNBEAM_LORA", "mine")
    run("train", "--method", "sft", "--base", "base", "--data", "none", "--out", str(tmp_path / "run"))
    assert [config.lora for config in configs] == [()]
