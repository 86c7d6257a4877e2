"""A draft's safety tokens drawn to the anchor's, by PACT's gate: what its training does, without training."""

from collections.abc import Sequence
from itertools import count
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...config import Config
from ...engine.prompters import prefilled
from ...engine.stopwatch import Stopwatch
from ...knobs.values import MOST_TOKENS
from ...lm.language_model import Logits
from ...prompt.answers import answer_start
from ...result import Result
from ...search.gate import TAU, breadth, decayed, gate, mixed_reference
from ...search.mixing import log_normaliser
from ...search.safety_tokens import token_path
from ...tokens.token_file import read_tokens
from .decoding import decode, encoded, require_one_vocabulary, result
from .model_methods import ModelMethod, Models
from .prompt import Prompt

Ids = npt.NDArray[np.int64]


class GatedTokens(ModelMethod):
    """The draft by itself, but for its safety tokens: these get the anchor's probabilities, with the question
    and without it, mixed by a gate.

    PACT (arXiv 2603.07445), Eq. 5 to 8, which it trains with; at inference it is ours. `weight` is how far
    they are drawn there, `n` and `tau` are Eq. 8's N and τ, `m` the positions of an answer in which it is
    done. `safety_file` names the tokens; draft and anchor have one vocabulary.
    """

    name: ClassVar[str] = "gated-tokens"
    reads: ClassVar[tuple[str, ...]] = ("safety_file",)

    weight: Annotated[float, Field(ge=0, le=1)] = 1.0
    n: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 8
    tau: Annotated[float, Field(gt=0, le=1e6)] = TAU
    m: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 8

    def models(self, config: Config) -> dict[str, str | None]:
        """The anchor twice: with the question, and behind the answer so far alone."""
        return {**super().models(config), "unasked": config.anchor_names[0] if config.anchor_names else None}

    def answer(self, models: Models, prompt: Prompt, config: Config) -> Result:
        draft, unasked = models["draft"], models["unasked"]
        require_one_vocabulary(list(models.values()))
        path, watch, position = token_path(config), Stopwatch(), count()
        found = read_tokens(path)
        found.require(draft.lm.vocabulary, path, draft.card.name)
        tokens = np.array(found.ids, np.int64)
        prompts = [encoded(models[role], prompt, config, is_anchor=role == "anchor") for role in self.roles]
        begun = answer_start(unasked.format, unasked.lm.vocabulary)
        prompts.append([*begun, *prefilled(unasked, config)])
        made = decode(
            list(models.values()),
            prompts,
            config,
            lambda rows: self.combined(rows, tokens, next(position)),
            self.m,
        )
        return result(made, models, config, len(prompts[0]), watch)

    def combined(self, rows: Sequence[Logits], tokens: Ids, position: int) -> Logits:
        """The row (V,) to draw from, of the draft's, the anchor's and the anchor's without the question."""
        own, full, post = (row.astype(np.float64) - log_normaliser(row) for row in rows)
        c = decayed(gate(breadth(own[tokens]), breadth(post[tokens])), position, self.n, self.tau)
        reference = mixed_reference(full[tokens], post[tokens], c)
        own[tokens] += self.weight * (reference - own[tokens])
        return np.asarray(own, np.float32)
