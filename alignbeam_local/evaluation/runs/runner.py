"""Runs methods on prompts, sample by sample, into a run directory."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

from ...cluster.builds import builds
from ...config import Config, knobs_that
from ...engine.about_model import about_model, adapters_of
from ...errors import UsageError
from ...models.hashes import file_sha256
from ...models.registry import Registry
from ...search.safety_tokens import token_path
from ..methods.method import Answerer
from ..methods.model_pool import ModelPool
from ..methods.specs import MethodSpec
from ..suites.suites import Item, prompts_sha256
from .run_directory import Json, Log, SampleKey
from .shard import Shard
from .talks import Turns, talk

#: Samples that are answered together.
Group = Sequence[tuple[SampleKey, Item]]


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

    def missing_groups(self, entry: MethodSpec, log: Log) -> list[list[tuple[SampleKey, Item]]]:
        """The groups of which the log lacks a sample."""
        return [group for group in self.groups(entry) if any(key not in log.done for key, _ in group)]

    def _all_groups(self, entry: MethodSpec) -> Iterator[list[tuple[SampleKey, Item]]]:
        for _, suite in groupby(self.samples(entry), key=lambda sample: sample[0].suite):
            while group := list(islice(suite, entry.config.parallel)):
                yield group


def manifest(plan: RunPlan, registry: Registry) -> Json:
    """What decides the answers: knobs, models' hashes, prompts, builds, machine.

    Raises:
        UsageError, ModelError: a model is not named or not here.
    """
    shard = {"shard": str(plan.shard)} if plan.shard else {}
    return {
        "methods": methods_about(plan.entries, registry),
        "suites": suites_about(plan.items),
        "seeds": list(plan.seeds),
        **builds(),
        **turns_about(plan),
        **shard,
    }


def turns_about(plan: RunPlan) -> Json:
    """Whose earlier answers are read, where a prompt has turns before it."""
    return {"turns": plan.turns} if any(item.earlier for item in plan.items) else {}


def suites_about(items: Sequence[Item]) -> Json:
    """By name how many prompts of which labels, and their hash."""
    suites: dict[str, Any] = {}
    for name in dict.fromkeys(item.suite for item in items):
        own = [item for item in items if item.suite == name]
        labels = Counter(item.label for item in own)
        suites[name] = {"prompts": len(own), "labels": labels, "sha256": prompts_sha256(own)}
    return suites


def methods_about(entries: Sequence[MethodSpec], registry: Registry) -> Json:
    """By name the knobs, parameters and models' hashes of each method. Raises: as `manifest`."""
    return {entry.name: _about(entry, registry) for entry in entries}


def _about(entry: MethodSpec, registry: Registry) -> Json:
    knobs = entry.config.model_dump(mode="json", exclude=set(knobs_that("shared")))
    models = {}
    for role, spec in entry.method.models(entry.config).items():
        if spec is None:
            raise UsageError(f"method {entry.name}: no {role} is named", f"Give --{role} or --profile.")
        file = registry.require(spec)
        models[role] = about_model(file, role, adapters_of(role, entry.config, registry))
    about = {"knobs": knobs, "parameters": entry.method.model_dump(), "models": models}
    if entry.method.needs_tokens(entry.config):
        about["safety_tokens"] = {"sha256": file_sha256(token_path(entry.config))}
    return about


def run(plan: RunPlan, log: Log, pool: ModelPool) -> Iterator[tuple[SampleKey, Json]]:
    """Make the samples that the log does not hold yet; each is in it when it is yielded.

    A prompt that does not fit its context is a sample with an error instead of a result.

    Raises:
        Cancelled: the user stopped it; the log is whole.
        UsageError, ModelError: a method can't run here.
    """
    for entry in plan.entries:
        groups = plan.missing_groups(entry, log)
        if not groups:
            continue
        answers = entry.method.open(entry.config, pool)
        for group in groups:
            yield from recorded(group, outcomes(answers, entry.config, questions(group), plan.turns), log)


def questions(group: Group) -> list[tuple[Item, int]]:
    """The prompt and the seed of each sample."""
    return [(item, key.seed) for key, item in group]


def outcomes(
    answers: Answerer, config: Config, asked: Sequence[tuple[Item, int]], turns: Turns
) -> list[Json]:
    """What becomes of prompts that are answered together: a result each, or why there is none.

    Raises:
        Cancelled: the user stopped it.
        AlignBeamError: the method can't run here.
    """
    talks = talk(
        answers, [(item, config.with_values({"seed": seed})) for item, seed in asked], own=turns == "own"
    )
    return [made.sampled() for made in talks]


def recorded(group: Group, made: Sequence[Json], log: Log) -> Iterator[tuple[SampleKey, Json]]:
    """Write the samples of a group that the log does not hold yet; each is in it when it is yielded."""
    for (key, item), outcome in zip(group, made, strict=True):
        if key not in log.done:
            sample = {**_named(key, item), **outcome}
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
