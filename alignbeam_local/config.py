"""Every knob in one value, and what follows from several of them."""

from collections.abc import Mapping
from typing import Any, Self, cast, get_args, get_origin

from pydantic import ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from .errors import UsageError, did_you_mean
from .knobs.judging import JudgingKnobs
from .knobs.knob import Knob, Mark, Panel
from .knobs.machine import MachineKnobs
from .knobs.method import SAFETY_KNOBS, MethodKnobs
from .knobs.models import ModelKnobs
from .knobs.sampling import SamplingKnobs
from .knobs.steering import RequestBy, SteeringKnobs
from .knobs.values import parse_shares


class Config(MachineKnobs, ModelKnobs, SamplingKnobs, JudgingKnobs, SteeringKnobs, MethodKnobs):
    """The knobs of one answer (paper: section 4; the defaults are the paper's, but for `choice`,
    `score_by` and `on_unsafe`).

    The fields of the last base come first. A validator must have a name of its own among all bases.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise PydanticCustomError("truth_value", "this knob can't be true or false")
        return value

    @field_validator("*")
    @classmethod
    def _unicode(cls, value: Any) -> Any:
        texts = value if isinstance(value, tuple) else (value,)
        if any("\ud800" <= letter <= "\udfff" for text in texts if isinstance(text, str) for letter in text):
            raise PydanticCustomError("unicode", "this is not Unicode text")
        return value

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str = "") -> Self:
        """Build from loose values.

        Raises:
            UsageError: as `by_name`; an unknown knob or a value out of range, named with its `source`.
        """
        try:
            return cls(**by_name(values, source))
        except ValidationError as error:
            raise _usage_error(error, source) from None

    def with_values(self, values: dict[str, Any], source: str = "") -> Self:
        """This configuration with some knobs changed, checked anew."""
        if not values:
            return self
        return self.of({**self.model_dump(), **by_name(values, source)}, source)

    @property
    def without_safety_tokens(self) -> Self:
        """The same for a model of which no safety tokens are named: they are the draft's."""
        return self.with_values({name: type(self).model_fields[name].default for name in SAFETY_KNOBS})

    @property
    def judged(self) -> bool:
        """One beam needs no judge, unless the user says what an unsafe answer leads to, or when to judge.

        An answer that is steered by need is judged too, also where nobody reads what is asked.
        """
        return self._judged_where_steered or self.steer == "by_request"

    @property
    def _judged_where_steered(self) -> bool:
        is_asked_for = self.on_unsafe != "auto" or self.first_verdict_at is not None
        return self.beams > 1 or is_asked_for

    @property
    def reads_answers(self) -> bool:
        """Whether the draft's answer head has a say: as the judge, or beside it."""
        return self.judged and (self.judged_by_head or self.head_votes)

    @property
    def needs_answer_head(self) -> bool:
        """Whether the draft's answer head reads anything: whole answers, or windows of one."""
        return self.reads_answers or self.late == "head"

    @property
    def reads_request(self) -> bool:
        """Whether the anchor's head is to read the request, if there is one."""
        is_wanted = self.read_request == "on" or (self.read_request == "auto" and self._goes_by_head)
        return self.depth > 0 and is_wanted

    @property
    def _goes_by_head(self) -> bool:
        chooses = self.choice == "by_request" and not self.asks_judge and self._judged_where_steered
        return self.steer == "by_request" or chooses

    @property
    def asks_judge(self) -> bool:
        """Whether the choice goes by a judge model's own question about the request; a head has none."""
        return self.request_by == "judge" and not self.judged_by_head

    @property
    def scored_by(self) -> RequestBy:
        """Whose reading of the request scores go by: the judge's own where nothing else goes by the head."""
        return self.score_by if self._goes_by_head and self.reads_request else "judge"

    @property
    def steers_by_request(self) -> bool:
        """Whether what is read of a request decides if it is steered."""
        return self.steer == "by_request" and self.reads_request

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that an answer needs a model for, in the order in which they are opened."""
        anchors = self.anchor_roles if self.depth > 0 else ()
        return ("draft", *anchors, *(("judge",) if self.judged and not self.judged_by_head else ()))

    @property
    def weights(self) -> tuple[float, ...]:
        """What each anchor counts, in their order; they sum to 1.

        Raises:
            UsageError: there are as many weights as anchors, or none.
        """
        count = len(self.anchor_roles)
        given = (1.0,) * count if self.anchor_weights is None else parse_shares(self.anchor_weights)
        if len(given) != count:
            raise UsageError(
                f"anchor_weights has {len(given)} for {count} anchor{'' if count == 1 else 's'}",
                "Give one weight an anchor, or none at all.",
            )
        return tuple(weight / sum(given) for weight in given)

    @property
    def mixed_depth(self) -> int:
        """The most tokens that are mixed: at most the answer's length."""
        return min(self.longest_prefix, self.max_tokens)


KNOBS = tuple(Config.model_fields)
#: Knobs that may have several values.
LISTS = tuple(
    name
    for name, field in Config.model_fields.items()
    if any(get_origin(kind) is tuple for kind in (field.annotation, *get_args(field.annotation)))
)
#: What is to be known of each knob, by its name.
ABOUT: Mapping[str, Knob] = {
    name: Knob(**cast(dict[str, Any], field.json_schema_extra)) for name, field in Config.model_fields.items()
}
#: What a person may type for a knob, after the paper's symbols.
ALIASES = {about.symbol: name for name, about in ABOUT.items() if about.symbol}


def knobs_of(panel: Panel) -> tuple[str, ...]:
    """The knobs that stand under a heading."""
    return tuple(name for name in KNOBS if ABOUT[name].panel == panel)


def knobs_that(mark: Mark) -> tuple[str, ...]:
    """The knobs that have this mark."""
    return tuple(name for name in KNOBS if mark in ABOUT[name].marks)


def canonical(word: str) -> str:
    """A knob's name, for the name or the symbol that a person typed; any other word stays."""
    return ALIASES.get(word, word)


def by_name(values: Mapping[str, Any], source: str = "") -> dict[str, Any]:
    """Loose values by the names of their knobs: the paper's symbols are replaced.

    Raises:
        UsageError: a knob is given by both.
    """
    names = [canonical(key) for key in values]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{_prefix(source)}{twice} is given twice", "Write either its name or its symbol.")
    return dict(zip(names, values.values(), strict=True))


def unknown_knob(name: str, source: str = "") -> UsageError:
    """The error for a knob that does not exist, with the nearest one that does."""
    hint = did_you_mean(name, KNOBS, f"Knobs: {', '.join(KNOBS)}")
    return UsageError(f"{_prefix(source)}unknown knob '{name}'", hint)


def _usage_error(error: ValidationError, source: str) -> UsageError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return unknown_knob(name, source)
    others = list(dict.fromkeys(str(one["loc"][0]) for one in error.errors() if one["loc"][0] != name))
    return UsageError(
        f"{_prefix(source)}{name} = {_shown(first['input'])}: {first['msg'].lower()}"
        + (f"; also wrong: {', '.join(others)}" if others else ""),
        f"{name}: {Config.model_fields[name].description}",
    )


def _shown(value: Any) -> str:
    """A value for a message, not all of it where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}..."


def _prefix(source: str) -> str:
    return f"{source}: " if source else ""
