"""The models and profiles that have a name, and the files they stand for."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..config import Config
from ..errors import ModelError, UsageError, did_you_mean
from ..knobs.models import HEAD_JUDGE
from ..knobs.values import LoraSpec
from ..paths import models_dir, user_path
from ..roles import ROLES
from . import toml_files as models_toml
from .entry import Hub, ModelEntry
from .gguf_reader import open_file
from .pasted import hint_of_folder, hint_of_hub, unpasted
from .toml_files import Profile

_NOTHING_KNOWN = ModelEntry()


@dataclass(frozen=True)
class ModelFile:
    """A model that was asked for: its name, where its file is or would be, and what is known of it."""

    name: str
    path: Path
    entry: ModelEntry = _NOTHING_KNOWN

    @property
    def present(self) -> bool:
        return os.path.isfile(self.path)  # False also where the way there is barred

    @property
    def can_pull(self) -> bool:
        """Whether there is somewhere to pull it from; a file that is named by its place never is."""
        return self.entry.path is None and (self.entry.hub is not None or self.entry.mirror is not None)


@dataclass(frozen=True)
class Registry:
    """The shipped models.toml with the user's laid over it."""

    models: Mapping[str, ModelEntry]
    profiles: Mapping[str, Profile]
    default_profile: str

    @classmethod
    def load(cls) -> "Registry":
        """Read both files.

        Raises:
            UsageError: a file that is not TOML, or a key or value that cannot be, named with its table.
        """
        shipped, user = models_toml.shipped_file(), models_toml.user_file()
        sources = [
            models_toml.TomlSource.read(path) for path in (shipped, user) if path == shipped or path.is_file()
        ]
        registry = cls(
            models_toml.models(sources), models_toml.profiles(sources), models_toml.default_profile(sources)
        )
        registry.profile(registry.default_profile)
        return registry

    def resolve(self, spec: str) -> ModelFile:
        """The file behind a name, a path, or hf:owner/repo/file.gguf, whether it is there or not.

        An address of a file of the hub is taken as the last.

        Raises:
            UsageError: none of these.
        """
        spec = unpasted(spec)
        if spec.startswith("hf:"):
            return self._hub_file(spec)
        if spec in self.models:
            return self._named(spec)
        if "/" in spec or spec.endswith(".gguf") or os.path.exists(spec):
            return self._by_path(user_path(spec))
        if spec in self.profiles:
            raise UsageError(f"'{spec}' is a profile, not a model", f"Give --profile {spec}.")
        raise _unknown(
            "model", spec, self.models, "Or give the path of a .gguf file, or hf:owner/repo/file.gguf."
        )

    def is_one_file(self, spec: str, other: str) -> bool:
        """Whether both name one file; what is no model at all names none."""
        try:
            paths = self.resolve(spec).path, self.resolve(other).path
        except UsageError:
            return False
        if all(map(os.path.exists, paths)):
            return os.path.samefile(*paths)
        return paths[0].absolute() == paths[1].absolute()

    def lasting(self, spec: str) -> str:
        """What names the same model from any directory. Raises: UsageError: as `resolve`."""
        spec = unpasted(spec)
        if spec.startswith("hf:") or spec in (*self.models, HEAD_JUDGE):
            return spec
        return str(self.resolve(spec).path.absolute())

    def lasting_names(self, specs: str | Sequence[str]) -> str | list[str]:
        """The same of a role's one model, or of each of several. Raises: UsageError: as `resolve`."""
        return self.lasting(specs) if isinstance(specs, str) else list(map(self.lasting, specs))

    def lasting_adapter(self, spec: LoraSpec) -> str:
        """What names the same adapter and scale from any directory. Raises: UsageError: as `resolve`."""
        return spec._replace(file=self.lasting(spec.file)).text

    def require(self, spec: str) -> ModelFile:
        """The file behind a spec, which must be there.

        Raises:
            UsageError: no such name.
            ModelError: known but not pulled, no such file, or no regular one.
        """
        file = self.resolve(spec)
        if file.present:
            return file
        if file.can_pull:
            raise ModelError(f"model '{spec}' is not here yet", f"Fetch it: alignbeam models pull {spec}")
        if spec in self.models:
            hint = "Correct its path in models.toml." if file.entry.path else "Import it again."
            raise ModelError(f"the file of model '{spec}' is gone: {file.path}", hint)
        try:
            open_file(file.path).close()
        except ModelError as error:
            hint = hint_of_folder(file.path) or self.meant_by_path(spec) or error.hint
            raise ModelError(error.message, hint) from None
        return file

    def meant_by_path(self, spec: str) -> str:
        """What to write instead of a path that leads nowhere, if it looks like something else."""
        name = spec.removesuffix(".gguf")
        return f"Did you mean the model {name}?" if name in self.models else hint_of_hub(spec)

    def profile(self, name: str) -> Mapping[str, Any]:
        """The knobs that a profile sets.

        Raises:
            UsageError: no such profile.
        """
        if name not in self.profiles:
            raise _unknown("profile", name, self.profiles)
        return self.profiles[name].knobs

    def profile_models(self, name: str) -> tuple[str, ...]:
        """The models and adapters that a profile needs, each once.

        Raises:
            UsageError: no such profile.
        """
        knobs = self.profile(name)
        given = [knobs[role] for role in ROLES if role in knobs]
        models = [name for one in given for name in ([one] if isinstance(one, str) else one)]
        adapters = Config.of({"lora": knobs.get("lora", ())}).adapters
        named = [*models, *(adapter.file for adapter in adapters)]
        return tuple(dict.fromkeys(name for name in named if name != HEAD_JUDGE))

    def files(self) -> Iterator[ModelFile]:
        """Every named model, in the order of models.toml."""
        return (self._named(name) for name in self.models)

    def _named(self, name: str) -> ModelFile:
        entry = self.models[name]
        return ModelFile(name, entry.path or models_dir() / f"{name}.gguf", entry)

    def _by_path(self, path: Path) -> ModelFile:
        named = (
            file
            for file in self.files()
            if file.present and os.path.exists(path) and path.samefile(file.path)
        )
        return next(named, ModelFile(path.stem, path))

    def _hub_file(self, spec: str) -> ModelFile:
        owner, _, rest = spec.removeprefix("hf:").partition("/")
        repo, _, file = rest.partition("/")
        try:
            hub = Hub(repo=f"{owner}/{repo}", file=file)
        except ValidationError:
            raise UsageError(
                f"'{spec}' is not hf:owner/repo/file.gguf", "Name one file of the repository."
            ) from None
        same = (known for known in self.files() if known.entry.hub == hub)
        name = _local_name(hub)
        if name in self.models:  # it stands for another file
            name = f"hf%3A{name}"
        return next(same, ModelFile(name, models_dir() / f"{name}.gguf", ModelEntry(hub=hub)))


def _local_name(hub: Hub) -> str:
    """A name for each file of the hub, and no two of them the same."""
    parts = (*hub.repo.split("/"), *hub.file.removesuffix(".gguf").split("/"))
    return "--".join(map(_escaped, parts))


def _escaped(part: str) -> str:
    """A part that can be told from its neighbours where `--` joins them."""
    is_plain = "--" not in f"-{part}-" and "%" not in part
    return part if is_plain else part.replace("%", "%25").replace("-", "%2D")


def _unknown(what: str, name: str, known: Mapping[str, Any], otherwise: str = "") -> UsageError:
    hint = did_you_mean(name.lower(), known, f"Known: {', '.join(known)}.", num=3, cutoff=0.5)
    return UsageError(f"unknown {what} '{name}'", f"{hint} {otherwise}".rstrip())
