"""Which models play which role, and what they are told."""

from typing import Any

from pydantic import BaseModel, field_validator
from pydantic_core import PydanticCustomError

from ..errors import UsageError
from ..roles import MOST_ANCHORS, anchor_number, anchor_role, is_anchor
from .knob import Knob, knob
from .values import LoraSpec, lora_spec, one_text_or_a_list, texts

#: Named as the judge it says: no model of its own, the draft's answer head.
HEAD_JUDGE = "head"


class ModelKnobs(BaseModel):
    """The models, by role."""

    draft: str | None = knob(
        None,
        "the specialist: a name, a path or hf:owner/repo/file.gguf",
        Knob("Models", ("loads", "sizes", "measured", "shared")),
    )
    anchor: str | tuple[str, ...] | None = knob(
        None,
        "the aligned model that lends its first tokens; the flag can be repeated, for several",
        Knob("Models", ("loads", "sizes", "measured", "shared")),
    )
    judge: str | None = knob(
        None,
        "the model that scores the beams; or head: the draft's own answer head, and no model beside it",
        Knob("Models", ("loads", "sizes", "judges", "measured", "shared")),
    )
    profile: str | None = knob(
        None,
        "a named set of models and knobs; without one, the default_profile of models.toml",
        Knob("Models", ("loads", "sizes", "shared")),
    )
    lora: tuple[str, ...] = knob(
        (),
        "LoRA adapters on the draft, each FILE or FILE:SCALE (1 if not said), a name or an address as for a "
        "model; the flag can be repeated; none = the draft as it is",
        Knob("Models", ("loads", "sizes", "measured", "shared")),
    )
    system: str | None = knob(
        None,
        "the system prompt, for the draft; as a flag, @FILE is what a file holds",
        Knob("Models", ("measured",)),
    )
    anchor_system: str = knob(
        "none",
        "the anchor's system prompt: none, same (as the draft's), or a text",
        Knob("Models", ("measured",)),
    )
    force: bool = knob(False, "run a pair even if its bridge is hopeless", Knob("Models", ("loads",)))

    _adapters = field_validator("lora", mode="before")(one_text_or_a_list)

    @field_validator("anchor", mode="before")
    @classmethod
    def _one_anchor_or_several(cls, value: Any) -> Any:
        """One is its name, as ever; several are a list, in which a list may stand written as JSON."""
        listed = texts(value) if isinstance(value, str) else value
        if not isinstance(listed, list | tuple):
            return value
        if not listed or not all(isinstance(name, str) and name for name in listed):
            raise PydanticCustomError("anchors", "each anchor is a model's name")
        if len(listed) > MOST_ANCHORS:
            raise PydanticCustomError("anchors", "at most {most} anchors", {"most": MOST_ANCHORS})
        if twice := next((name for name in listed if listed.count(name) > 1), None):
            raise PydanticCustomError("twice", "{name} is there twice", {"name": twice})
        return listed[0] if len(listed) == 1 else tuple(listed)

    @field_validator("lora")
    @classmethod
    def _each_an_adapter(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        files = [lora_spec(text).file for text in value]
        if "none" in files:
            raise PydanticCustomError("none", "none says that there is no adapter: it stands alone")
        if twice := next((file for file in files if files.count(file) > 1), None):
            raise PydanticCustomError("twice", "{file} is there twice", {"file": twice})
        return value

    @property
    def judged_by_head(self) -> bool:
        """Whether the draft's answer head is the judge."""
        return self.judge == HEAD_JUDGE

    @property
    def anchor_names(self) -> tuple[str, ...]:
        """The anchors as they are named, in their order; none is named, or one, or several."""
        return self.anchor if isinstance(self.anchor, tuple) else (self.anchor,) if self.anchor else ()

    @property
    def anchor_roles(self) -> tuple[str, ...]:
        """The roles of the anchors: `anchor`, then `anchor2` and so on. There is always one."""
        return tuple(anchor_role(number) for number in range(max(1, len(self.anchor_names))))

    def named(self, role: str) -> str | None:
        """The model that is named for a role, if one is; a twin is its anchor's."""
        if not is_anchor(role):
            spec: str | None = getattr(self, role)
            return spec
        number = anchor_number(role)
        return self.anchor_names[number] if number < len(self.anchor_names) else None

    def model_named(self, role: str) -> str:
        """Raises: UsageError: no model is named for this role."""
        spec = self.named(role)
        if spec is None:
            raise UsageError(f"no {role} model is named", f"Give --{role} MODEL or --profile NAME.")
        return spec

    @property
    def adapters(self) -> tuple[LoraSpec, ...]:
        """The draft's LoRA adapters, in their order."""
        return tuple(map(lora_spec, self.lora))
