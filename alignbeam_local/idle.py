"""Knobs that count only beside another one, and what is to be said where nothing reads them."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from .config import Config


class _Need(NamedTuple):
    """Where a knob is read, and what is said of it elsewhere."""

    is_read: Callable[[Config], bool]
    why: str


_MIXED = _Need(lambda c: c.depth > 0, "nothing is mixed (depth = 0)")
_LATE = _Need(lambda c: c.late != "off", "late is off")
_JUDGE_MODEL = _Need(lambda c: not c.judged_by_head, "the draft's answer head is the judge")
_THRESHOLDS = _Need(
    lambda c: c.reads_request or (c.choice == "by_request" and c.judged), "nothing goes by what is asked"
)

_NEEDS: Mapping[str, _Need] = {
    **dict.fromkeys(("anchor", "anchor_system", "anchor_gpu", "anchor_row", "read_request"), _MIXED),
    **dict.fromkeys(("alpha", "alpha_rule", "bridge_width", "draft_mass", "prefix", "variant"), _MIXED),
    **dict.fromkeys(("late_every", "late_tries"), _LATE),
    **dict.fromkeys(("head_votes", "judge_gpu"), _JUDGE_MODEL),
    **dict.fromkeys(("clear_below", "harmful_above"), _THRESHOLDS),
    "anchors": _Need(lambda c: len(c.anchor_names) > 1, "it is about several anchors"),
    "anchor_weights": _Need(
        lambda c: len(c.anchor_names) > 1 and c.anchors == "mean", "it is about the mean of several anchors"
    ),
    "agree_for": _Need(lambda c: c.prefix == "adaptive" and c.depth > 0, "it is about prefix = adaptive"),
    "max_depth": _Need(lambda c: c.goes_beyond, "no more than depth tokens are mixed (prefix, alpha_rule)"),
    "safety_file": _Need(
        lambda c: c.goes_by_tokens, "nothing goes by safety tokens (safety_tokens, anchor_row)"
    ),
    "boost": _Need(lambda c: c.safety_tokens == "boost", "it is about safety_tokens = boost"),
    "safety_steps": _Need(lambda c: c.safety_tokens != "none", "safety_tokens is none"),
    "steer": _Need(
        lambda c: c.steer != "by_request" or c.steers_by_request,
        "nobody reads the request (depth, read_request)",
    ),
    "min_start": _Need(lambda c: c.beams > 1 or not c.judged, "one beam is started"),
    "request_by": _Need(
        lambda c: (
            (c.steer == "by_request" or (c.choice == "by_request" and c.judged))
            and (c.request_by != "judge" or c.asks_judge)
        ),
        "it is about choice or steer = by_request, and a judge model that is asked",
    ),
    "read_clear": _Need(
        lambda c: c.steers_by_request and not c.judged_by_head,
        "it is about a judge model's reading of clear requests' answers, with steer = by_request",
    ),
    "score_by": _Need(
        lambda c: c.judged and c.scored_by == c.score_by and not c.judged_by_head,
        "it is about a judge model's scores where steering or the choice goes by the head",
    ),
}
#: What a profile set counts as turned too: who lends a model its guard must know that it is not there.
ALWAYS_TOLD = frozenset({"steer"})


def idle_knobs(config: Config) -> Iterator[tuple[str, str]]:
    """Knobs that are not as by default and that nothing reads, each with why."""
    standard = Config()
    for knob, need in _NEEDS.items():
        if getattr(config, knob) != getattr(standard, knob) and not need.is_read(config):
            yield knob, need.why
