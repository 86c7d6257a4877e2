"""The models that workers must have: known by their hash, found where they are, or brought."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ModelError, UsageError
from ..models.gguf_header import parts_of
from ..models.hashes import file_sha256, model_sha256
from ..models.pull import pull
from ..models.registry import ModelFile, Registry
from ..paths import cache_dir, ensure_dir, locked
from .work import Piece

_PIECE_BYTES = 32 << 20


@dataclass(frozen=True)
class WantedPart:
    """One file of a model.

    Attributes:
        name: what it is asked for by: its hash.
        file: what it is called.
        path: where it is on the machine that asks.
    """

    name: str
    file: str
    path: Path


@dataclass(frozen=True)
class WantedModel:
    """A model, or an adapter, as it is on the machine that asks.

    Attributes:
        spec: what the knobs call it.
        file: what that stands for there.
        sha256: what it is known by.
        parts: its files; a model that is not split has one.
    """

    spec: str
    file: ModelFile
    sha256: str
    parts: tuple[WantedPart, ...]

    @classmethod
    def of(cls, spec: str, registry: Registry) -> "WantedModel":
        """Raises: UsageError, ModelError: it is not here."""
        file = registry.require(spec)
        file = replace(file, path=file.path.absolute())
        parts = (WantedPart(file_sha256(path), path.name, path) for path in parts_of(file.path))
        return cls(spec, file, model_sha256(file.path), tuple(parts))


@dataclass(frozen=True)
class FoundRegistry(Registry):
    """What another machine's names stand for here.

    Attributes:
        found: by spec the files that were found.
    """

    found: Mapping[str, ModelFile]

    def resolve(self, spec: str) -> ModelFile:
        return self.found[spec] if spec in self.found else super().resolve(spec)


def delivered_dir() -> Path:
    """Where models lie that another machine sent, each in a folder named by its hash."""
    return cache_dir() / "delivered"


class Stock:
    """The models of a worker's machine."""

    def __init__(self, wanted: Sequence[WantedModel], registry: Registry, *, may_pull: bool) -> None:
        """`registry` is that of the machine that asks; `may_pull`: what is missing is fetched, if it can."""
        self._wanted = wanted
        self._registry = registry
        self._may_pull = may_pull
        self._found: dict[str, ModelFile] = {}

    def missing(self) -> list[str]:
        """The names of the parts that have to be brought.

        Raises:
            ModelError: what is here under a model's name is another file.
        """
        for model in self._wanted:
            if model.spec not in self._found and (file := self._find(model)):
                self._found[model.spec] = file
        lacking = (model for model in self._wanted if model.spec not in self._found)
        return list(dict.fromkeys(part.name for model in lacking for part in self._absent(model)))

    def _find(self, model: WantedModel) -> ModelFile | None:
        differing = None
        for path in filter(Path.is_file, self._places(model)):
            with suppress(ModelError):  # a part of it is missing
                if model_sha256(path) == model.sha256:
                    return replace(model.file, path=path)
                differing = path
        if differing:
            raise _differs(model, differing)
        if self._may_pull and model.file.can_pull:
            with suppress(ModelError):  # no network, perhaps: then it is brought
                path = pull(replace(model.file, path=self._named(model)))
                if model_sha256(path) == model.sha256:
                    return replace(model.file, path=path)
        return None

    def _places(self, model: WantedModel) -> Iterator[Path]:
        """Where it may be: brought before, pulled here, at the place that it has where it is asked from."""
        delivered = _folder(model) / model.parts[0].file
        yield from (delivered, self._named(model), model.file.path)

    def _named(self, model: WantedModel) -> Path:
        with suppress(UsageError):
            return self._registry.resolve(model.spec).path
        return model.file.path

    def _absent(self, model: WantedModel) -> Iterator[WantedPart]:
        return (part for part in model.parts if not (_folder(model) / part.file).is_file())

    def receive(self, piece: Piece) -> None:
        """Write a piece; with the last one, which is empty, the part is whole and takes its name.

        Raises:
            ModelError: what came is not what was asked for.
        """
        model, part = next(
            (model, part) for model in self._wanted for part in model.parts if part.name == piece.name
        )
        place = ensure_dir(_folder(model)) / part.file
        partial = place.with_name(f".{part.file}.partial")
        with locked(place), partial.open("r+b" if piece.offset else "wb") as file:
            file.seek(piece.offset)
            file.write(piece.data)
        if not piece.data:
            if file_sha256(partial) != part.name:
                partial.unlink()
                raise ModelError(f"{part.file} arrived damaged", "Give the same command again.")
            partial.replace(place)

    @property
    def registry(self) -> FoundRegistry:
        """The names of the machine that asks, with the files of this one; nothing is missing."""
        known = self._registry
        return FoundRegistry(known.models, known.profiles, known.default_profile, self._found)


def _folder(model: WantedModel) -> Path:
    return delivered_dir() / model.sha256


def _differs(model: WantedModel, path: Path) -> ModelError:
    return ModelError(
        f"{path} is not the file that '{model.spec}' is where the run began: sha256 "
        f"{model_sha256(path)[:16]}…, not {model.sha256[:16]}…",
        "Give all machines the same file.",
    )


def pieces(parts: Iterable[WantedPart], name: str) -> Iterator[Piece]:
    """A part in pieces, in order; the last one is empty. Raises: ModelError: it can't be read."""
    path = next(part.path for part in parts if part.name == name)
    try:
        with path.open("rb") as file:
            offset = 0
            while data := file.read(_PIECE_BYTES):
                yield Piece(name, offset, data)
                offset += len(data)
            yield Piece(name, offset, b"")
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "Check it, and start again.") from None
