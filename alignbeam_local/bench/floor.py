"""The floor under the times: weights that must come from memory for every decode, and no arithmetic."""

from pathlib import Path
from typing import NamedTuple

from ..models.gguf_header import require_model
from ..models.gguf_reader import Tensor, read_contents, stored_bytes

_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
#: What the names of tensors hold that lie side by side for all experts of a layer.
_EXPERTS = "_exps."


def bytes_per_decode(path: Path, layer: int | None = None) -> int:
    """The bytes of a model's weights that every batch reads, however many tokens it has.

    With a `layer` the batch ends behind it.

    Of a table of embeddings a batch reads a few rows, unless the same tensor makes the logits. Of a model of
    experts it reads the chosen ones: there this is too much. A model in several files counts whole.

    Raises:
        ModelError: the file can't be read.
    """
    header = require_model(path)
    if header.split_count > 1:
        return header.bytes
    tensors = read_contents(path).tensors
    if layer is not None:
        blocks = tuple(f"blk.{block}." for block in range(layer + 1))
        tensors = [tensor for tensor in tensors if tensor.name.startswith(blocks)]
    return weights_of(tensors).bytes


class Weights(NamedTuple):
    """What a batch of one row reads, and computes with; of the part that makes logits both separately.

    `bytes` is all of it; a batch multiplies each of its rows with `body` weights, and those whose logits are
    wanted with `head` weights besides.
    """

    bytes: int
    body: int
    head: int


def weights_of(tensors: list[Tensor], share_of_experts: float = 1.0) -> Weights:
    """What a batch reads of these tensors.

    Args:
        share_of_experts: how many of a layer's experts a token goes through, of all that there are.
    """
    sizes = dict(zip((tensor.name for tensor in tensors), stored_bytes(tensors), strict=True))
    counts = {tensor.name: tensor.elements for tensor in tensors}
    head = _OUTPUT if _OUTPUT in counts else _EMBEDDING
    unread = {_EMBEDDING} - {head}
    share = {name: share_of_experts if _EXPERTS in name else 1.0 for name in counts if name not in unread}
    body = sum(count * share[name] for name, count in counts.items() if name not in (head, *unread))
    read = sum(sizes[name] * part for name, part in share.items())
    return Weights(round(read), round(body), counts.get(head, 0))
