"""Safety tokens at inference: what a draft gives them, raised or taken away.

Table 1 of PACT (arXiv 2603.07445).

No training and no second model: a row of logits is changed before anything is chosen from it.
"""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

import numpy as np

from ..config import Config
from ..errors import UsageError
from ..lm.language_model import LanguageModel, Logits
from ..lm.vocabulary import Vocabulary
from ..paths import user_path
from ..tokens.token_file import TokenFile, read_tokens
from .mixing import Ids

#: What the paper sets the logits of ablated tokens to.
ABLATED = np.float32(-1e9)


class SafetyTokens:
    """What is done to some tokens of the draft's rows, in the first positions of an answer or in all."""

    def __init__(self, tokens: Sequence[int], boost: float | None, steps: int | None = None) -> None:
        """`boost` is added to their logits; None: they can't come at all. `steps` None: in every position."""
        self._tokens: Ids = np.array(tokens, np.int64)
        self._boost = None if boost is None else np.float32(boost)
        self._steps = steps

    def changes(self, position: int) -> bool:
        """Whether anything is done at this position of an answer, from 0."""
        return bool(len(self._tokens)) and (self._steps is None or position < self._steps)

    def change(self, lm: LanguageModel, sequence: int, position: int) -> None:
        """Change the row of a sequence that was just decoded, for all that reads it; once a decode."""
        if self.changes(position):
            self._write(lm.logits(sequence))

    def changed(self, row: Logits, position: int = 0) -> Logits:
        """The row of this position as it counts: a copy, or the row itself where nothing is done."""
        if not self.changes(position):
            return row
        own = row.copy()
        self._write(own)
        return own

    def _write(self, row: Logits) -> None:
        if self._boost is None:
            row[self._tokens] = ABLATED
        else:
            row[self._tokens] += self._boost


UNCHANGED = SafetyTokens((), 0.0)


def safety_tokens(config: Config, draft: LanguageModel, name: str) -> SafetyTokens:
    """What these knobs do to the rows of a draft of this name.

    Raises:
        UsageError: no file names the tokens, or it is none.
        ModelError: it names those of another vocabulary.
    """
    if config.safety_tokens == "none":
        return UNCHANGED
    boost = config.boost if config.safety_tokens == "boost" else None
    return SafetyTokens(_named(config, draft, name), boost, config.safety_steps)


def gate_tokens(config: Config, draft: LanguageModel, name: str) -> tuple[int, ...]:
    """The safety tokens of a draft of this name that a gate goes by, if there is one. Raises: as above."""
    return _named(config, draft, name) if config.is_gated else ()


def require_tokens(config: Config, vocabulary: Vocabulary, name: str) -> TokenFile:
    """What names the safety tokens of a draft of this name and vocabulary. Raises: as above."""
    path = token_path(config)
    found = read_tokens(path)
    found.require(vocabulary, path, name)
    return found


def _named(config: Config, draft: LanguageModel, name: str) -> tuple[int, ...]:
    return require_tokens(config, draft.vocabulary, name).ids


def token_path(config: Config) -> Path:
    """The file that names the tokens. Raises: UsageError: none is named."""
    if config.safety_file is None:
        raise UsageError(
            "what goes by the draft's safety tokens needs a file that names them",
            f"Make one: alignbeam tokens find {_differing(config)} --out tokens.json, "
            "then --safety-file tokens.json.",
        )
    return user_path(config.safety_file)


def _differing(config: Config) -> str:
    """Two models of the draft's vocabulary, one of which refuses more, as `tokens find` is told them."""
    names = (f"--lora {quote(adapter)}" for adapter in config.lora)
    return " ".join([quote(config.draft or "MODEL"), *(names if config.lora else ["--base-prompt raw"])])
