"""Runs methods on prompts, sample by sample, into a run directory."""

import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from typing import Any

from ... import __version__
from ...config import LoraSpec, knobs_that
from ...errors import AlignBeamError, Cancelled, ContextFull, UsageError
from ...heads.records import heads_hash
from ...judge.calibration import records_hash
from ...llama.gpus import supports_gpu
from ...llama.library import build, default_threads
from ...machine.machine import processor
from ...models.hashes import file_sha256, model_sha256
from ...models.registry import ModelFile, Registry
from ...result import Result
from ...result_json import error_object
from ...search.safety_tokens import token_path
from ..methods.model_pool import ModelPool
from ..methods.specs import MethodSpec
from ..suites.suites import Item, prompts_sha256
from .run_directory import Json, Log, SampleKey
from .shard import Shard
from .talks import Turns, talk


@dataclass(frozen=True)
class RunPlan:
    """All samples of a run: every arm on every item with every seed; of a shard, those of its groups.

    `turns` says whether a conversation's earlier answers are those that are given, or the model's own.
    """

    entries: Sequence[MethodSpec]
    items: Sequence[Item]
    seeds: Sequence[int]
    shard: Shard | None = None
    turns: Turns = "given"

    def __len__(self) -> int:
        return sum(len(group) for entry in self.entries for group in self.groups(entry))

    def samples(self, entry: MethodSpec) -> Iterator[tuple[SampleKey, Item]]:
        """One prompt after the other, all its seeds together."""
        for item in self.items:
            for seed in self.seeds:
                yield SampleKey(entry.name, item.suite, item.id, seed), item

    def groups(self, entry: MethodSpec) -> Iterator[list[tuple[SampleKey, Item]]]:
        """The samples in the groups that are answered together: fixed ones, because batches move logits."""
        for index, group in enumerate(self._all_groups(entry)):
            if self.shard is None or self.shard.has(index):
                yield group

    def _all_groups(self, entry: MethodSpec) -> Iterator[list[tuple[SampleKey, Item]]]:
        for _, suite in groupby(self.samples(entry), key=lambda sample: sample[0].suite):
            while group := list(islice(suite, entry.config.parallel)):
                yield group


def manifest(plan: RunPlan, registry: Registry) -> Json:
    """What decides the answers: knobs, models' hashes, prompts, builds, machine.

    Raises:
        UsageError, ModelError: a model is not named or not here.
    """
    suites: dict[str, Any] = {}
    for name in dict.fromkeys(item.suite for item in plan.items):
        own = [item for item in plan.items if item.suite == name]
        labels = Counter(item.label for item in own)
        suites[name] = {"prompts": len(own), "labels": labels, "sha256": prompts_sha256(own)}
    shard = {"shard": str(plan.shard)} if plan.shard else {}
    turns = {"turns": plan.turns} if any(item.earlier for item in plan.items) else {}
    return {
        "methods": {entry.name: _about(entry, registry) for entry in plan.entries},
        "suites": suites,
        "seeds": list(plan.seeds),
        "version": __version__,
        "llama_cpp": build(),
        "machine": _machine(),
        **turns,
        **shard,
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


def _about(entry: MethodSpec, registry: Registry) -> Json:
    knobs = entry.config.model_dump(mode="json", exclude=set(knobs_that("shared")))
    models = {}
    for role, spec in entry.method.models(entry.config).items():
        if spec is None:
            raise UsageError(f"method {entry.name}: no {role} is named", f"Give --{role} or --profile.")
        file = registry.require(spec)
        models[role] = about_model(file, role)
        if role == "draft" and entry.config.lora:
            models[role]["adapters"] = list(map(partial(_about_adapter, registry), entry.config.adapters))
    about = {"knobs": knobs, "parameters": entry.method.model_dump(), "models": models}
    if entry.config.safety_tokens != "none":
        about["safety_tokens"] = {"sha256": file_sha256(token_path(entry.config))}
    return about


def _about_adapter(registry: Registry, spec: LoraSpec) -> Json:
    file = registry.require(spec.file)
    return {"name": file.name, "sha256": file_sha256(file.path), "scale": spec.scale}


def about_model(file: ModelFile, role: str) -> Json:
    """The file, and what models.toml and the records of judges and heads make of it, as manifests say."""
    about: Json = {"name": file.name, "sha256": model_sha256(file.path)}
    if file.entry.format:
        about["format"] = file.entry.format
    if file.entry.reasons is False:
        about["reasons"] = False
    if found := heads_hash(role, about["sha256"]):
        about["head"] = found
    if role == "judge":
        asked = file.entry.judge.model_dump(mode="json", exclude_defaults=True)
        about |= {"judge": asked} if asked else {}
        about["calibration"] = records_hash(about["sha256"])
    return about


def run(plan: RunPlan, log: Log, pool: ModelPool) -> Iterator[tuple[SampleKey, Json]]:
    """Make the samples that the log does not hold yet; each is in it when it is yielded.

    A prompt that does not fit its context is a sample with an error instead of a result.

    Raises:
        Cancelled: the user stopped it; the log is whole.
        UsageError, ModelError: a method can't run here.
    """
    for entry in plan.entries:
        groups = [group for group in plan.groups(entry) if any(key not in log.done for key, _ in group)]
        if not groups:
            continue
        answers = entry.method.open(entry.config, pool)
        for group in groups:
            asked = [(item, entry.config.with_values({"seed": key.seed})) for key, item in group]
            talks = talk(answers, asked, own=plan.turns == "own")
            outcomes = [(_outcome(made.found), made.earlier) for made in talks]
            for (key, item), (outcome, earlier) in zip(group, outcomes, strict=True):
                if key not in log.done:
                    sample = {**_named(key, item), **earlier, **outcome}
                    log.append(sample)
                    yield key, sample


def _named(key: SampleKey, item: Item) -> Json:
    named: Json = {**key._asdict(), "label": item.label, "prompt": item.prompt}
    if item.category:
        named["category"] = item.category
    if item.reference is not None:
        named["reference"] = item.reference
    if item.prefill:
        named["prefill"] = item.prefill
    return named


def _outcome(found: Result | AlignBeamError) -> Json:
    if isinstance(found, ContextFull):
        return {"error": error_object(found)}
    if isinstance(found, AlignBeamError):
        raise found
    if found.finish_reason == "cancelled":
        raise Cancelled("cancelled")
    return {"result": found.as_dict()}
