"""Headers of files that are whole, and a ModelError for every one that is not."""

import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignbeam_local.errors import ModelError
from alignbeam_local.models import gguf_reader
from alignbeam_local.models.gguf_header import (
    SpecialToken,
    parts_of,
    read_header,
    require_model,
    require_vocabulary,
)
from tests.gguf_files import write_gguf
from tests.llama_models import write_tiny

FIXED = struct.Struct("<4sIQQ")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", tokenizer__chat_template="{{ messages }}")


def test_header_says_what_was_written(tiny: Path) -> None:
    header = require_model(tiny)
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


def test_the_gguf_library_reads_the_same(tiny: Path) -> None:
    ours, theirs = gguf_reader.read_contents(tiny), gguf.GGUFReader(tiny)
    plain = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert set(ours.fields) == set(plain)
    for name, value in plain.items():
        if isinstance(value, list):
            assert list(ours.fields[name]) == value
        else:
            assert ours.fields[name] == value
    assert list(ours.fields["tokenizer.ggml.tokens"]) == plain["tokenizer.ggml.tokens"]
    assert [tensor.type for tensor in ours.tensors] == [tensor.tensor_type for tensor in theirs.tensors]
    assert [tensor.elements for tensor in ours.tensors] == [tensor.n_elements for tensor in theirs.tensors]


def test_no_template_is_none(tmp_path: Path) -> None:
    assert read_header(write_gguf(tmp_path / "base.gguf")).chat_template is None


# --- what is no file of weights


def _directory(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (_directory, "is a directory"),
        (os.mkfifo, "a pipe, a socket or a device"),
        (_socket, "cannot read .*: No such device"),
        (_device, "a pipe, a socket or a device"),
        (_loop, "cannot read .*: Too many levels of symbolic links"),
        (_dangling, "no such file"),
        (Path.touch, "is empty"),
        (lambda path: path.write_text("<html>not found</html>"), "is not a GGUF file"),
    ],
    ids=["missing", "directory", "fifo", "socket", "device", "loop", "dangling", "empty", "page"],
)
def test_what_is_no_file_of_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    path = Path("model.gguf")
    make(path)
    with pytest.raises(ModelError, match=message) as caught:
        read_header(path)
    assert caught.value.hint
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("path", "message"), [("a\0b", "null"), ("x" * 300, "name too long")])
def test_what_is_no_path(path: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_header(Path(path))


def test_unreadable(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ModelError, match="cannot read") as caught:
        read_header(tiny)
    assert "permissions" in caught.value.hint


# --- what breaks the format


def test_truncated_anywhere_is_a_model_error(tiny: Path) -> None:
    whole, padding = tiny.read_bytes(), 32 - 3 * 34 % 32
    for length in range(len(whole) - padding - 1, -1, -1):
        os.truncate(tiny, length)
        with pytest.raises(ModelError) as caught:
            read_header(tiny)
        assert caught.value.hint
    for length, message in (
        (0, "is empty"),
        (3, "not a GGUF"),
        (20, "cut off"),
        (len(whole) - 70, "truncated"),
    ):
        tiny.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=message):
            read_header(tiny)


