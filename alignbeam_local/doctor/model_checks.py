"""Are the models of a configuration here, whole and right; does llama.cpp run them; do they fit, and pair?"""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import psutil

from ..config import Config
from ..engine.loader import require_silent_chat, usable_gpus
from ..engine.open_judge import open_judge
from ..errors import AlignBeamError, RpcError
from ..heads.answer_head import ANSWER_HEADS, no_answer_head
from ..heads.features import template_key
from ..heads.head import REQUEST_HEADS
from ..heads.records import is_opened
from ..judge.calibration import load_calibration
from ..llama.weights import load_vocabulary
from ..lm.devices import Gpu
from ..lm.vocabulary import Vocabulary
from ..machine import memory as memory_plan
from ..machine import probe
from ..machine.adapters import find_adapters, with_adapters
from ..machine.context_size import context_sizes
from ..machine.memory import gib
from ..machine.placement import Placement, place
from ..models.entry import CLASSIFIERS
from ..models.gguf_header import GgufHeader, require_model
from ..models.hashes import file_sha256, fresh_sha256, model_sha256
from ..models.pull import check_sha256, expected_sha256
from ..models.registry import ModelFile, Registry
from ..pair.check import check_pair, single_share
from ..paths import data_dir
from ..prompt.formats import PromptFormat, prompt_format
from ..result import ModelCard
from ..search.bridge import bridge_between
from ..search.safety_tokens import require_tokens
from ..search.steering import head_thresholds
from .findings import Finding, problem
from .rpc_checks import ON_PROCESSOR_ALONE, servers, where_layers_lie

_RECORDS: tuple[tuple[str, Callable[[Path], object]], ...] = (
    ("judges", load_calibration),
    ("heads", REQUEST_HEADS.load),
    ("heads/answers", ANSWER_HEADS.load),
)


class _Model(NamedTuple):
    """A model that is here, whole, and runs; `digest` is what it is known by."""

    file: ModelFile
    header: GgufHeader
    has_known_hash: bool
    may_be_repacked: bool
    vocabulary: Vocabulary
    layout: PromptFormat
    digest: str


def findings(config: Config, registry: Registry, *, verify: bool) -> Iterator[Finding]:
    """The model of each role, the memory they take, the pair, a classifier's labels, the user's records.

    Args:
        verify: read whole files for their sha256, also where it is remembered.
    """
    try:
        devices = usable_gpus(config)
        yield from servers(config, devices)
        placement = _placement(config, registry, devices)
    except AlignBeamError as error:
        yield problem("rpc" if isinstance(error, RpcError) else "gpu", error)
        placement = _placement(config, registry, [])
    models: dict[str, _Model] = {}
    by_spec: dict[str, _Model] = {}
    for role in config.roles:
        try:
            spec = config.model_named(role)
            if spec not in by_spec:
                by_spec[spec] = _examined(spec, placement, registry, verify=verify)
            yield _model(role, by_spec[spec])
            models[role] = by_spec[spec]
        except AlignBeamError as error:
            yield problem(role, error)
    if "draft" in models and config.lora:
        yield from _adapters(config, registry, models["draft"], placement)
    if models:
        yield _kernels(models)
        yield _memory(placement, models)
    anchors = [models[role] for role in config.anchor_roles if role in models]
    if "draft" in models:
        yield from (_pair(config, models["draft"], anchor) for anchor in anchors)
    if "draft" in models and "anchor" in models and config.lora:
        yield _own_base(models["draft"], models["anchor"])
    yield from (_head(config, anchor) for anchor in anchors)
    if "draft" in models and config.goes_by_tokens:
        yield _safety_tokens(models["draft"], config)
    if "draft" in models and config.needs_answer_head:
        yield _answer_head(models["draft"], config, registry)
    if "judge" in models and models["judge"].file.entry.judge.format in CLASSIFIERS:
        yield _labels(config, registry)
    yield from _records()


def _placement(config: Config, registry: Registry, devices: Sequence[Gpu]) -> Placement:
    """Where the models would go whose headers can be read.

    Raises:
        UsageError: a device was asked for that is not there; with no devices at all, never.
    """
    wanted = {}
    for role, size in context_sizes(config).items():
        with suppress(AlignBeamError):  # told where the role itself is looked at
            path = registry.require(config.model_named(role)).path
            if not is_opened(role, path):
                continue
            wanted[role] = (require_model(path), size)
            if role == "draft" and config.lora:
                adapters = find_adapters(config, registry, path, model_sha256(path))
                wanted[role] = (with_adapters(wanted[role][0], adapters), size)
    return place(wanted, devices, config if devices else config.with_values(dict(ON_PROCESSOR_ALONE)), {})


