"""A model of transformers, cut below the first layer that is trained."""

from collections.abc import Sequence
from typing import Any

import torch


class Trunk:
    """The layers below the cut run once for each sample, those above it in every step.

    Left out are layers by putting an empty one in their place: models choose masks by a layer's number.
    """

    def __init__(self, model: Any, num_trained: int) -> None:
        """`num_trained` of the last layers are above the cut; 0: all."""
        self._decoder = model.get_decoder()
        self._layers = list(self._decoder.layers)
        self._norm = self._decoder.norm
        self._head = model.get_output_embeddings()
        self._cap = getattr(model.config, "final_logit_softcapping", None)
        count = len(self._layers)
        self.first = max(count - num_trained, 0) if num_trained else 0

    @property
    def trained_layers(self) -> dict[int, Any]:
        """The layers above the cut, by number."""
        return {n: layer for n, layer in enumerate(self._layers) if n >= self.first}

    @property
    def width(self) -> int:
        return int(self._head.weight.shape[1])

    def below(self, ids: Sequence[int]) -> Any:
        """(L, width): what enters the first trained layer."""
        self._keep(range(self.first), torch.nn.Identity())
        with torch.no_grad():
            return self._decoder(torch.tensor([ids]), use_cache=False).last_hidden_state[0]

    def above(self, states: Any, mask: Any) -> Any:
        """(B, L, width) behind the final norm, from what enters the first trained layer.

        Args:
            states: (B, L, width), padded at the end.
            mask: (B, L), 1 where a token is.
        """
        self._keep(range(self.first, len(self._layers)), self._norm)
        out = self._decoder(inputs_embeds=states, attention_mask=mask, use_cache=False)
        return out.last_hidden_state

    def logits(self, hidden: Any) -> Any:
        """(…, vocabulary) of hidden states."""
        return self._capped(self._head(hidden))

    def some_logits(self, hidden: Any, ids: Any) -> Any:
        """(T, K) logits of these (K,) tokens alone."""
        return self._capped(hidden @ self._head.weight[ids].T)

    def own_logits(self, hidden: Any, ids: Any) -> Any:
        """(T,): of each row the logit of its own token."""
        return self._capped((hidden * self._head.weight[ids]).sum(-1))

    def forget_below(self) -> None:
        """Free the layers below the cut, and the embeddings: from now on only `above` works."""
        self._layers[: self.first] = [_Skipped() for _ in range(self.first)]
        self._keep(range(self.first, len(self._layers)), self._norm)
        self._decoder.embed_tokens = torch.nn.Identity()

    def _keep(self, wanted: range, norm: Any) -> None:
        kept = [layer if n in wanted else _Skipped() for n, layer in enumerate(self._layers)]
        self._decoder.layers = torch.nn.ModuleList(kept)
        self._decoder.norm = norm

    def _capped(self, logits: Any) -> Any:
        return self._cap * torch.tanh(logits / self._cap) if self._cap else logits


class _Skipped(torch.nn.Module):  # type: ignore[misc]  # torch is not seen by the type checker
    """A layer that changes nothing."""

    def forward(self, hidden: Any, **_: Any) -> Any:
        return hidden
