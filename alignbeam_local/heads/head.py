"""A head: how harmful a request is, read linearly from hidden states, and the record that keeps it."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from ..errors import ModelError
from ..judge.calibration import sigmoid
from ..paths import data_dir, write_named

Floats = npt.NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]

SHIPPED = Path(__file__).parent / "data" / "records"


class Record(BaseModel):
    """What is kept on disk: nothing in it may be unknown, missing or no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Thresholds(Record):
    """Up to `low` a request is clear, above `high` it is harmful, between them doubtful."""

    low: Share
    high: Share


class Auc(Record):
    """The chance that a harmful request of one kind is read as worse than a harmless one of another.

    `low` and `high` are the 95 % interval of `auc`; `whole` is the same where no parts are read.
    """

    harmful: str
    harmless: str
    num_harmful: int
    num_harmless: int
    auc: Share
    low: Share
    high: Share
    whole: Share


class Above(Record):
    """Shares of one kind's requests of one label above the two thresholds, with 95 % intervals."""

    kind: str
    harmful: bool
    n: int
    above_low: Share
    low_interval: tuple[Share, Share]
    above_high: Share
    high_interval: tuple[Share, Share]


class Figures(Record):
    """How well a head tells requests apart that it was not fitted on."""

    aucs: tuple[Auc, ...]
    shares: tuple[Above, ...]


class LinearHead(Record):
    """A linear reading of one model's states; void with another model or template.

    `weights` (n_embd,) and `intercept` hold the standardising too. `key` hashes the template as rendered.
    """

    model: str
    model_sha256: str
    key: str
    weights: tuple[float, ...]
    intercept: float
    date: str
    version: str

    def probabilities(self, states: npt.ArrayLike) -> Floats | None:
        """(n,) chances that each of (n, n_embd) states is a harmful one; None if one can't be read."""
        rows = np.atleast_2d(np.asarray(states, np.float64))
        if rows.shape[1] != len(self.weights) or not len(rows) or not np.isfinite(rows).all():
            return None
        return sigmoid(rows @ np.asarray(self.weights) + self.intercept)


class RequestHead(LinearHead):
    """Reads states at the end of prompts; `requests_sha256` hashes what it was fitted on.

    `layer` is whose outputs they are, from 0; None: those after the final norm.
    """

    layer: int | None = Field(default=None, ge=0)

    @property
    def layers(self) -> tuple[int, ...]:
        """For `LanguageModel.read_at`."""
        return () if self.layer is None else (self.layer,)

    thresholds: Thresholds
    held_out: Figures
    requests_sha256: str

    def probability(self, states: npt.ArrayLike) -> float | None:
        """The worst of a request's parts; None, as if there were no head, if one can't be read."""
        found = self.probabilities(states)
        return None if found is None else float(found.max())


def record_file(model_sha256: str, key: str) -> Path:
    """Where the user's record for this very file and template is kept, whatever the file is called."""
    return data_dir() / "heads" / f"{model_sha256[:12]}-{key[:12]}.json"


def find_head(model_sha256: str, key: str) -> RequestHead | None:
    """The record of this very model and template: the user's own, or else the shipped one.

    Raises:
        ModelError: the user's own is damaged.
    """
    own = record_file(model_sha256, key)
    for path in (*([own] if own.exists() else []), *sorted(SHIPPED.glob("*.json"))):
        record = load_head(path)
        if (record.model_sha256, record.key) == (model_sha256, key):
            return record
    return None


def all_heads() -> Iterator[tuple[Path, RequestHead]]:
    """All records and where they are, the user's own first. Raises: ModelError: one is damaged."""
    for folder in (data_dir() / "heads", SHIPPED):
        for path in sorted(folder.glob("*.json")):
            yield path, load_head(path)


@cache
def load_head(path: Path) -> RequestHead:
    """Read a record.

    Raises:
        ModelError: the file is no record, or a number in it is none.
    """
    try:
        return RequestHead.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is no record of a head: {error}", "Delete it, or fit anew.") from None


def save_head(record: RequestHead, path: Path) -> None:
    """Write a record, whole or not at all. Raises: OSError: it can't be written."""
    write_named(path, json.dumps(record.model_dump(mode="json")) + "\n")
    load_head.cache_clear()
