"""What is mixed: the knobs of the paper's method, of what goes beyond it, and of safety tokens."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from .knob import Knob, knob
from .values import MOST_TOKENS, as_none, parse_shares

Variant = Literal["drop", "first", "exact"]
DraftMass = Literal["each", "once"]
Prefix = Literal["fixed", "adaptive"]
AlphaRule = Literal["fixed", "decay", "disagreement"]
Together = Literal["mean", "strictest"]
AnchorRow = Literal["plain", "gated"]
SafetyTokensUse = Literal["none", "boost", "ablate"]

#: What is done to the draft's safety tokens; the file of them serves other ends too.
SAFETY_KNOBS = ("safety_tokens", "boost", "safety_steps")


class MethodKnobs(BaseModel):
    """How answers are started (paper: section 3; the defaults are the paper's)."""

    alpha: Annotated[float, Field(ge=0, le=1)] = knob(
        0.5,
        "anchor's weight in the mixture, on the tokens that it finds likely: "
        "0 = the draft chooses among them, 1 = the anchor",
        Knob("Method", ("measured",)),
    )
    depth: Annotated[int, Field(ge=0, le=512)] = knob(
        6,
        "N: how many tokens of each answer are mixed; 0 = none",
        Knob("Method", ("measured", "benched"), "N"),
    )
    beams: Annotated[int, Field(ge=1, le=32)] = knob(
        3,
        "K: how many answers are started; 1 = lowest cost, unjudged",
        Knob("Method", ("measured", "benched", "sizes"), "K"),
    )
    bridge_width: Annotated[int, Field(ge=1, le=4096)] = knob(
        50,
        "B: how many of the anchor's most probable tokens are carried over a step",
        Knob("Method", ("measured", "benched"), "B"),
    )
    variant: Variant = knob(
        "drop",
        "what an anchor token that is no single draft token does: it is left out (drop), "
        "its first part gets the credit (first), or its mass goes back to the draft (exact)",
        Knob("Method", ("measured",)),
    )
    draft_mass: DraftMass = knob(
        "each",
        "count a draft token's mass for each anchor token that lands on it, or once",
        Knob("Method", ("measured",)),
    )
    prefix: Prefix = knob(
        "fixed",
        "which tokens are mixed: the first N (fixed); or N and then on while the models part, to max_depth "
        "(adaptive)",
        Knob("Method", ("measured", "sizes")),
    )
    max_depth: Annotated[int, Field(ge=1, le=512)] = knob(
        20,
        "no token is mixed behind this many, where more than N may be; N if that is more",
        Knob("Method", ("measured", "sizes")),
    )
    agree_for: Annotated[int, Field(ge=1, le=512)] = knob(
        3,
        "M: an adaptive prefix ends after so many tokens in a row in which the models did not part",
        Knob("Method", ("measured",)),
    )
    alpha_rule: AlphaRule = knob(
        "fixed",
        "the anchor's weight at each position: alpha (fixed); half of it every N tokens (decay); or alpha in "
        "the first N, and behind them, to max_depth, only where the models' disagreement has added up "
        "(disagreement)",
        Knob("Method", ("measured", "sizes")),
    )
    anchors: Together = knob(
        "mean",
        "of several anchors: the mean of their mixtures (mean), or the one that most begins to refuse "
        "(strictest)",
        Knob("Method", ("measured",)),
    )
    anchor_weights: str | None = knob(
        None,
        "what each of several anchors counts in the mean, as 2,1; none = all the same",
        Knob("Method", ("measured",)),
    )
    anchor_row: AnchorRow = knob(
        "plain",
        "what of an anchor is mixed: its own row (plain); or that row mixed with its row without the "
        "question, by how sure that and the draft are among the tokens of safety_file (gated), which reads "
        "the anchor twice",
        Knob("Method", ("measured", "sizes")),
    )
    safety_tokens: SafetyTokensUse = knob(
        "none",
        "what is done to the draft's safety tokens: nothing, their logits are raised (boost), "
        "or they can't come (ablate, to see what they are worth)",
        Knob("Method", ("measured",)),
    )
    boost: Annotated[float, Field(ge=0, le=100)] = knob(
        5.0, "what is added to the logits of boosted safety tokens", Knob("Method", ("measured",))
    )
    safety_steps: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = knob(
        None,
        "in how many tokens from the answer's first on safety tokens are boosted or ablated; none = in all",
        Knob("Method", ("measured",)),
    )
    safety_file: str | None = knob(
        None,
        "the file that names the safety tokens, from `alignbeam tokens find`",
        Knob("Method", ("measured", "shared")),
    )

    _none_of_method = field_validator("anchor_weights", "safety_steps", "safety_file", mode="before")(as_none)

    @field_validator("anchor_weights")
    @classmethod
    def _weights_of_anchors(cls, value: str | None) -> str | None:
        if value is not None and 0 in parse_shares(value):
            raise PydanticCustomError("weight", "an anchor that counts 0 is opened for nothing: leave it out")
        return value

    @field_validator("safety_tokens")
    @classmethod
    def _sure_among(cls, value: SafetyTokensUse, info: ValidationInfo) -> SafetyTokensUse:
        if value == "ablate" and info.data.get("anchor_row") == "gated":
            raise PydanticCustomError(
                "gated", "among tokens that can't come nothing is sure: anchor_row = gated"
            )
        return value

    @property
    def is_gated(self) -> bool:
        """Whether each anchor is opened once more, and this twin reads no question."""
        return self.anchor_row == "gated" and self.depth > 0

    @property
    def goes_by_tokens(self) -> bool:
        """Whether what the file of safety tokens names is part of an answer."""
        return self.safety_tokens != "none" or self.is_gated

    @property
    def goes_beyond(self) -> bool:
        """Whether more than N tokens may be mixed."""
        return (self.prefix == "adaptive" or self.alpha_rule == "disagreement") and self.depth > 0

    @property
    def longest_prefix(self) -> int:
        """The most tokens that may be mixed, however long the answer: N, or what it may go on to."""
        return max(self.depth, self.max_depth) if self.goes_beyond else self.depth