def _examined(spec: str, placement: Placement, registry: Registry, *, verify: bool) -> _Model:
    """What loading would do, and in its order, up to the weights themselves.

    Raises:
        UsageError, ModelError: what loading would fail with.
    """
    file = registry.require(spec)
    header = require_model(file.path)
    check_sha256(file, (fresh_sha256 if verify else file_sha256)(file.path))
    offload = placement.offloads[file.path.resolve()]
    may_be_repacked = probe.weights_may_be_repacked(file.path, offload=offload)
    vocabulary, template = load_vocabulary(file.path)
    layout = prompt_format(template, vocabulary, file.entry.format, file.entry.reasons)
    is_known, digest = expected_sha256(file) is not None, model_sha256(file.path)
    return _Model(file, header, is_known, may_be_repacked, vocabulary, layout, digest)


def _model(role: str, model: _Model) -> Finding:
    """Raises: ModelError: it can't play this role."""
    if role != "draft":
        require_silent_chat(role, model.file.name, model.layout)
    checked = "sha256 matches" if model.has_known_hash else "no published sha256 to compare with"
    layout = "chat" if model.layout.uses_template else "base"
    size = _mb(model.header.bytes)
    message = f"{model.file.name}, {model.header.quantisation}, {size}, {layout}: runs, {checked}"
    return Finding(role, "ok", message, details={"name": model.file.name, "path": str(model.file.path)})


def _adapters(config: Config, registry: Registry, draft: _Model, placement: Placement) -> Iterator[Finding]:
    """The draft's adapters, tried out with it."""
    try:
        found = find_adapters(config, registry, draft.file.path, draft.digest)
        tried = [adapter.tried for adapter in found]
        offload = placement.offloads[draft.file.path.resolve()]
        probe.require_adapters(draft.file.path, tried, offload=offload)
    except AlignBeamError as error:
        yield problem("lora", error)
        return
    for adapter in found:
        about, details = adapter.about, asdict(adapter.card)
        ranks = "/".join(map(str, about.ranks))
        message = (
            f"{adapter.file.name}, rank {ranks}, alpha {about.alpha:g}, {len(about.pairs)} weights, "
            f"{_mb(about.bytes)}, scale {adapter.scale:g}: runs on the draft"
        )
        if not about.base_sha256:
            message += "; the file does not say which model it was trained on"
        yield Finding("lora", "ok", message, details=details)


def _safety_tokens(draft: _Model, config: Config) -> Finding:
    """The file that names them, held to the draft's vocabulary."""
    try:
        found = require_tokens(config, draft.vocabulary, draft.file.name)
    except AlignBeamError as error:
        return problem("tokens", error)
    return Finding("tokens", "ok", f"{len(found.ids)} safety tokens of the draft, by {found.kind}")


def _kernels(models: Mapping[str, _Model]) -> Finding:
    if all(model.may_be_repacked for model in models.values()):
        return Finding("kernels", "ok", "the fastest ones run here")
    message, _, hint = probe.NOTICE.partition("; ")
    return Finding("kernels", "warning", message, hint)


def _memory(placement: Placement, models: Mapping[str, _Model]) -> Finding:
    needs, total, memory = placement.needs, placement.host_bytes, psutil.virtual_memory()
    offloads = {role: placement.offloads[m.header.path.resolve()] for role, m in models.items()}
    layers = {role: offload.layers for role, offload in offloads.items()}
    where = {role: where_layers_lie(offload) for role, offload in offloads.items()}
    parts = [
        f"{role} {_mb(need.weights)} weights + {_mb(need.cache)} cache + "
        f"{_mb(need.logits + need.compute)} buffers"
        + (f", {layers[role]} layers on {where[role]}" if layers.get(role) else "")
        for role, need in needs.items()
    ]
    message = f"{gib(total)} needed, {gib(memory.available)} of {gib(memory.total)} free: {'; '.join(parts)}"
    details = {
        "free": memory.available,
        "needed": {role: need._asdict() for role, need in needs.items()},
        "gpu_layers": layers,
        "devices": {
            str(device): {path.name: size for path, size in files.items()}
            for device, files in placement.taken.items()
        },
    }
    if memory_plan.fits(total, memory.available):
        return Finding("memory", "ok", message, details=details)
    return Finding("memory", "problem", message, memory_plan.HINT, details)


