"""Variables that lead a request to the hub astray are named in the error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignbeam_local.doctor.machine_checks import hub
from alignbeam_local.errors import AlignBeamError, UsageError
from alignbeam_local.evaluation.suites.hub import hub_fetch
from alignbeam_local.evaluation.suites.suites import HubFile
from alignbeam_local.models.hub_client import endpoint, network_hint

from .running import run

FILE = HubFile(repo="owner/name", file="a.csv")

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HF_") or name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_an_empty_endpoint_is_none(empty: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if empty is not None:
        monkeypatch.setenv("HF_ENDPOINT", empty)
    assert endpoint() == "https://huggingface.co"


@pytest.mark.parametrize(
    "address", ["mirror.example", "ftp://mirror.example", "https://", "http://[", "http://a:b"]
)
def test_an_endpoint_that_is_no_address_is_named_wherever_the_hub_is_asked(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    ran = run("models", "pull", "hf:o/r/x.gguf")
    assert ran.code == 3
    assert f"HF_ENDPOINT is not an http address: {address}\nhint: Write https://HOST, or unset it." in ran.err
    assert hub().message == f"HF_ENDPOINT is not an http address: {address}"
    with pytest.raises(UsageError, match="HF_ENDPOINT is not an http address"):
        hub_fetch(offline=False)(FILE)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_is_set_is_named_but_not_shown(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.setenv(variable, "nonsense://user:secret@nowhere")
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies that it was made with
    ran = run("models", "pull", "hf:o/r/x.gguf")
    assert ran.code == 3
    assert variable in ran.err.partition("\nhint: ")[2]
    assert "HF_ENDPOINT" in hub().hint
    assert "secret" not in network_hint()


def test_a_suite_that_cannot_be_fetched_names_the_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = FILE
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the library's own attempts
    with pytest.raises(AlignBeamError) as caught:
        hub_fetch(offline=False)(file)
    assert "HF_ENDPOINT" in caught.value.hint
    assert "--offline" not in caught.value.hint


def test_a_suite_without_a_place_to_keep_it_names_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    file = FILE
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "~nouser/hub")
    with pytest.raises(UsageError, match="no home directory ~nouser"):
        hub_fetch(offline=False)(file)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/far/away")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/far/away")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)
    with pytest.raises(AlignBeamError) as caught:
        hub_fetch(offline=False)(file)
    assert "fetched files are kept in /far/away" in caught.value.hint


def test_a_variable_that_the_library_cannot_read_is_a_message() -> None:
    """It is read when the library is imported: in a process of its own."""
    code = "import sys; from alignbeam_local.cli import main; sys.exit(main.main(sys.argv[1:]))"
    ran = subprocess.run(
        [sys.executable, "-c", code, "models", "pull", "hf:o/r/x.gguf"],
        env={**os.environ, "HF_HUB_DOWNLOAD_TIMEOUT": "soon"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 3
    assert "a variable of huggingface_hub is not valid" in ran.stderr
    assert "HF_HUB_DOWNLOAD_TIMEOUT" in ran.stderr
    assert "internal" not in ran.stderr
