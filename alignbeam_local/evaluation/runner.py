"""Runs methods on prompts, sample by sample, into a run directory."""

import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..config import Config
from ..errors import Cancelled, ContextFull, UsageError
from ..events import Result
from ..hashes import model_sha256
from ..llama_lm import build, default_threads, supports_gpu
from ..machine import processor
from ..registry import Registry
from ..result_json import error_object, result_object
from .arms import Arm
from .method import Answerer
from .model_pool import ModelPool
from .run_directory import Json, Log, SampleKey
from .suites import Item, prompts_sha256


@dataclass(frozen=True)
class Plan:
    """All samples of a run: every arm on every item with every seed."""

    arms: Sequence[Arm]
    items: Sequence[Item]
    seeds: Sequence[int]

    def __len__(self) -> int:
        return len(self.arms) * len(self.items) * len(self.seeds)

    def samples(self, arm: Arm) -> Iterator[tuple[SampleKey, Item]]:
        """One prompt after the other, all its seeds together."""
        for item in self.items:
            for seed in self.seeds:
                yield SampleKey(arm.name, item.suite, item.id, seed), item


def manifest(plan: Plan, registry: Registry) -> Json:
    """What decides the answers: knobs, models' hashes, prompts, builds, machine.

    Raises:
        UsageError, ModelError: a model is not named or not here.
    """
    suites: dict[str, Any] = {}
    for name in dict.fromkeys(item.suite for item in plan.items):
        own = [item for item in plan.items if item.suite == name]
        labels = Counter(item.label for item in own)
        suites[name] = {"prompts": len(own), "labels": labels, "sha256": prompts_sha256(own)}
    return {
        "methods": {arm.name: _about(arm, registry) for arm in plan.arms},
        "suites": suites,
        "seeds": list(plan.seeds),
        "version": __version__,
        "llama_cpp": build(),
        "machine": _machine(),
    }


def _machine() -> Json:
    """What figures depend on; nothing that names the machine's owner."""
    return {
        "processor": processor(),
        "cores": default_threads(),
        "gpu": supports_gpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _about(arm: Arm, registry: Registry) -> Json:
    knobs = arm.config.model_dump(exclude={"seed", "draft", "anchor", "judge", "profile"})
    models = {}
    for role, spec in arm.method.models(arm.config).items():
        if spec is None:
            raise UsageError(f"method {arm.name}: no {role} is named", f"Give --{role} or --profile.")
        file = registry.require(spec)
        models[role] = {"name": file.name, "sha256": model_sha256(file.path)}
    return {"knobs": knobs, "parameters": arm.method.model_dump(), "models": models}


def run(plan: Plan, log: Log, pool: ModelPool) -> Iterator[tuple[SampleKey, Json]]:
    """Make the samples that the log does not hold yet; each is in it when it is yielded.

    A prompt that does not fit its context is a sample with an error instead of a result.

    Raises:
        Cancelled: the user stopped it; the log is whole.
        UsageError, ModelError: a method can't run here.
    """
    for arm in plan.arms:
        missing = [(key, item) for key, item in plan.samples(arm) if key not in log.done]
        if not missing:
            continue
        answerer = arm.method.open(arm.config, pool)
        for key, item in missing:
            sample = {**_named(key, item), **_answered(answerer, item, arm.config, key.seed)}
            log.append(sample)
            yield key, sample


def _named(key: SampleKey, item: Item) -> Json:
    named: Json = {**key._asdict(), "label": item.label, "prompt": item.prompt}
    if item.category:
        named["category"] = item.category
    if item.reference is not None:
        named["reference"] = item.reference
    return named


def _answered(answerer: Answerer, item: Item, config: Config, seed: int) -> Json:
    try:
        result: Result = answerer(item.prompt, config.with_values({"seed": seed}))
    except ContextFull as error:
        return {"error": error_object(error)}
    if result.finish_reason == "cancelled":
        raise Cancelled("cancelled")
    return {"result": result_object(result)}
