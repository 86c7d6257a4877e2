"""Adapters of a server's draft: in its list of models, beside the file's hash, in its fingerprint."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from alignbeam_local.config import Config
from alignbeam_local.engine.scheduler import Asked
from alignbeam_local.evaluation.suites.suites import Item
from alignbeam_local.evaluation.workers.server_client import ServerClient
from alignbeam_local.evaluation.workers.server_work import ServerPayload, made
from alignbeam_local.models.hashes import file_sha256
from alignbeam_local.models.registry import Registry
from alignbeam_local.models.toml_files import user_file
from alignbeam_local.paths import write_atomic
from alignbeam_local.result import AdapterCard, ModelCard
from alignbeam_local.server.page.saved_answer import saved_answer
from alignbeam_local.server.protocol.completion import fingerprint, own_object
from alignbeam_local.server.protocol.record import Record
from alignbeam_local.server.served import ServedModel, as_served, served_models
from alignbeam_local.server.work.jobs import Job
from alignbeam_local.settings import resolve

from .adapters import halves, write_adapter
from .llama_models import write_tiny
from .test_why import result

CARD = ModelCard("base", "/home/someone/base.gguf", "ab" * 32, "F32")
ADAPTED = replace(CARD, adapters=(AdapterCard("mine", "/home/someone/mine.gguf", "cd" * 32, 0.5),))
SHOWN = [{"name": "mine", "sha256": "cd" * 32, "scale": 0.5}]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "mine.gguf")


@pytest.fixture
def profiles(tmp_path: Path, mine: Path) -> None:
    base = write_tiny(tmp_path / "base.gguf", "llama")
    models = f'draft = "{base}"\nanchor = "{base}"\njudge = "{base}"\n'
    clinic = f'[profiles.clinic]\n{models}lora = ["{mine}:0.5"]\n'
    write_atomic(user_file(), f"{clinic}[profiles.plain]\n{models}")


def served(profile: str, **flags: object) -> list[ServedModel]:
    registry = Registry.load()
    config = as_served(resolve({"profile": profile, **flags}, registry, {}).config)
    return list(served_models([config], registry).values())


def mark(model: ServedModel) -> str:
    return fingerprint(model.config.model_dump(), model.marks)


@pytest.mark.usefixtures("profiles")
def test_the_list_of_models_names_them(mine: Path) -> None:
    pair, anchor = served("clinic")
    assert pair.as_object["alignbeam"]["adapters"] == [
        {"name": "mine", "sha256": file_sha256(mine), "scale": 0.5}
    ]
    assert anchor.as_object["alignbeam"]["adapters"] == []
    assert served("plain")[0].as_object["alignbeam"]["adapters"] == []


@pytest.mark.usefixtures("profiles")
def test_a_profile_with_other_adapters_has_not_its_name() -> None:
    assert (served("clinic")[0].id, served("plain")[0].id) == ("clinic", "plain")
    assert served("clinic", lora="none")[0].id == "base+base"


@pytest.mark.usefixtures("profiles")
def test_the_fingerprint_changes_with_what_is_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNBEAM_DATA_DIR", str(tmp_path / "data"))
    before = mark(served("plain")[0])
    sha256 = file_sha256(tmp_path / "base.gguf")
    write_atomic(tmp_path / "data" / "judges" / "calibrated.json", sha256)
    assert mark(served("plain")[0]) != before


@pytest.mark.usefixtures("profiles")
def test_the_fingerprint_changes_with_their_bytes(mine: Path) -> None:
    before = mark(served("clinic")[0])
    assert mark(served("clinic")[0]) == before
    write_adapter(mine, halves(seed=1))
    assert mark(served("clinic")[0]) != before


def test_an_answer_has_the_files_own_hash_and_the_adapters_beside_it() -> None:
    job = Job(Asked((), Config(), False), lambda *_: None)
    record = Record(job)
    record.result = replace(result(), models={"draft": ADAPTED, "anchor": CARD, "judge": None})
    models = own_object(record, (), shows_all=False)["models"]
    assert models["draft"] == {"name": "base", "sha256": "ab" * 32, "adapters": SHOWN}
    assert models["anchor"] == {"name": "base", "sha256": "ab" * 32, "adapters": []}


def test_a_kept_answer_has_them_without_their_paths() -> None:
    answer = replace(result(), models={"draft": ADAPTED, "anchor": CARD, "judge": None})
    saved = saved_answer("hi", answer, ())
    assert saved["models"]["draft"]["adapters"] == SHOWN
    assert "someone" not in str(saved["models"])


def test_a_run_on_servers_has_them_in_its_results() -> None:
    """As it has of its own: the same file, hash and adapters; where they lie is the server's own."""
    shown = {"name": "base", "sha256": "ab" * 32, "adapters": SHOWN}
    own: dict[str, Any] = {
        "beams": [],
        "outcome": "answered",
        "by": None,
        "covered_mass": 0.0,
        "timings": {},
        "notices": [],
    }
    own |= {"batched_with": 0, "models": {"draft": shown}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    answer = {"alignbeam": own, "text": "hi", "finish": "stop", "usage": usage, "system_fingerprint": "ab"}
    client = cast(ServerClient, SimpleNamespace(ask=lambda _: answer, url=""))
    (found,) = made(client, ServerPayload("m", Item("s", "1", "hi", "benign"), 1, {}, 1, "given"))
    draft = found["result"]["models"]["draft"]
    assert draft["sha256"] == "ab" * 32
    assert draft["adapters"] == [{**SHOWN[0], "path": ""}]