def _pair(config: Config, draft: _Model, anchor: _Model) -> Finding:
    bridge = bridge_between(draft.vocabulary, draft.layout, anchor.vocabulary)
    of = f"{anchor.file.name}: " if len(config.anchor_roles) > 1 else ""
    try:
        notices = [notice.message for notice in check_pair(bridge, force=config.force)]
    except AlignBeamError as error:
        return problem("pair", error)
    hint = f"See: alignbeam bridge {draft.file.name} {anchor.file.name}"
    if notices:
        return Finding("pair", "warning", f"{of}{'; '.join(notices)}", hint)
    share = f"{single_share(bridge):.0%} of the anchor's usual tokens reach the draft"
    return Finding("pair", "ok", f"{of}{share}")


def _own_base(draft: _Model, anchor: _Model) -> Finding:
    """What an adapter's own base saves as its anchor, or would."""
    size = _mb(draft.header.bytes)
    if draft.header.path.samefile(anchor.header.path):
        message = f"draft and anchor are one file, loaded once: {size} less than two, and every token crosses"
        return Finding("own base", "ok", message, details={"saved_bytes": draft.header.bytes})
    if not draft.layout.uses_template:
        return Finding("own base", "ok", "the draft without its adapters has no chat template: no anchor")
    message = (
        f"the draft without its adapters would be an anchor for nothing: {_mb(anchor.header.bytes)} less, "
        "and every token crosses"
    )
    hint = f"--anchor {shlex.quote(draft.file.name if draft.has_known_hash else str(draft.file.path))}"
    return Finding("own base", "ok", message, hint, {"saved_bytes": anchor.header.bytes})


def _head(config: Config, anchor: _Model) -> Finding:
    """Whether requests can be read before they are answered; a damaged record is told with the others."""
    name = anchor.file.name
    head = None
    with suppress(AlignBeamError):
        digest = model_sha256(anchor.file.path)
        head = REQUEST_HEADS.find(digest, template_key(anchor.layout, anchor.vocabulary))
    if head:
        limits = head_thresholds(config, head.thresholds.low, head.thresholds.high)
        low, high = (f"{limit:.2f}" for limit in limits)
        of = f"{name}: " if len(config.anchor_roles) > 1 else ""
        return Finding("head", "ok", f"{of}requests can be read: clear up to {low}, harmful above {high}")
    message = f"there is no head for {name}: requests are not read"
    if not config.reads_request:
        return Finding("head", "ok", f"{message}; nothing here goes by it")
    hint = f"Fit one: alignbeam heads fit {name}"
    if config.steer == "always":
        return Finding("head", "ok", f"{message}, and the choice is the paper's", hint)
    return Finding("head", "warning", f"{message}, and all are steered", hint)


def _answer_head(draft: _Model, config: Config, registry: Registry) -> Finding:
    """The judge, where it is the draft's own head: without one nothing is answered."""
    name = draft.file.name
    try:
        adapters = find_adapters(config, registry, draft.file.path, draft.digest)
        card = ModelCard(name, "", draft.digest, "", tuple(adapter.card for adapter in adapters))
        head = ANSWER_HEADS.find(card.weights_sha256, template_key(draft.layout, draft.vocabulary))
    except AlignBeamError as error:
        return problem("answer head", error)
    if head is None:
        return problem("answer head", no_answer_head(name))
    return Finding("answer head", "ok", f"the answer head of {name}, fitted {head.date}")


def _labels(config: Config, registry: Registry) -> Finding:
    """A classifier is loaded: nothing less shows that its template and labels are its own."""
    try:
        with open_judge(config, registry, calibrated=False):
            return Finding("labels", "ok", "the judge tells help with harm from a refusal")
    except AlignBeamError as error:
        return problem("labels", error)


def _records() -> Iterator[Finding]:
    """The user's own records: a damaged one of a judge would stop every answer, one of a head is as none."""
    for folder, load in _RECORDS:
        for path in sorted((data_dir() / folder).glob("*.json")):
            try:
                load(path)
            except AlignBeamError as error:
                yield problem("record", error)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
