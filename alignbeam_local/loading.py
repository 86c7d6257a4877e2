"""The three models of an answer, opened in order, sharing weights where they share a file."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

from . import gguf_header, llama_lm, probe
from .cancellation import Cancellation
from .config import Config
from .errors import ModelError, UsageError
from .events import ModelCard, Notice
from .hashes import file_sha256
from .llama_lm import LlamaLM, LlamaWeights
from .parts import Model, Room
from .prompt import prompt_format
from .pull import expected_sha256
from .registry import ModelFile, Registry

_SLACK_BYTES = 300 << 20  # compute buffers, Python


class Loader:
    """Opens models for one configuration and closes all it opened: contexts first, then weights."""

    def __init__(self, config: Config, registry: Registry, cancellation: Cancellation) -> None:
        self._config = config
        self._registry = registry
        self._cancellation = cancellation
        self._weights: dict[Path, LlamaWeights] = {}
        self._contexts: list[LlamaLM] = []
        self._extra_buffers: bool | None = None

    def adopt(self, config: Config) -> None:
        """Open for this configuration from now on; weights that it loads otherwise are closed."""
        if config.gpu_layers != self._config.gpu_layers:
            self.close()
        self._config = config

    def keep_only(self, paths: Iterable[Path]) -> None:
        """Close the weights of all other files; no context may be open on them."""
        kept = {path.resolve() for path in paths}
        for path in [path for path in self._weights if path not in kept]:
            self._weights.pop(path).close()

    def find(self, role: str) -> ModelFile:
        """The file that a role's knob names.

        Raises:
            UsageError: no model is named.
            ModelError: it is not there, or is no whole GGUF file.
        """
        spec = getattr(self._config, role)
        if spec is None:
            raise UsageError(f"no {role} model is named", f"Give --{role} MODEL or --profile NAME.")
        file = self._registry.require(spec)
        gguf_header.check_file(file.path)
        return file

    def check_memory(self, needs: Sequence[tuple[Path, Room]]) -> None:
        """Refuse what can't fit, before anything is loaded.

        Raises:
            ModelError: weights not loaded yet, each file once, and caches need more than what is free.
        """
        if self._gpu_layers() != 0:
            return
        headers = {path: gguf_header.read_header(path) for path in {path.resolve() for path, _ in needs}}
        sizes = {path: 0 if path in self._weights else header.bytes for path, header in headers.items()}
        for path, room in needs:
            real = path.resolve()
            cells = room.copied_cells if self._config.kv == "state" else room.shared_cells
            sizes[real] += cells * headers[real].kv_bytes_per_token
        free = psutil.virtual_memory().available
        if sum(sizes.values()) + _SLACK_BYTES > free:
            parts = " + ".join(f"{path.stem} {_gib(size)}" for path, size in sizes.items())
            raise ModelError(
                f"not enough memory: {parts} needed, {_gib(free)} free",
                "Lower --context, --beams or --max-tokens, take smaller files, or one as anchor and judge.",
            )

    def prepare(self, model: Path) -> Iterator[Notice]:
        """Choose how weights are loaded on this machine; the first time this takes a child process."""
        self._extra_buffers = probe.extra_buffers_work(model)
        if not self._extra_buffers:
            yield Notice(probe.NOTICE)

    def open(self, file: ModelFile, room: Room) -> Model:
        """Load a model, or share its weights, and make a context on them.

        Raises:
            ModelError: llama.cpp can't, or the file is not what its name promises.
        """
        digest = file_sha256(file.path)
        self._check_digest(file, digest)
        weights = self._share_weights(file.path)
        lm = LlamaLM(
            weights,
            sha256=digest,
            num_sequences=room.num_sequences,
            num_cells=room.shared_cells if self._shares_cells(weights) else room.copied_cells,
            threads=self._config.threads or llama_lm.default_threads(),
            kv_strategy=self._config.kv,
            cancellation=self._cancellation,
        )
        self._contexts.append(lm)
        info = weights.info
        card = ModelCard(file.name, str(file.path), digest, info.quantisation)
        layout = prompt_format(info.chat_template, lm.vocabulary, file.entry.format)
        trained = info.context_length
        return Model(lm, layout, card, min(self._config.context, trained), trained)

    def _shares_cells(self, weights: LlamaWeights) -> bool:
        return self._config.kv == "seq" or (self._config.kv == "auto" and weights.rewinds)

    def _check_digest(self, file: ModelFile, digest: str) -> None:
        if digest != (expected_sha256(file) or digest):
            raise ModelError(
                f"{file.path} is not the file that '{file.name}' names: its sha256 is {digest}",
                f"Pull it again: alignbeam models pull {file.name}",
            )

    def _share_weights(self, path: Path) -> LlamaWeights:
        real = path.resolve()
        if real not in self._weights:
            self._weights[real] = LlamaWeights(
                path,
                gpu_layers=self._gpu_layers(),
                use_extra_bufts=self._extra_buffers is not False,
                cancellation=self._cancellation,
            )
        return self._weights[real]

    def _gpu_layers(self) -> int:
        layers = self._config.gpu_layers
        if llama_lm.supports_gpu():
            return layers
        if layers > 0:
            raise ModelError(
                f"{layers} layers were asked for on the GPU, but this build of llama.cpp has no GPU support",
                "See 'GPU offload' in the README, or leave --gpu-layers out.",
            )
        return 0

    def close_contexts(self) -> None:
        """Free the caches and keep the weights, for contexts of another size."""
        while self._contexts:
            self._contexts.pop().close()

    def close(self) -> None:
        """Close everything; safe to call twice."""
        self.close_contexts()
        while self._weights:
            self._weights.popitem()[1].close()


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