def test_a_file_that_shrinks_while_it_is_read(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = tiny.stat().st_size
    real = os.fstat

    def stale(descriptor: int) -> os.stat_result:
        return os.stat_result([*real(descriptor)[:6], size + 9999, *real(descriptor)[7:]])

    monkeypatch.setattr(os, "fstat", stale)
    os.truncate(tiny, 200)
    with pytest.raises(ModelError, match="became shorter"):
        read_header(tiny)


def field(name: str, kind: int, raw: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + raw


def tensor(dimensions: list[int], kind: int, offset: int) -> bytes:
    return (
        struct.pack("<Q", 1)
        + b"t"
        + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        + struct.pack("<IQ", kind, offset)
    )


U32, TEXT, ARRAY = 4, 8, 9
HUGE = (1 << 64) - 1


@pytest.mark.parametrize(
    ("fields", "tensors", "message"),
    [
        (1 << 60, 0, "claims to have"),
        (0, 1 << 60, "claims to have"),
        ([struct.pack("<Q", 1 << 62) + b"x" * 50], [], "breaks off"),
        ([field("x", TEXT, struct.pack("<Q", HUGE))], [], "breaks off"),
        ([field("x", ARRAY, struct.pack("<IQ", U32, HUGE))], [], "breaks off"),
        ([field("x", ARRAY, struct.pack("<IQ", TEXT, HUGE))], [], "breaks off"),
        ([field("x", ARRAY, struct.pack("<IQQ", TEXT, 1, HUGE))], [], "breaks off"),
        ([field("x", ARRAY, struct.pack("<IQ", ARRAY, 1) * 4000)], [], r"unknown kind \(9\)"),
        ([field("x", 77, b"1234")], [], r"unknown kind \(77\)"),
        ([field("x", U32, b"1234")] * 2, [], "field 'x' twice"),
        ([field("general.alignment", U32, struct.pack("<I", 0))], [], "not a power of two"),
        ([field("general.alignment", U32, struct.pack("<I", 33))], [], "not a power of two"),
        ([field("general.alignment", TEXT, struct.pack("<Q", 1) + b"8")], [], "not a power of two"),
        ([], [tensor([1] * 5, 0, 0)], "5 dimensions"),
        ([], [tensor([4], 99, 0)], r"unknown type \(99\)"),
        ([], [tensor([4], 0, 7)], "is not aligned"),
        ([], [tensor([4], 0, 1 << 62)], "truncated"),
        ([], [tensor([HUGE] * 4, 0, 0)], "truncated"),
    ],
)
def test_what_breaks_the_format(tmp_path: Path, fields: Any, tensors: Any, message: str) -> None:
    path = tmp_path / "odd.gguf"
    counts = [len(x) if isinstance(x, list) else x for x in (tensors, fields)]
    body = b"".join(part for x in (fields, tensors) if isinstance(x, list) for part in x)
    path.write_bytes(FIXED.pack(b"GGUF", 3, *counts) + body + bytes(64))
    started = time.process_time()
    with pytest.raises(ModelError, match=message) as caught:
        read_header(path)
    assert caught.value.hint
    assert time.process_time() - started < 1


@pytest.mark.parametrize("version", [0, 1, 4, 3 << 24])
def test_other_versions_and_byte_orders(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.gguf"
    path.write_bytes(FIXED.pack(b"GGUF", version, 0, 0))
    with pytest.raises(ModelError, match="GGUF version"):
        read_header(path)


def test_metadata_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_reader, "MAX_METADATA", 1000)
    path = tmp_path / "wide.gguf"
    path.write_bytes(FIXED.pack(b"GGUF", 3, 0, 1) + field("x", TEXT, struct.pack("<Q", 2000) + bytes(2000)))
    with pytest.raises(ModelError, match="MiB of metadata"):
        read_header(path)


def test_fields_of_another_kind_are_as_good_as_absent(tmp_path: Path) -> None:
    kinds = dict.fromkeys(("general.name", "llama.context_length", "split.count", "general.file_type"), U32)
    values = [field(name, kind, struct.pack("<I", HUGE % (1 << 32))) for name, kind in kinds.items()]
    wrong = [
        field("general.architecture", ARRAY, struct.pack("<IQ", U32, 0)),
        field("tokenizer.ggml.tokens", TEXT, struct.pack("<Q", 4) + b"text"),
        field("tokenizer.ggml.eos_token_id", 5, struct.pack("<i", -1)),
        field("tokenizer.chat_template", U32, b"1234"),
    ]
    path = tmp_path / "odd.gguf"
    path.write_bytes(FIXED.pack(b"GGUF", 3, 0, len(values + wrong)) + b"".join(values + wrong))
    header = read_header(path)
    assert (header.name, header.architecture, header.vocabulary_size) == ("", "", 0)
    assert (header.eos, header.chat_template) == (None, None)


# --- what is whole, and yet no model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "nomic-bert"}, "embedding model"),
        ({"general__type": "adapter"}, "a LoRA adapter"),
        ({"general__type": "mmproj"}, "projector"),
        ({"pieces": ()}, "no tokeniser"),
        ({"tokenizer__ggml__model": "none"}, "no tokeniser"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, options: Any, message: str) -> None:
    path = write_gguf(tmp_path / "other.gguf", **options)
    read_header(path)
    with pytest.raises(ModelError, match=message) as caught:
        require_model(path)
    assert caught.value.hint


def test_a_vocabulary_alone_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert require_vocabulary(path).vocabulary_size == 2
    with pytest.raises(ModelError, match="no weights"):
        require_model(path)


def write_part(folder: Path, number: int, count: int) -> Path:
    return write_gguf(folder / f"model-{number:05}-of-{count:05}.gguf", split_count=count)


def test_a_split_model_needs_all_its_parts(tmp_path: Path) -> None:
    first, second, third = (write_part(tmp_path, number, 3) for number in (1, 2, 3))
    assert require_model(first).bytes == sum(part.stat().st_size for part in (first, second, third))
    with pytest.raises(ModelError, match="not the first"):
        require_model(second)
    whole = third.read_bytes()
    third.write_bytes(whole[:-64])
    with pytest.raises(ModelError, match=r"00003-of-00003\.gguf is truncated"):
        require_model(first)
    third.unlink()
    with pytest.raises(ModelError, match=r"missing: .*00003-of-00003"):
        require_model(first)
    renamed = first.rename(tmp_path / "model.gguf")
    with pytest.raises(ModelError, match="not the first"):
        require_model(renamed)


def test_the_first_part_may_hold_no_tensors(tmp_path: Path) -> None:
    whole = require_model(write_tiny(tmp_path / "whole.gguf", "llama"))
    first = write_tiny(tmp_path / "split.gguf", "llama", part_tensors=6)
    assert read_header(first).parameters == 0
    assert require_model(first).parameters == whole.parameters > 0


def test_a_models_parts(tmp_path: Path) -> None:
    parts = [write_part(tmp_path, number, 3) for number in (1, 2, 3)]
    assert parts_of(parts[0]) == parts
    alone = write_gguf(tmp_path / "named-00001-of-00002.gguf")
    assert parts_of(alone) == [alone]


# --- fuzzing

#: A busy machine is slow for reasons of its own.
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

mutations = st.lists(
    st.tuples(
        st.sampled_from(["byte", "word", "cut", "drop", "insert"]),
        st.integers(0, 1 << 16),
        st.one_of(st.integers(0, HUGE), st.sampled_from([0, 1, 1 << 31, 1 << 32, 1 << 63, HUGE])),
    ),
    min_size=1,
    max_size=6,
)


def mutated(whole: bytes, steps: list[tuple[str, int, int]]) -> bytes:
    data = bytearray(whole)
    for how, place, value in steps:
        at, raw = place % (len(data) + 1), struct.pack("<Q", value)
        match how:
            case "byte":
                data[at : at + 1] = raw[:1]
            case "word":
                data[at : at + 8] = raw
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + value % 40]
            case "insert":
                data[at:at] = raw * (value % 9)
    return bytes(data)


def read_or_refused(path: Path) -> None:
    """Whatever else is raised fails the test."""
    with suppress(ModelError):
        require_model(path)


@settings(max_examples=500, suppress_health_check=SLOW)
@given(steps=mutations)
def test_mutated_files_are_read_or_refused(tiny: Path, steps: list[tuple[str, int, int]]) -> None:
    whole = tiny.with_suffix(".whole")
    if not whole.exists():
        whole.write_bytes(tiny.read_bytes())
    tiny.write_bytes(mutated(whole.read_bytes(), steps))
    read_or_refused(tiny)


@settings(max_examples=300, suppress_health_check=SLOW)
@given(counts=st.tuples(st.integers(0, 9), st.integers(0, 9)), body=st.binary(max_size=400))
def test_bytes_behind_a_valid_start_are_read_or_refused(
    tmp_path: Path, counts: tuple[int, int], body: bytes
) -> None:
    path = tmp_path / "random.gguf"
    path.write_bytes(FIXED.pack(b"GGUF", 3, *counts) + body)
    read_or_refused(path)
