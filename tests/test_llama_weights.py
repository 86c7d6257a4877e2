"""Files as llama.cpp loads them, and their vocabularies as they are."""

from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from alignbeam_local.errors import ModelError
from alignbeam_local.llama.context import LlamaLM
from alignbeam_local.llama.library import set_fields
from alignbeam_local.llama.weights import LlamaWeights, load_vocabulary
from alignbeam_local.lm.vocabulary import Vocabulary
from alignbeam_local.models.gguf_header import makes_embeddings, require_model
from alignbeam_local.search.bridge import Bridge
from tests.llama_models import (
    BYTE_TOKENS,
    QWEN,
    SIZE,
    SMOLLM,
    WORDS,
    Opened,
    contexts_closed,
    opened,
    tiny,
    write_tiny,
)

__all__ = ["contexts_closed", "opened", "tiny"]


# --- loading


def test_more_sequences_than_llama_cpp_holds_are_refused(tiny: dict[str, Path], opened: Opened) -> None:
    with pytest.raises(ModelError, match="257 sequences are wanted") as caught:
        opened.lm(tiny["llama"], num_sequences=257)
    assert "--parallel" in caught.value.hint


def test_a_misspelt_parameter_is_no_parameter() -> None:
    params = llama_cpp.llama_context_default_params()
    assert set_fields(params, n_ctx=7).n_ctx == 7
    with pytest.raises(AssertionError, match="kv_unifed"):
        set_fields(params, kv_unifed=True)


def test_a_file_that_is_no_model_is_refused_in_llama_cpps_words(
    tiny: dict[str, Path], tmp_path: Path
) -> None:
    def hint(content: bytes) -> str:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        with pytest.raises(ModelError, match="could not load") as caught:
            LlamaWeights(path, use_extra_bufts=False)
        return caught.value.hint

    whole = tiny["llama"].read_bytes()
    assert "invalid magic" in hint(b"a text file " * 99)
    assert "corrupted or incomplete" in hint(whole[: len(whole) * 3 // 4])
    assert "failed to load model" in hint(whole[:2000])


def test_an_embedding_model_is_refused(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "embeds.gguf", "llama", pooling_type=1)
    with pytest.raises(ModelError, match="embedding model"):
        LlamaWeights(path, use_extra_bufts=False)


def test_pooling_of_type_none_makes_no_embedding_model(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "generates.gguf", "llama", pooling_type=0)
    assert not require_model(path).is_embedding
    weights = LlamaWeights(path, use_extra_bufts=False)
    lm = LlamaLM(weights, sha256="0", num_sequences=1, num_cells=64, threads=1)
    lm.extend({0: [1, 3, 4]})
    assert np.isfinite(lm.logits(0)).all()
    lm.close()
    weights.close()


@pytest.mark.parametrize("name", ["bert", "nomic-bert-moe", "eurobert", "t5encoder", "gemma-embedding"])
def test_an_encoder_makes_vectors(name: str) -> None:
    assert makes_embeddings(name, 0)
    assert makes_embeddings("llama", 3)
    assert not makes_embeddings("gemma3", 0)


def test_a_model_says_what_it_is(tiny: dict[str, Path], opened: Opened) -> None:
    opened.lm(tiny["mamba"])
    info = opened.weights[tiny["mamba"]].info
    assert (info.context_length, info.chat_template) == (2048, None)
    assert opened.weights[tiny["mamba"]].metadata("general.architecture") == "mamba"
    assert opened.weights[tiny["mamba"]].metadata("no.such.key") == ""


# --- a SentencePiece vocabulary


def test_the_space_prefix_of_llama_cpp_is_undone(tiny: dict[str, Path]) -> None:
    vocabulary, template = load_vocabulary(tiny["llama"])
    tokeniser = vocabulary._tokeniser
    assert template is None
    assert vocabulary.adds_space_prefix
    assert vocabulary.pieces(tokeniser.encode(b"ab", False)) == b" ab", "llama.cpp's own way"
    for text in ("ab", " ab", "a", "é", "\nab", "zab é", " "):
        assert vocabulary.pieces(vocabulary.encode(text)) == text.encode()
    assert len(vocabulary.encode("ab")) == 1
    assert vocabulary.encode("ab") != vocabulary.encode(" ab")


def test_byte_tokens_stand_for_their_bytes(tiny: dict[str, Path]) -> None:
    vocabulary, _ = load_vocabulary(tiny["llama"])
    assert vocabulary.encode("é") == [BYTE_TOKENS + byte for byte in "é".encode()]
    assert vocabulary.encode(b"\xc3") == [BYTE_TOKENS + 0xC3]
    bridge = Bridge(vocabulary, vocabulary, draft_turn_end=vocabulary.eos)
    bytes_alone = range(BYTE_TOKENS + 128, BYTE_TOKENS + 256)
    assert all(bridge.landing(token).tokens == (token,) for token in bytes_alone)
    words = range(SIZE - len(WORDS), SIZE)
    assert all(bridge.landing(token).tokens == (token,) for token in words)
    assert [bridge.landing(token).tokens for token in (0, 1, 2)] == [(), (), (2,)]


# --- real vocabularies


@pytest.fixture(scope="module")
def qwen() -> Vocabulary:
    return load_vocabulary(QWEN)[0]


@pytest.mark.models
def test_stray_bytes_of_qwen_land_on_themselves(qwen: Vocabulary) -> None:
    bridge = Bridge(qwen, qwen, draft_turn_end=qwen.eot)
    stray = list(qwen.byte_tokens.values())
    assert len(stray) > 1000
    assert [token for token in stray if bridge.landing(token).tokens != (token,)] == []


@pytest.mark.models
def test_long_pieces_are_whole(qwen: Vocabulary) -> None:
    long = [token for token in range(qwen.size) if len(qwen.piece(token)) > 32]
    assert len(long) > 200
    joined = [qwen.pieces(qwen.encode(qwen.piece(token))) for token in long]
    assert joined == [qwen.piece(token) for token in long]


@pytest.mark.models
def test_every_end_of_qwen_ends_a_turn_of_smollm2(qwen: Vocabulary) -> None:
    smollm, template = load_vocabulary(SMOLLM)
    assert template is not None
    end = smollm.turn_end(True)
    assert end is not None
    assert end in smollm.end_tokens
    bridge = Bridge(smollm, qwen, draft_turn_end=end)
    spelt = {qwen.text(token) for token in qwen.end_tokens}
    assert {"<|im_end|>", "<|endoftext|>"} <= spelt
    assert {bridge.landing(token).tokens for token in qwen.end_tokens} == {(end,)}
