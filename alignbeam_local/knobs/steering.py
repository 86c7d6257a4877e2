"""Which requests are steered, and whose reading of them counts."""

from typing import Literal

from pydantic import BaseModel, field_validator

from .knob import Knob, knob
from .values import Share, as_none

Steer = Literal["always", "by_request"]
RequestBy = Literal["head", "judge", "both"]
ReadClear = Literal["needed", "always"]
ReadRequest = Literal["auto", "on", "off"]


class SteeringKnobs(BaseModel):
    """Steering by need."""

    steer: Steer = knob(
        "always",
        "which requests are steered: all, as in the paper; or by what the anchor's head reads of each: clear "
        "ones are answered by the draft alone, doubtful ones as always, harmful ones judged and "
        "blocked if no beam is safe; without a head all",
        Knob("Steering", ("measured", "sizes")),
    )
    clear_below: Share | None = knob(
        None,
        "up to this probability of harm a request is clear; none = the head's own threshold",
        Knob("Steering", ("measured",)),
    )
    harmful_above: Share | None = knob(
        None,
        "above this probability of harm a request is harmful; none = the head's own threshold",
        Knob("Steering", ("measured",)),
    )
    request_by: RequestBy = knob(
        "head",
        "whose reading of the request choice = by_request goes by: the anchor's head, the judge's own "
        "question about it, or the head and, where it doubts, both; steering goes by the head or by both",
        Knob("Steering", ("measured",)),
    )
    score_by: RequestBy = knob(
        "both",
        "whose reading of the request the judge's score goes by, where steering or the choice goes by the "
        "head: the head's, the judge's own question about it, or both (the mean of their log-odds)",
        Knob("Steering", ("measured",)),
    )
    read_clear: ReadClear = knob(
        "needed",
        "let the judge read the draft's own answer to a clear request: always, or where what was read of the "
        "request leaves that it could call an answer unsafe at all (needed)",
        Knob("Steering"),
    )
    read_request: ReadRequest = knob(
        "auto",
        "let the anchor's head read the request: on, off, or where steering or the choice goes by it",
        Knob("Steering"),
    )

    _none_of_steering = field_validator("clear_below", "harmful_above", mode="before")(as_none)
