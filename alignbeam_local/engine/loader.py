"""The three models of an answer, opened in order, sharing weights where they share a file."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

import psutil

from ..cancellation import Cancellation
from ..config import Config, knobs_that
from ..errors import ModelError
from ..events import Notice
from ..heads.records import is_opened
from ..llama import gpus as offload
from ..llama import rpc
from ..llama.adapter import LoadedAdapter
from ..llama.context import LlamaLM
from ..llama.library import default_threads
from ..llama.weights import LlamaWeights
from ..lm.devices import ON_PROCESSOR, Gpu, Offload
from ..lm.starvation import Starvation
from ..machine import memory as memory_plan
from ..machine import probe, servers
from ..machine.adapters import FoundAdapter, find_adapters, with_adapters
from ..machine.context_size import ContextSize
from ..machine.memory import gib
from ..machine.placement import Placement, place
from ..models.gguf_header import GgufHeader, require_model
from ..models.hashes import file_sha256, model_sha256
from ..models.pull import check_sha256
from ..models.registry import ModelFile, Registry
from ..prompt.formats import REASONS_HINT, PromptFormat, prompt_format
from ..result import ModelCard
from ..roles import ROLES
from ..settings import flag_name
from .open_models import Model

_PLACING_KNOBS = knobs_that("places")
OVER_RPC = (
    "layers lie behind RPC servers: llama.cpp saves no states there, so nothing that was read is kept for "
    "later (no prompt cache, no saved conversation), and a server that is lost ends the answer"
)
NO_SERVER_USED = "no RPC server is used: {reason}"


class Loader:
    """Opens models for one configuration and closes all it opened: contexts first, then weights."""

    def __init__(self, config: Config, registry: Registry, cancellation: Cancellation) -> None:
        self._config = config
        self._registry = registry
        self._cancellation = cancellation
        self.starvation = Starvation()  # of all that is opened
        self._weights: dict[Path, LlamaWeights] = {}
        self._contexts: list[LlamaLM] = []
        self._headers: dict[Path, GgufHeader] = {}
        self._digests: dict[Path, str] = {}
        self._offloads: dict[Path, Offload] = {}
        self._adapters: tuple[FoundAdapter, ...] = ()  # of the draft
        self._adapted: Path | None = None  # the draft's file, where it has adapters

    def adopt(self, config: Config) -> None:
        """Open for this configuration from now on; weights that it loads otherwise are closed."""
        if any(getattr(config, knob) != getattr(self._config, knob) for knob in _PLACING_KNOBS):
            self.close()
        self._config = config

    def keep_only(self, paths: Iterable[Path]) -> None:
        """Close the weights of all other files; no context may be open on them."""
        kept = {path.resolve() for path in paths}
        for path in [path for path in self._weights if path not in kept]:
            self._weights.pop(path).close()

    def find(self, role: str, spec: str | None = None) -> ModelFile:
        """The file that a role's knob names, or else the one that `spec` does; with a draft its adapters.

        Raises:
            UsageError: no model is named.
            ModelError: it is not there, is no whole GGUF file of a model that generates text, or is not the
                file that its name promises; or likewise an adapter, or it does not fit.
        """
        file = self._registry.require(spec or self._config.model_named(role))
        self._headers[file.path.resolve()] = require_model(file.path)
        digest = self._digest(file.path)
        check_sha256(file, file_sha256(file.path))
        if role == "draft":
            self._adapters = find_adapters(self._config, self._registry, file.path, digest)
            self._adapted = file.path.resolve() if self._adapters else None
        return file

    def place(self, needs: Mapping[str, tuple[Path, ContextSize]], *, spare: int = 0) -> bool:
        """Decide which layers go to a GPU, and refuse what can't fit, before anything is loaded.

        Args:
            needs: the file and the context's size of each role.
            spare: bytes of this process that can be let go for it.

        Returns:
            Whether it fits without these being let go.

        Raises:
            UsageError: a knob names a GPU that does not exist.
            ModelError: layers were asked for on a GPU that can't be used; or weights not loaded yet, each
                file once, caches and buffers need more of the machine's memory than what is free.
        """
        wanted = {
            role: (self._header(role, path), size)
            for role, (path, size) in needs.items()
            if is_opened(role, path)
        }
        opened = {path: self._offloads.get(path, ON_PROCESSOR) for path in self._weights}
        placement = place(wanted, self._usable_gpus(), self._config, opened)
        unused = psutil.virtual_memory().available
        free = unused + spare
        if not memory_plan.fits(placement.host_bytes, free):
            sizes: Counter[Path] = Counter()
            for role, need in placement.needs.items():
                sizes[needs[role][0]] += need.total
            parts = " + ".join(f"{path.stem} {gib(size)}" for path, size in sizes.items())
            on_gpu = sizes.total() - placement.host_bytes
            parts += f" - {gib(on_gpu)} on {_where(placement)}" if on_gpu else ""
            raise ModelError(f"not enough memory: {parts} needed, {gib(free)} free", memory_plan.HINT)
        self._offloads |= placement.offloads
        return memory_plan.fits(placement.host_bytes, unused)

    def _usable_gpus(self) -> list[Gpu]:
        opened = (weights.offload.servers for weights in self._weights.values())
        return usable_gpus(self._config, {address for addresses in opened for address in addresses})

    def _header(self, role: str, path: Path) -> GgufHeader:
        header = self._headers[path.resolve()]
        return with_adapters(header, self._adapters) if role == "draft" else header

    def prepare(self, *models: Path) -> Iterator[Notice]:
        """Try out how the files are loaded on this machine; a new one takes a child process.

        Raises:
            ModelError: llama.cpp crashes with a file, or can't load it.
        """
        if self._config.rpc:
            yield Notice(self._told_of_servers(models))
        outcomes = [self._may_be_repacked(model) or self._is_on_servers(model) for model in models]
        if not all(outcomes):
            yield Notice(probe.NOTICE)
        for model in {path.resolve(): path for path in models if path.resolve() == self._adapted}.values():
            self._try_adapters(model)
        wants_gpu = self._config.gpu_layers == "auto" and not self._config.rpc
        if wants_gpu and not usable_gpus(self._config) and probe.says_no_offload():
            yield Notice(probe.NO_OFFLOAD)

    def open(self, role: str, file: ModelFile, size: ContextSize, *, reads: bool = False) -> Model:
        """Load a model where it was placed, or share its weights, and make a context on them.

        With `reads` it is to read, at any of its layers, and makes no answers.

        Raises:
            ModelError: llama.cpp can't, or the file is not the one that was found.
        """
        weights, digest = self._share_weights(file.path), self._digests[file.path.resolve()]
        adapters = self._adapters if role == "draft" else ()
        lm = LlamaLM(
            weights,
            sha256=digest,
            num_sequences=size.num_sequences,
            num_cells=size.shared_cells if self._shares_cells(weights) else size.copied_cells,
            threads=self._config.threads or default_threads(),
            kv_strategy=self._config.kv,
            flash_attn=self._config.flash_attn,
            cache_types=self._config.cache_types(role),
            adapters=[_load_adapter(weights, adapter) for adapter in adapters],
            cancellation=self._cancellation,
            starvation=self.starvation,
            reads_layers=reads,
        )
        self._contexts.append(lm)
        info = weights.info
        cards = tuple(adapter.card for adapter in adapters)
        card = ModelCard(file.name, str(file.path), digest, info.quantisation, cards)
        layout = prompt_format(info.chat_template, lm.vocabulary, file.entry.format, file.entry.reasons)
        trained = info.context_length
        return Model(lm, layout, card, min(self._config.context, trained), trained)

    def _shares_cells(self, weights: LlamaWeights) -> bool:
        return self._config.kv == "seq" or (self._config.kv == "auto" and weights.rewinds)

    def _digest(self, path: Path) -> str:
        """What the model is known by; the same as long as its weights are open."""
        real, digest = path.resolve(), model_sha256(path)
        if real in self._weights and digest != self._digests[real]:
            raise _replaced(path)
        self._digests[real] = digest
        return digest

    def _share_weights(self, path: Path) -> LlamaWeights:
        real = path.resolve()
        if real not in self._weights:
            found = self._digests.setdefault(real, model_sha256(path))
            weights = LlamaWeights(
                path,
                offload=self._offloads.get(real, ON_PROCESSOR),
                use_extra_bufts=self._may_be_repacked(path),
                cancellation=self._cancellation,
            )
            try:
                if model_sha256(path) != found:
                    raise _replaced(path)
            except ModelError:
                weights.close()
                raise
            self._weights[real] = weights
        return self._weights[real]

    def _may_be_repacked(self, path: Path) -> bool:
        """Of a file on servers the vocabulary alone is tried: its weights would travel twice."""
        if self._is_on_servers(path):
            probe.require_vocabulary(path)
            return False
        offload = self._offloads.get(path.resolve(), ON_PROCESSOR)
        return probe.weights_may_be_repacked(path, offload=offload, cancellation=self._cancellation)

    def _is_on_servers(self, path: Path) -> bool:
        return bool(self._offloads.get(path.resolve(), ON_PROCESSOR).servers)

    def _told_of_servers(self, models: Iterable[Path]) -> str:
        if any(map(self._is_on_servers, models)):
            return OVER_RPC
        return NO_SERVER_USED.format(reason="all layers fit on this machine's GPUs, or none fits on a server")

    def _try_adapters(self, model: Path) -> None:
        if self._is_on_servers(model):
            return
        offload = self._offloads.get(model.resolve(), ON_PROCESSOR)
        tried = [adapter.tried for adapter in self._adapters]
        probe.require_adapters(model, tried, offload=offload, cancellation=self._cancellation)

    def close_contexts(self) -> None:
        """Free the caches and keep the weights, for contexts of another size."""
        while self._contexts:
            self._contexts.pop().close()

    def close(self) -> None:
        """Close everything; safe to call twice."""
        self.close_contexts()
        while self._weights:
            self._weights.popitem()[1].close()


def _load_adapter(weights: LlamaWeights, adapter: FoundAdapter) -> LoadedAdapter:
    """Raises: ModelError: llama.cpp refuses it, or the file is not the one that was found."""
    loaded = weights.adapter(*adapter.tried)
    if file_sha256(adapter.file.path) != adapter.sha256:
        weights.forget_adapter(adapter.sha256)
        raise _replaced(adapter.file.path)
    return loaded


def _where(placement: Placement) -> str:
    kinds = {"servers" if isinstance(device, str) else "the GPU" for device in placement.taken}
    return " and ".join(sorted(kinds, reverse=True)) or "the GPU"


def _replaced(path: Path) -> ModelError:
    return ModelError(f"{path} was replaced while it was in use", "Start again, with the new file.")


def require_silent_chat(role: str, name: str, layout: PromptFormat) -> None:
    """An anchor or a judge must answer at once, in a turn of its own.

    Raises:
        ModelError: it is a base model, or reasons before it answers.
    """
    if not layout.uses_template:
        raise ModelError(
            f"the {role} {name} has no chat template: it is a base model",
            "Take an instruct model, or set its format in models.toml.",
        )
    if layout.thinking == "thinks":
        raise ModelError(
            f"the {role} {name} reasons before it answers, and that can't be turned off",
            f"Take an instruct model that does not reason. {REASONS_HINT}",
        )


def usable_gpus(config: Config, connected: Container[str] = ()) -> list[Gpu]:
    """What layers may be placed on: what RPC servers have, then the GPUs of this machine.

    None where none are wanted, or there is neither.

    Args:
        connected: servers that this process has models on: they are not looked at in a child process, which
            would wait until this one is done with them.

    Raises:
        ModelError: a GPU was asked for, and there is none.
        RpcError: as `servers.look_at`.
    """
    if config.gpu_layers == 0:
        return []
    gpus = offload.gpus()
    if not gpus and (asked := _asked_for_gpu(config)):
        raise ModelError(
            f"{asked} = {getattr(config, asked)} asks for a GPU, but llama.cpp was built without "
            "GPU support or finds none",
            f"See 'GPU offload' in docs/install.md, or leave {flag_name(asked)} out.",
        )
    return [*_on_servers(config, connected), *gpus]


def _asked_for_gpu(config: Config) -> str | None:
    """The first knob that is for GPUs of this machine alone, as it is set."""
    asked = {knob: getattr(config, knob) != Config.model_fields[knob].default for knob in _PLACING_KNOBS}
    asked |= {f"{role}_gpu": bool(config.gpus_of(role)) for role in ROLES}
    if config.rpc:
        asked |= {"rpc": False, "gpu_layers": False, "tensor_split": False}
    return next((knob for knob, is_asked in asked.items() if is_asked), None)


def _on_servers(config: Config, connected: Container[str]) -> Iterator[Gpu]:
    addresses = list(dict.fromkeys(server.address for server in config.servers))
    unknown = [address for address in addresses if address not in connected]
    found = {server.address: server.devices for server in servers.look_at(unknown)} if unknown else {}
    for address in addresses:
        yield from rpc.server_devices(address) if address in connected else found[address]
