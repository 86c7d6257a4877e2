import struct
from pathlib import Path

import pytest

from alignbeam_local.errors import ModelError
from alignbeam_local.gguf_header import SpecialToken, check_file, read_header
from tests.gguf_files import write_gguf


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", tokenizer__chat_template="{{ messages }}")


def test_header_says_what_was_written(tiny: Path) -> None:
    header = read_header(tiny)
    assert (header.architecture, header.name, header.type) == ("llama", "Tiny", "model")
    assert (header.context_length, header.embedding_length, header.block_count) == (128, 32, 2)
    assert (header.tokenizer, header.tokenizer_pre, header.vocabulary_size) == ("gpt2", "qwen2", 4)
    assert header.chat_template == "{{ messages }}"
    assert (header.bos, header.eos, header.eot) == (SpecialToken(0, "<s>"), SpecialToken(1, "</s>"), None)
    assert header.add_bos is False
    assert header.quantisation == "Q4_K_M"
    assert header.parameters == 4 * 32 + 3 * 32
    assert header.bytes == tiny.stat().st_size
    assert header.split_count == 1
    assert not header.is_embedding


def test_no_template_is_none(tmp_path: Path) -> None:
    assert read_header(write_gguf(tmp_path / "base.gguf")).chat_template is None


def test_an_encoder_is_an_embedding_model(tmp_path: Path) -> None:
    assert read_header(write_gguf(tmp_path / "bert.gguf", architecture="nomic-bert")).is_embedding


@pytest.mark.parametrize("look", [check_file, read_header])
def test_wrong_magic(tmp_path: Path, look: object) -> None:
    page = tmp_path / "page.gguf"
    page.write_text("<html>not found</html>")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        look(page)  # type: ignore[operator]


@pytest.mark.parametrize("look", [check_file, read_header])
def test_missing_directory_and_empty(tmp_path: Path, look: object) -> None:
    with pytest.raises(ModelError, match="no such file"):
        look(tmp_path / "none.gguf")  # type: ignore[operator]
    with pytest.raises(ModelError, match="is a directory"):
        look(tmp_path)  # type: ignore[operator]
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(ModelError, match="is not a GGUF file"):
        look(tmp_path / "empty.gguf")  # type: ignore[operator]


def test_truncated_in_the_tensors(tiny: Path) -> None:
    whole = tiny.read_bytes()
    tiny.write_bytes(whole[:-64])
    check_file(tiny)
    with pytest.raises(ModelError, match=rf"truncated: {len(whole) - 64} bytes of \d+") as caught:
        read_header(tiny)
    assert "again" in caught.value.hint


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.3, 0.4, 0.5])
def test_truncated_anywhere_is_a_model_error(tiny: Path, share: float) -> None:
    tiny.write_bytes(tiny.read_bytes()[: int(tiny.stat().st_size * share)])
    with pytest.raises(ModelError):
        read_header(tiny)


def test_absurd_counts_and_versions(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1 << 60, 1 << 60))
    with pytest.raises(ModelError, match="breaks off"):
        read_header(path)
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 1 << 62) + b"x" * 50)
    with pytest.raises(ModelError, match="breaks off"):
        read_header(path)
    path.write_bytes(struct.pack(">4sIQQ", b"GGUF", 3, 0, 0))
    with pytest.raises(ModelError, match="GGUF version"):
        check_file(path)


def test_unreadable(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelError, match="cannot read"):
        check_file(tiny)
