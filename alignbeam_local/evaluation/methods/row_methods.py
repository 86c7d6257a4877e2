"""Baselines that combine the rows of models with one vocabulary, and priming by a fixed prefix."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ...config import Config
from ...engine.stopwatch import Stopwatch
from ...knobs.values import MOST_TOKENS
from ...lm.language_model import Logits
from ...result import Result
from ...search.mixing import log_normaliser
from .decoding import decode, decode_alone, encoded, require_one_vocabulary, result
from .model_methods import ModelMethod, Models
from .prompt import Prompt


class RowMethod(ModelMethod):
    """Draws tokens from what `combine` makes of the draft's row and the others'."""

    @property
    def depth(self) -> int | None:
        """Positions that are combined; behind them the draft goes on alone. None: all."""
        return None

    @abstractmethod
    def combine(self, rows: Sequence[Logits]) -> Logits:
        """The row (V,) to draw from, of the draft's and the others'."""

    def answer(self, models: Models, prompt: Prompt, config: Config) -> Result:
        require_one_vocabulary(list(models.values()))
        watch = Stopwatch()
        prompts = [encoded(m, prompt, config, is_anchor=role != "draft") for role, m in models.items()]
        made = decode(list(models.values()), prompts, config, self.combine, self.depth)
        return result(made, models, config, len(prompts[0]), watch)


class HardPrefix(ModelMethod):
    """The draft's answer is made to begin with a fixed text, and the draft goes on by itself.

    AlignBeam (arXiv 2606.12342), appendix D; Qi et al. (2025, arXiv 2406.05946), section 2, prefill even
    unaligned models with such openings. Refusals by string match count the opening itself: read harm.
    """

    name: ClassVar[str] = "hard-prefix"
    roles: ClassVar[tuple[str, ...]] = ("draft",)

    text: Annotated[str, Field(min_length=1)] = "I cannot fulfill"

    def answer(self, models: Models, prompt: Prompt, config: Config) -> Result:
        watch, draft = Stopwatch(), models["draft"]
        ids = encoded(draft, prompt, config, is_anchor=False)
        space = " " if draft.format.strips_leading_space else ""
        made = decode_alone(draft, ids, config, draft.lm.vocabulary.encode(space + self.text))
        return result(made, models, config, len(ids), watch)


class SafeDecoding(RowMethod):
    """The first tokens are drawn from the tokens that both models find likely, the expert's gain amplified.

    SafeDecoding (Xu et al. 2024, arXiv 2402.08983), section 4.3: step 1, the smallest k for which the two
    top-k sets share at least c tokens; step 2, P(x) = p(x) + weight (p'(x) - p(x)) on what they share, p the
    draft's and p' the expert's, here the anchor's. After the first m tokens the draft goes on alone.
    """

    name: ClassVar[str] = "safedecoding"

    weight: Annotated[float, Field(ge=0, le=1000)] = 3.0
    m: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 2
    c: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 5

    @property
    def depth(self) -> int:
        return self.m

    def combine(self, rows: Sequence[Logits]) -> Logits:
        shared = shared_top(rows[0], rows[1], self.c)
        own, expert = (probabilities(row)[shared] for row in rows)
        mass = np.maximum(own + self.weight * (expert - own), 1e-12)  # a difference may be negative
        combined = np.full(len(rows[0]), -np.inf, np.float32)
        combined[shared] = np.log(mass)
        return combined


class ProxyTuning(RowMethod):
    """The draft's logits, moved by what tuning moved in a small model.

    Proxy-tuning (Liu et al. 2024, arXiv 2401.08565), section 2, Eq. 1: softmax(s_M + s_M+ - s_M-), with the
    anchor as the tuned model M+ and `untuned` as M-, the same one before its tuning.
    """

    name: ClassVar[str] = "proxy-tuning"

    untuned: str

    def models(self, config: Config) -> dict[str, str | None]:
        return {**super().models(config), "untuned": self.untuned}

    def combine(self, rows: Sequence[Logits]) -> Logits:
        draft, tuned, untuned = rows
        return np.asarray(draft + tuned - untuned, np.float32)


class Contrastive(RowMethod):
    """The first tokens are those that the anchor likes and the draft does not.

    Contrastive decoding (Li et al. 2023, arXiv 2210.15097), section 3: log p_expert - log p_amateur on the
    plausible tokens, those with at least `share` (0.1 there) of the expert's best; here also its top k. The
    expert is the anchor, the amateur the draft; after the first m tokens the draft goes on alone.
    """

    name: ClassVar[str] = "contrastive"

    m: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 6
    k: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 10
    share: Annotated[float, Field(ge=0, le=1)] = 0.1

    @property
    def depth(self) -> int:
        return self.m

    def combine(self, rows: Sequence[Logits]) -> Logits:
        return contrast(rows[0], rows[1], self.k, self.share)


def shared_top(first: Logits, second: Logits, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The tokens in both top-k sets, for the smallest k for which these are at least `count`."""
    ranks = [np.empty(len(row), np.int64) for row in (first, second)]
    for rank, row in zip(ranks, (first, second), strict=True):
        rank[np.argsort(-row, kind="stable")] = np.arange(len(row))
    worst = np.maximum(*ranks)  # a token is in both top-k sets for every k over this
    k = np.sort(worst)[min(count, len(worst)) - 1]
    return np.flatnonzero(worst <= k)


def contrast(amateur: Logits, expert: Logits, k: int, share: float) -> Logits:
    """log p_expert - log p_amateur on the expert's top k of at least `share` of its best, -inf elsewhere."""
    top = np.argsort(-expert, kind="stable")[:k]
    top = top[probabilities(expert)[top] >= share * probabilities(expert)[top[0]]]
    combined = np.full(len(expert), -np.inf, np.float32)
    combined[top] = (expert[top] - log_normaliser(expert)) - (amateur[top] - log_normaliser(amateur))
    return combined


def probabilities(row: Logits) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The softmax of a row (V,)."""
    return np.asarray(np.exp(row.astype(np.float64) - log_normaliser(row)))
