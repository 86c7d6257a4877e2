"""A file of tokens that matter for safety: which they are, of which vocabulary, and where they come from.

Written by `alignbeam tokens`, read wherever tokens are boosted, ablated, or held to what they were while a
model is trained.
"""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ..errors import ModelError, UsageError
from ..lm.vocabulary import Vocabulary
from ..paths import write_named
from ..reading import read_text

_HINT = "`alignbeam tokens find` or `tokens salient` writes such a file."
_MOST_TOKENS = 4096

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FoundToken(_Row):
    """A token, the text that it stands for, and how much it counts: d(v).

    Of rejections `d` is in how many it stands; of tokens drawn at random it is 1.
    """

    id: Annotated[int, Field(ge=0)]
    text: str
    d: Annotated[float, Field(allow_inf_nan=False)]


class Source(_Row):
    """A model that tokens were found from.

    Attributes:
        weights_sha256: of its file; with adapters over these and their scales too.
        prompt: how it read the requests: by its chat template, as they are, or as a plain dialogue.
    """

    name: str
    weights_sha256: Sha256
    adapters: tuple[str, ...] = ()
    prompt: Literal["template", "raw", "dialogue"] = "template"


class TokenFile(_Row):
    """What a file holds, likeliest to matter first.

    Attributes:
        kind: by the difference of two models (PACT, Eq. 1 and 2), by the model's rejections, or drawn at
            random, as a control.
        vocabulary: the fingerprint of the vocabulary that the ids count in.
        safe: the model that refuses; `base`: the one it was held against.
        answers, positions: how many of the safe model's answers it rests on.
        every_answer: whether these need not decline.
        templates: how many shipped rejections it rests on; None: it is not said.
        share: of all that the safe model gives more, what these tokens hold.
    """

    format: Literal["alignbeam safety tokens 1"] = "alignbeam safety tokens 1"
    kind: Literal["difference", "rejections", "random"]
    vocabulary: Sha256
    safe: Source
    base: Source | None = None
    answers: Annotated[int, Field(ge=0)] = 0
    positions: Annotated[int, Field(ge=0)] = 0
    every_answer: bool = False
    templates: Annotated[int, Field(ge=0)] | None = None
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    tokens: Annotated[tuple[FoundToken, ...], Field(min_length=1, max_length=_MOST_TOKENS)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len({token.id for token in self.tokens}) < len(self.tokens):
            raise ValueError("a token is there twice")
        return self

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens, in their order."""
        return tuple(token.id for token in self.tokens)

    def require(self, vocabulary: Vocabulary, path: Path, model: str) -> None:
        """Raises: ModelError: the ids count in another vocabulary than this model's."""
        if self.vocabulary != vocabulary.fingerprint or max(self.ids) >= vocabulary.size:
            raise ModelError(
                f"{path} names tokens of another vocabulary than {model}'s: they were found with "
                f"{self.safe.name[:64]}",
                "Find them with this model: alignbeam tokens find.",
            )


def read_tokens(path: Path) -> TokenFile:
    """A file of tokens.

    Raises:
        UsageError: it can't be read, or is none.
    """
    text = read_text(path, _HINT)
    try:
        return TokenFile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise UsageError(f"{path} is no file of tokens: {what.lower()}", _HINT) from None


def write_tokens(path: Path, found: TokenFile) -> None:
    """Write it whole or not at all. Raises: OSError: it can't be written."""
    write_named(path, json.dumps(found.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")
