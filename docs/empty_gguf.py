"""Writes a GGUF file of a model's shape without its weights, to plan with: a sparse file that takes no room.

python docs/empty_gguf.py llama-70b 70b.gguf

`alignbeam plan` reads headers alone, so it plans with such a file as with the model. It is for where the hub
can't be reached; else `alignbeam plan --draft hf:owner/repo/file.gguf` reads the header of the real one.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType


class Shape(NamedTuple):
    """The sizes of a Llama 3 model, as its authors give them."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    is_tied: bool  # the embedding makes the logits too


SHAPES = {
    "llama-70b": Shape(8192, 28672, 80, 64, 8, False),
    "llama-8b": Shape(4096, 14336, 32, 32, 8, False),
    "llama-3b": Shape(3072, 8192, 28, 24, 8, True),
}
VOCABULARY, HEAD = 128_256, 128
Q4, Q5, Q6, F32 = (GGMLQuantizationType[name] for name in ("Q4_K", "Q5_K", "Q6_K", "F32"))
Tensor = tuple[str, tuple[int, ...], GGMLQuantizationType]


def tensors(shape: Shape) -> Iterator[Tensor]:
    """As llama.cpp quantises to Q4_K_M: values and the way down have more bits in a part of the layers."""
    yield "token_embd.weight", (VOCABULARY, shape.width), Q6 if shape.is_tied else Q4
    if not shape.is_tied:
        yield "output.weight", (VOCABULARY, shape.width), Q6
    yield "output_norm.weight", (shape.width,), F32
    narrow = HEAD * shape.kv_heads
    for layer in range(shape.layers):
        eighth = shape.layers // 8
        has_more = layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2
        value = Q6 if has_more else Q5 if shape.layers == 80 else Q4
        for name, rows, columns, kind in (
            ("attn_q", HEAD * shape.heads, shape.width, Q4),
            ("attn_k", narrow, shape.width, Q4),
            ("attn_v", narrow, shape.width, value),
            ("attn_output", shape.width, HEAD * shape.heads, Q4),
            ("ffn_gate", shape.inner, shape.width, Q4),
            ("ffn_up", shape.inner, shape.width, Q4),
            ("ffn_down", shape.width, shape.inner, Q6 if has_more else Q4),
        ):
            yield f"blk.{layer}.{name}.weight", (rows, columns), kind
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", (shape.width,), F32


def write(shape: Shape, path: Path) -> None:
    """The header, and room for the weights that no disk holds."""
    writer: Any = gguf.GGUFWriter(path, "llama")
    writer.add_name("empty")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_context_length(131_072)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.inner)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{number}" for number in range(VOCABULARY)])
    size = 0
    for name, dimensions, kind in tensors(shape):
        values, stored = GGML_QUANT_SIZES[kind]
        count = int(np.prod(dimensions)) // values * stored
        writer.add_tensor_info(name, dimensions, np.dtype(np.float32), count, raw_dtype=kind)
        size += -(-count // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 32 + size)


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit(f"python docs/empty_gguf.py {'|'.join(SHAPES)} FILE.gguf")
    write(SHAPES[sys.argv[1]], Path(sys.argv[2]))


if __name__ == "__main__":
    main()
