"""How the draft goes on, and where an answer ends."""

from typing import Annotated

from pydantic import BaseModel, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from .knob import Knob, knob
from .values import LEAST_DIVISOR, MOST_TOKENS, as_none, one_text_or_a_list

#: Of 32 bits, with room for a seed a beam.
MOST_SEED = 2**32 - 65
_MOST_TOP_K = 2**31 - 1


class SamplingKnobs(BaseModel):
    """Sampling, length and form."""

    temperature: Annotated[float, Field(ge=0, le=10)] = knob(
        0.7, "sampling temperature after the mixed tokens; 0 = greedy", Knob("Sampling", ("measured",))
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = knob(
        1.0, "nucleus sampling; 1.0 = off", Knob("Sampling", ("measured",))
    )
    top_k: Annotated[int, Field(ge=0, le=_MOST_TOP_K)] = knob(
        0, "sample among this many likeliest tokens; 0 = all", Knob("Sampling", ("measured",))
    )
    min_p: Annotated[float, Field(ge=0, le=1)] = knob(
        0.0,
        "leave out tokens less likely than this share of the likeliest one's probability; 0 = none",
        Knob("Sampling", ("measured",)),
    )
    repeat_penalty: Annotated[float, Field(ge=LEAST_DIVISOR, le=10)] = knob(
        1.15, "penalty on tokens the answer already holds; 1.0 = none", Knob("Sampling", ("measured",))
    )
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = knob(
        42, "beam i is seeded with seed + i", Knob("Sampling", ("shared",))
    )
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = knob(
        512, "the longest answer, in draft tokens", Knob("Sampling", ("sizes",))
    )
    stop: tuple[str, ...] = knob(
        (),
        "texts that end the answer, which is what came before; the flag can be repeated",
        Knob("Sampling"),
    )
    prefill: str | None = knob(
        None,
        "what every answer is made to begin with: the first mixed token comes after it, the judge reads it, "
        "and it is no part of the answer's text; for measuring such attacks",
        Knob("Sampling"),
    )
    ignore_eos: bool = knob(False, "go on past the end of the answer (for timing)", Knob("Sampling"))
    grammar: str | None = knob(
        None, "a grammar (GBNF) that the answer keeps to, mixed tokens too; none = any text", Knob("Sampling")
    )
    json_schema: str | None = knob(
        None, "a JSON schema that the answer keeps to, in place of a grammar", Knob("Sampling")
    )

    _none_of_sampling = field_validator("grammar", "json_schema", "prefill", mode="before")(as_none)
    _stops = field_validator("stop", mode="before")(one_text_or_a_list)

    @field_validator("stop")
    @classmethod
    def _each_a_text(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise PydanticCustomError("empty", "an empty text would end every answer at once")
        return value

    @field_validator("grammar", "json_schema")
    @classmethod
    def _alone(cls, value: str | None, info: ValidationInfo) -> str | None:
        """What a grammar promises, nothing else may cut or lengthen."""
        if value is None:
            return None
        if not value.strip():
            raise PydanticCustomError("blank", "there is nothing in it")
        for other in ("stop", "prefill", "ignore_eos", "grammar"):
            if other != info.field_name and info.data.get(other):
                raise PydanticCustomError("alone", "it does not go together with {other}", {"other": other})
        return value

    @field_validator("temperature")
    @classmethod
    def _not_next_to_0(cls, value: float) -> float:
        if 0 < value < LEAST_DIVISOR:
            raise PydanticCustomError("tiny", f"input should be 0, or at least {LEAST_DIVISOR:g}")
        return value
