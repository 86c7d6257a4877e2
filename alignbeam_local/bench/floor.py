"""The floor under the times: weights that must come from memory for every decode, and no arithmetic."""

from pathlib import Path

from ..models.gguf_header import require_model

_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"


def bytes_per_decode(path: Path) -> int:
    """The bytes of a model's weights that every batch reads, however many tokens it has.

    Of a table of embeddings a batch reads a few rows, unless the same tensor makes the logits. Of a model of
    experts it reads the chosen ones: there this is too much. A model in several files counts whole.

    Raises:
        ModelError: the file can't be read.
    """
    header = require_model(path)
    if header.split_count > 1:
        return header.bytes
    from gguf import GGUFReader

    sizes = {tensor.name: int(tensor.n_bytes) for tensor in GGUFReader(path).tensors}
    unread = sizes.get(_EMBEDDING, 0) if _OUTPUT in sizes else 0
    return sum(sizes.values()) - unread
