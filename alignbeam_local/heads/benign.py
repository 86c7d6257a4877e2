"""A user's own harmless prompts in a fit, and what they changed."""

from collections.abc import Sequence

from ..errors import UsageError
from ..prompt.message import Message
from .check import ALL, ReadRequest, figures, score_all
from .head import Above, RequestHead, Share, Thresholds
from .head_store import Record
from .labelled_requests import LabelledRequest

#: Every other prompt is kept to measure with: of fewer nothing could be told.
MIN_PROMPTS = 2
_ID = "own-"


class WithHead(Record):
    """How one head fares: on the user's own prompts that were kept back, and on the labelled requests."""

    thresholds: Thresholds
    own: Above
    auc: Share
    auc_low: Share
    auc_high: Share


class BenignChange(Record):
    """The head without the user's own prompts, and with them."""

    num_fit: int
    num_held_out: int
    before: WithHead
    after: WithHead


def own_requests(prompts: Sequence[str]) -> list[LabelledRequest]:
    """A user's harmless prompts as ordinary requests, each once; every other one is to fit on.

    Raises:
        UsageError: there are too few.
    """
    prompts = list({" ".join(prompt.split()): prompt for prompt in prompts}.values())
    if len(prompts) < MIN_PROMPTS:
        raise UsageError(
            "one harmless prompt of your own is too few", "Half of them is kept to measure with: give many."
        )
    return [
        LabelledRequest(
            id=f"{_ID}{number}",
            pair=None,
            label="harmless",
            kind="ordinary",
            topic=f"{_ID}{number}",
            language="und",
            split="held_out" if number % 2 else "fit",
            messages=(Message("user", prompt),),
        )
        for number, prompt in enumerate(prompts)
    ]


def is_own(item: ReadRequest) -> bool:
    """Whether it is one of `own_requests`."""
    return item.request.topic.startswith(_ID)


def benign_change(before: RequestHead, after: RequestHead, items: Sequence[ReadRequest]) -> BenignChange:
    """What the user's own prompts among these changed. Raises: ModelError: as `scored`."""
    own = [item for item in items if is_own(item)]
    held_out = [item for item in own if item.request.split == "held_out"]
    rest = [item for item in items if item.request.split == "held_out" and not is_own(item)]
    return BenignChange(
        num_fit=len(own) - len(held_out),
        num_held_out=len(held_out),
        before=_with(before, held_out, rest),
        after=_with(after, held_out, rest),
    )


def _with(head: RequestHead, own: Sequence[ReadRequest], rest: Sequence[ReadRequest]) -> WithHead:
    shares = figures(score_all(head, own), head.thresholds).shares
    found = figures(score_all(head, rest), head.thresholds).aucs[0]
    assert shares[0].kind == ALL
    return WithHead(
        thresholds=head.thresholds, own=shares[0], auc=found.auc, auc_low=found.low, auc_high=found.high
    )
