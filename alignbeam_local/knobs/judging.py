"""What is safe, what is chosen, when it is judged, and what follows where nothing is safe."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator

from .knob import Knob, knob
from .values import MOST_TOKENS, Share, as_none

Choice = Literal["safest", "likeliest", "lowest", "mixture", "anchor", "votes", "by_request"]
OnUnsafe = Literal["auto", "refuse", "lowest"]
LateReader = Literal["off", "judge", "window", "head"]

#: `judge_at` of a chat with several beams (docs/measurements.md, "When a chat judges").
CHAT_JUDGE_AT = 32


class JudgingKnobs(BaseModel):
    """Verdicts and the choice."""

    threshold: Annotated[float, Field(ge=1, le=5)] = knob(
        2.5,
        "tau: the highest judge's score, 1 to 5, that counts as safe",
        Knob("Judge", ("judges", "selects", "measured")),
    )
    choice: Choice = knob(
        "by_request",
        "among safe beams: the lowest score, of near ones what the draft likes (safest, the paper) or the "
        "mixture's order (lowest); the likeliest first token (likeliest) or start (mixture), what the "
        "anchor finds likeliest (anchor), what most of them do, refuse or answer (votes); or, by the "
        "request's reading, an answer to what is clear and only a refusal to what is harmful (by_request; "
        "where nothing read it, safest)",
        Knob("Judge", ("judges", "selects", "measured")),
    )
    min_start: Share = knob(
        0.0,
        "beams whose first token the mixture gives less than this are chosen only if no other is safe; "
        "0 = off",
        Knob("Judge", ("judges", "selects", "measured")),
    )
    judge_at: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = knob(
        None,
        "judge after this many tokens, drop the losers and go on with the winner, which streams "
        "and is judged again at its end; none = at the end only; "
        f"if not set, in a chat with several beams {CHAT_JUDGE_AT}",
        Knob("Judge", ("measured",)),
    )
    judge_every: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = knob(
        None,
        "judge the winner again each time it has grown by this many tokens, and show only what a verdict has "
        "passed; without judge_at the beams are judged after as many; none = text is shown as it comes",
        Knob("Judge", ("measured",)),
    )
    late: LateReader = knob(
        "off",
        "who reads an answer on while it grows, window by window, and steers it back where it turns harmful: "
        "the judge, all that was said so far (judge) or the last window by itself (window); or the draft's "
        "answer head (head); without judge_at the beams are judged after one window",
        Knob("Judge", ("judges", "sizes", "measured")),
    )
    late_every: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = knob(
        64, "the tokens of a window", Knob("Judge", ("measured",))
    )
    late_tries: Annotated[int, Field(ge=0, le=16)] = knob(
        2,
        "how often an answer that turned harmful is put back to before that and mixed again for depth "
        "tokens, each further time for depth more than before; then it is refused",
        Knob("Judge", ("measured",)),
    )
    on_unsafe: OnUnsafe = knob(
        "auto",
        "when no beam is safe: refuse; give the lowest score; or, with auto, refuse only if the "
        "judge's record is good enough, else give the lowest with a notice; what choice = by_request found "
        "harmful is blocked with auto too",
        Knob("Judge", ("judges", "selects", "measured")),
    )
    head_votes: bool = knob(
        False,
        "let the draft's answer head judge too, beside the judge: the worse verdict counts",
        Knob("Judge", ("judges", "sizes", "measured")),
    )
    refusal_text: str = knob(
        "I'm sorry, but I can't help with that.",
        "the text that is shown instead of a blocked answer",
        Knob("Judge", ("judges",)),
    )

    _none_of_judging = field_validator("judge_at", "judge_every", mode="before")(as_none)

    @property
    def first_verdict_at(self) -> int | None:
        """After how many tokens the beams are judged; None: at their ends."""
        return self.judge_at or self.judge_every or (self.late_every if self.late != "off" else None)

    @property
    def verdict_every(self) -> int | None:
        """Tokens from one look at an answer that is read while it grows to the next; None: at its end."""
        late = self.late_every if self.late != "off" else None
        return min((every for every in (self.judge_every, late) if every is not None), default=None)
