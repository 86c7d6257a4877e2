"""A run's requests read once more, by the heads that its anchors have now."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from ...config import Config
from ...engine.about_model import about_model
from ...engine.open_reader import OpenHead
from ...errors import ModelError, UsageError
from ...models.registry import ModelFile, Registry
from ...prompt.formats import fold_system
from ...roles import is_anchor
from ...search.steering import reading_of
from ..methods.prompt import turns_of
from .asked import asked_in
from .run_directory import Json
from .scored_anew import kept_config, scored_anew


def anchors_now(methods: Mapping[str, Json], registry: Registry) -> dict[str, Json]:
    """What a manifest says by now of the anchors of some methods, by role.

    Raises:
        UsageError: the methods have different anchors, or left requests that a head cleared to the draft.
        ModelError: one is not here, or is another file by now.
    """
    if any(about["knobs"].get("steer") == "by_request" for about in methods.values()):
        raise UsageError(
            "the run left clear requests to the draft alone, by the heads that it had",
            "Run it with steer=always; its beams can be chosen from with every head and setting.",
        )
    kept = [{r: one for r, one in m["models"].items() if one and is_anchor(r)} for m in methods.values()]
    if any(models != kept[0] for models in kept):
        raise UsageError("the run's methods have different anchors", "Make a run of each to read it again.")
    files = {role: _required(str(about["name"]), registry) for role, about in kept[0].items()}
    now = {role: about_model(file, role) for role, file in files.items()}
    for role, about in now.items():
        if about["sha256"] != kept[0][role]["sha256"]:
            raise ModelError(f"{about['name']} is another file than in the run", "Run it again.")
    return now


def _required(name: str, registry: Registry) -> ModelFile:
    try:
        return registry.require(name)
    except UsageError:
        raise UsageError(
            f"the run's anchor {name} was given by its file, and a run does not keep where that is",
            f"`alignbeam models import FILE --name {name}` makes it known; it is held to the run's sha256.",
        ) from None


def read_anew(sample: Json, heads: Iterable[OpenHead]) -> Json:
    """A sample with what these heads make of its request, without a system prompt of ours.

    Its scores are then the judge's alone: the head before had a say in them.

    Raises:
        UsageError: as `scored_anew`.
        ContextFull, Cancelled, ModelError: as `RequestReader.read`.
        DAMAGE: the sample is damaged.
    """
    if "result" not in sample:
        return sample
    turns = fold_system(turns_of(asked_in(sample)))
    config = Config(alpha=kept_config(sample["result"]["config"]).alpha)
    found = reading_of(config, [one.steering(config, turns) for one in heads])
    result = scored_anew(sample["result"], "judge")
    own = {"score_by": "judge", "clear_below": None, "harmful_above": None}
    knobs = result["config"] | own  # a reading that failed had no say, whatever was asked
    return {**sample, "result": {**result, "steering": asdict(found), "config": knobs}}
