"""Tiny random models of transformers, and the same as GGUF files that llama.cpp loads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from tests.llama_models import SIZE, WORDS

Weights = dict[str, npt.NDArray[np.float32]]

WIDTH, INNER, HEADS, KV_HEADS, HEAD, LAYERS = 32, 64, 4, 2, 8, 2
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_GEMMA_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def tiny_model(architecture: str, seed: int = 0) -> Any:
    """A random model of transformers, in fp32; large weights, so that what is wrong shows."""
    import torch
    import transformers

    config = {
        "llama": transformers.LlamaConfig,
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
        "gemma3": transformers.Gemma3TextConfig,
    }[architecture](
        vocab_size=SIZE,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD,
        rms_norm_eps=1e-5,
        max_position_embeddings=512,
        tie_word_embeddings=architecture == "gemma3",
        **({"query_pre_attn_scalar": HEAD, "sliding_window": 512} if architecture == "gemma3" else {}),
    )
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, 0, 0.3)
    return model.requires_grad_(False)


def write_model(path: Path, model: Any, architecture: str, template: str | None = None) -> Path:
    """The model as a GGUF file in full precision, with the vocabulary of the other tiny models."""
    writer = gguf.GGUFWriter(path, architecture)
    _write_header(writer, template)
    if architecture == "gemma3":
        writer.add_sliding_window(512)
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    for name, value in _tensors(weights, architecture):
        writer.add_tensor(name, np.ascontiguousarray(value, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_header(writer: Any, template: str | None) -> None:
    writer.add_name("tiny")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS])
    writer.add_token_scores([0.0] * (SIZE - len(WORDS)) + [-float(n) for n in range(len(WORDS), 0, -1)])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(WORDS))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_vocab_size(SIZE)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    if template:
        writer.add_chat_template(template)


def _tensors(weights: Weights, architecture: str) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    names = _NAMES | (_GEMMA_NAMES if architecture == "gemma3" else {})
    plus = 1 if architecture == "gemma3" else 0
    for name, value in weights.items():
        parts = name.removeprefix("model.").split(".")
        if parts[0] == "lm_head":
            if architecture != "gemma3":
                yield "output.weight", value
        elif parts[0] in ("embed_tokens", "norm"):
            own = "token_embd" if parts[0] == "embed_tokens" else "output_norm"
            yield f"{own}.weight", value + plus * (own == "output_norm")
        else:
            block = ".".join(parts[2:-1])
            heads = {"self_attn.q_proj": HEADS, "self_attn.k_proj": KV_HEADS}.get(block, 0)
            placed = permuted(value, heads) if architecture == "llama" and heads else value
            yield f"blk.{parts[1]}.{names[block]}.{parts[-1]}", placed + plus * ("norm" in block)


def permuted(matrix: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows in the order that llama.cpp's rotary embedding wants of a llama: halves of a head interleaved."""
    half = matrix.shape[0] // heads // 2
    rows = [
        head * 2 * half + side * half + i for head in range(heads) for i in range(half) for side in (0, 1)
    ]
    return matrix[rows]
