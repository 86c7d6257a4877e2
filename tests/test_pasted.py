"""What people paste where a model is asked for: taken for what it means, or told what to write."""

from pathlib import Path

import pytest

from alignbeam_local.errors import UsageError
from alignbeam_local.models.registry import Registry

from .gguf_files import write_gguf
from .running import run

SPEC = "hf:o/r/q/x.gguf"


@pytest.mark.parametrize(
    "pasted",
    [
        "https://huggingface.co/o/r/resolve/main/q/x.gguf",
        "https://huggingface.co/o/r/resolve/main/q/x.gguf?download=true",
        "https://huggingface.co/o/r/blob/main/q/x.gguf#top",
        "http://HuggingFace.co/o/r/raw/main/q/x.gguf",
        "https://hf.co/o/r/resolve/main/q%2Fx.gguf",
        " https://huggingface.co/o/r/resolve/main/q/x.gguf ",
        "huggingface.co/o/r/blob/main/q/x.gguf",
        "hf.co/o/r/q/x.gguf",
        "hf://o/r/q/x.gguf",
        "hf:https://huggingface.co/o/r/resolve/main/q/x.gguf",
        "https://mirror.example:8080/o/r/resolve/main/q/x.gguf",
    ],
)
def test_an_address_of_a_file_of_the_hub_is_that_file(pasted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example:8080")
    registry = Registry.load()
    assert registry.resolve(pasted) == registry.resolve(SPEC)
    assert registry.lasting(pasted) == SPEC


@pytest.mark.parametrize(
    ("pasted", "said"),
    [
        ("https://huggingface.co/o/r", "hf:o/r/FILE.gguf"),
        ("https://huggingface.co/o/r/tree/main", "hf:o/r/FILE.gguf"),
        ("hf.co/o/r:Q4_K_M", "hf:o/r/FILE.gguf"),
        ("https://huggingface.co/o/r/blob/main/README.md", "hf:o/r/FILE.gguf"),
        ("https://huggingface.co/o/r/resolve/abc123/x.gguf", "models import"),
        ("https://huggingface.co/datasets/o/r/resolve/main/x.gguf", "hf:owner/repo/file.gguf"),
        ("https://huggingface.co", "hf:owner/repo/file.gguf"),
        ("https://example.org/x.gguf", "models import"),
        ("ftp://example.org/x.gguf", "Download it first"),
        ("o/r", "hf:o/r/FILE.gguf"),
        ("o/r:Q4_K_M", "hf:o/r/FILE.gguf"),
        ("o/r/x.gguf", "write hf:o/r/x.gguf"),
        ("smollm2-135m-instruct.gguf", "Did you mean the model smollm2-135m-instruct?"),
        ("starter", "Give --profile starter."),
    ],
)
def test_what_is_no_file_is_told_what_to_write(pasted: str, said: str) -> None:
    for args in (("models", "pull", pasted), ("models", "path", pasted), ("ask", "x", "--draft", pasted)):
        ran = run(*args)
        assert ran.code in (2, 3)
        assert said in ran.err.partition("\nhint: ")[2], ran.err
        assert ":/e" not in ran.err.replace("://", ""), "an address stays whole"


def test_a_file_that_is_there_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for spec in ("hf.co/x.gguf", "o/r/x.gguf"):
        Path(spec).parent.mkdir(parents=True)
        write_gguf(Path(spec))
        assert Registry.load().require(spec).path == Path(spec)


def test_a_file_address_is_the_file(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a b.gguf")
    assert Registry.load().require(f"file://{tmp_path}/a%20b.gguf").path == path
    assert run("models", "import", f"file://{tmp_path}/a%20b.gguf").code == 0


def test_an_address_is_no_file_to_import() -> None:
    ran = run("models", "import", "https://huggingface.co/o/r/resolve/main/x.gguf")
    assert (ran.code, ran.out) == (2, "")
    assert "is an address, not a file\nhint: Download it first" in ran.err


def test_an_address_that_is_damaged_is_a_message() -> None:
    for pasted in ("https://[huggingface.co/o/r", "hf://", "https://", "://", "hf.co/"):
        with pytest.raises(UsageError):
            Registry.load().resolve(pasted)
