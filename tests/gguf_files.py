"""Small GGUF files made in the test."""

from pathlib import Path

import gguf
import numpy as np


def write_gguf(
    path: Path,
    architecture: str = "llama",
    pieces: tuple[str, ...] = ("<s>", "</s>", "a", "é"),
    split_count: int = 1,
    **strings: str,
) -> Path:
    """A file with a vocabulary, one quantised and one plain tensor."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    if "tokenizer__ggml__model" not in strings:
        writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    if pieces:
        writer.add_token_list(list(pieces))
        writer.add_token_scores([0.0] * len(pieces))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    writer.add_uint16("split.count", split_count)
    for key, value in strings.items():
        writer.add_string(key.replace("__", "."), value)
    writer.add_tensor("a", np.ones((4, 32), dtype=np.float32))
    writer.add_tensor("b", np.zeros((3, 34), dtype=np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
