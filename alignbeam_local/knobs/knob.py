"""What a knob is besides its type, default and meaning: marks that every set of knobs is read from."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from pydantic import Field

#: The heading that a knob stands under, in `--help`, config.toml and the reference.
Panel = Literal["Method", "Steering", "Judge", "Sampling", "Models", "Machine"]
PANELS: tuple[Panel, ...] = get_args(Panel)

Mark = Literal[
    "loads",  # it decides what is loaded: it can't change between answers
    "places",  # it decides which layers lie on a GPU
    "sizes",  # it decides what memory an answer takes: the doctor asks for it
    "judges",  # it is without effect where nothing is judged
    "selects",  # it decides which finished beam is chosen, and nothing before
    "measured",  # a sweep's recommended profile sets it
    "shared",  # all methods of an evaluation have the same, or a run says it elsewhere: no method's own
    "benched",  # `bench --sweep` can change it
]


@dataclass(frozen=True)
class Knob:
    """What stands beside a field of `Config`.

    Attributes:
        panel: its heading.
        marks: what else is to be known of it.
        symbol: the paper's letter for it, which a person may type as well.
    """

    panel: Panel
    marks: tuple[Mark, ...] = ()
    symbol: str | None = None


def knob(default: Any, description: str, about: Knob) -> Any:
    """A field of `Config`: its default, its meaning, and what else is to be known of it."""
    return Field(default, description=description, json_schema_extra=asdict(about))
