"""A head: how harmful a request is, read linearly from hidden states, and the record that keeps it."""

from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..judge.calibration import sigmoid
from .head_store import HeadRecord, HeadStore, Record

Floats = npt.NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]


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


class LinearHead(HeadRecord):
    """A linear reading of one model's states; void with another model or template.

    `weights` (n_embd,) and `intercept` hold the standardising too.
    """

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


REQUEST_HEADS = HeadStore(RequestHead, "heads", Path(__file__).parent / "data" / "records", "a head")
