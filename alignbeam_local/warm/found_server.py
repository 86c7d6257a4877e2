"""A running server that holds the models that a command wants."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from .. import __version__
from ..config import Config, knobs_that
from ..engine.about_model import adapters_of, on_record
from ..errors import AlignBeamError, ModelError, ServerGone
from ..machine.context_size import context_sizes
from ..models.gguf_header import parts_of
from ..models.registry import Registry
from ..roles import ROLES, is_anchor
from .connection import asked
from .sockets import sockets
from .wire import WIRE_VERSION

#: They decide how fast an answer comes and where it is made, not what it is.
_ELSEWHERE = frozenset(
    {*ROLES, "profile", "threads", "parallel", "prompt_cache", "force", *knobs_that("places")}
)
_SAME = tuple(knob for knob in knobs_that("loads") if knob not in _ELSEWHERE)


class FileStamp(NamedTuple):
    """A model's file, all parts of a split one, and what tells that another one was put in its place."""

    path: str
    size: int
    changed_ns: int

    @property
    def is_current(self) -> bool:
        """Whether the same file is still there."""
        return self == stamp_of(Path(self.path))


def stamp_of(path: Path) -> FileStamp:
    """As the file is now; of one that is not there, or lacks a part, without a size."""
    file = path.resolve()
    try:
        stats = [part.stat() for part in parts_of(file)]
    except (OSError, ModelError):
        stats = []
    size, changed = sum(each.st_size for each in stats), max((each.st_mtime_ns for each in stats), default=0)
    return FileStamp(str(file), size, changed)


@dataclass(frozen=True)
class FoundServer:
    """One pair of a server.

    Attributes:
        path: the socket.
        pid: the server's process.
        pair: the name of the pair.
        config: the knobs that it was opened with.
        files: the model file of each role, and each adapter, as they were when the server started.
        records: as `records_of` found them then.
        notices: what it had to say when it loaded them.
    """

    path: Path
    pid: int
    pair: str
    config: Config
    files: Mapping[str, FileStamp]
    records: Mapping[str, Any]
    notices: tuple[str, ...]

    def serves(self, config: Config) -> bool:
        """Whether an answer with these knobs finds all that it needs open; the models are the same."""
        if config.goes_by_tokens:  # their file is read where the answer is made, from another folder
            return False
        if any(getattr(self.config, knob) != getattr(config, knob) for knob in _SAME):
            return False
        if config.needs_answer_head and not self.config.needs_answer_head:  # it is not open there
            return False
        if config.judged_by_head and not self.config.judged_by_head:  # the judge there would judge too
            return False
        held, wanted = context_sizes(self._alone), context_sizes(config.with_values({"parallel": 1}))
        return all(role in held and held[role].holds(size) for role, size in wanted.items())

    def holds(self, config: Config, registry: Registry) -> bool:
        """Whether the models of an answer with these knobs are the very files that are open there.

        What is on record of them must be what it was, too: a server goes on by what it loaded.

        All anchors that are open are mixed in, so there must be no other ones.

        Raises:
            UsageError: a model that is not named, or whose name is unknown.
        """
        if config.depth > 0 and set(filter(is_anchor, self.files)) != set(config.anchor_roles):
            return False
        if any(self.files.get(what) != file for what, file in _files(config, registry).items()):
            return False
        return all(self.records.get(role) == found for role, found in records_of(config, registry).items())

    def outdated(self, registry: Registry) -> list[str]:
        """What has changed since it started: files, and what is on record of models that are here."""
        files = [f"the file of {what}" for what, file in self.files.items() if not file.is_current]
        now = records_of(self._config_by_path, registry)
        changed = [role for role, found in self.records.items() if now.get(role) not in (None, found)]
        return files + [f"what is on record of {role}" for role in changed]

    @property
    def _config_by_path(self) -> Config:
        """Its knobs, models and adapters by where they are: names count from the server's own folder."""
        paths = {what: file.path for what, file in self.files.items()}
        anchors = [paths[role] for role in self.config.anchor_roles if role in paths]
        adapters = [
            adapter._replace(file=paths.get(f"adapter {place}", adapter.file)).text
            for place, adapter in enumerate(self.config.adapters)
        ]
        named = {role: paths[role] for role in ("draft", "judge") if role in paths}
        return self.config.with_values(named | ({"anchor": anchors} if anchors else {}) | {"lora": adapters})

    @property
    def _alone(self) -> Config:
        return self.config.with_values({"parallel": 1})


def find_server(config: Config, registry: Registry) -> FoundServer | None:
    """A server that answers with these knobs as an engine of our own would; the newest of several.

    Raises:
        UsageError: a model that is not named, or whose name is unknown.
    """
    found = (each for each in running_servers() if each.holds(config, registry) and each.serves(config))
    return next(found, None)


def _files(config: Config, registry: Registry) -> dict[str, FileStamp]:
    """The models of an answer with these knobs, by what they are there. Raises: UsageError."""
    models = {role: stamp_of(registry.resolve(config.model_named(role)).path) for role in config.roles}
    return models | adapter_files(config, registry)


def adapter_files(config: Config, registry: Registry) -> dict[str, FileStamp]:
    """The draft's adapters, by their places."""
    files = (stamp_of(registry.resolve(adapter.file).path) for adapter in config.adapters)
    return {f"adapter {place}": file for place, file in enumerate(files)}


def records_of(config: Config, registry: Registry) -> dict[str, Any]:
    """By role its model's heads and calibrations, and how models.toml has it read; None: it is not there."""
    found: dict[str, Any] = {}
    for role in config.roles:
        try:
            file = registry.require(config.model_named(role))
            found[role] = on_record(file, role, adapters_of(role, config, registry))
        except AlignBeamError:
            found[role] = None
    return found


def running_servers() -> Iterator[FoundServer]:
    """Every pair of every server of this user that is ready, of this version."""
    for path in sockets():
        try:
            info = asked(path, {"ask": "info"})
        except ServerGone:
            continue
        if info.get("wire") == WIRE_VERSION and info.get("version") == __version__ and info.get("ready"):
            yield from _pairs(path, info)


def _pairs(path: Path, info: Mapping[str, Any]) -> Iterator[FoundServer]:
    for name, pair in info["pairs"].items():
        with suppress(AlignBeamError, KeyError, TypeError, ValidationError):
            config = Config.of(pair["config"])
            files = {what: FileStamp(*file) for what, file in pair["files"].items()}
            records, notices = pair["records"], tuple(pair["notices"])
            yield FoundServer(path, info["pid"], name, config, files, records, notices)
