"""A run on disk: what was asked of whom, and every answer, appended as soon as it is there."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from filelock import FileLock, Timeout
from pydantic import BaseModel, NonNegativeInt

from ...errors import AlignBeamError, UsageError
from ...paths import ensure_dir, write_atomic
from ...result_json import json_line, parsed

MANIFEST, SAMPLES = "manifest.json", "samples.jsonl"
#: What of a manifest grows while a run is made: who made it.
WORKERS = "workers"
Json = dict[str, Any]
#: What the parsing of a damaged file and a look into it raise.
DAMAGE = (ValueError, RecursionError, KeyError, TypeError, AttributeError)


class SampleKey(NamedTuple):
    """What names one sample of a run."""

    method: str
    suite: str
    id: str
    seed: int


def key_of(sample: Json) -> SampleKey:
    """The key of a line of samples.jsonl."""
    return SampleKey(*(sample[name] for name in SampleKey._fields))


class _Suite(BaseModel):
    prompts: NonNegativeInt


class _Method(BaseModel):
    knobs: dict[str, Any] = {}
    models: dict[str, Any] = {}


class _Manifest(BaseModel):
    """What reports read of a manifest; there is more in it."""

    methods: dict[str, _Method | None]
    suites: dict[str, _Suite]
    seeds: list[int]


def checked_manifest(value: Any) -> Json:
    """Raises: ValueError: it is no manifest."""
    _Manifest.model_validate(value)
    assert isinstance(value, dict)
    return value


class RunDirectory:
    """One run: `manifest.json` says what it is, `samples.jsonl` holds a line a sample."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self, manifest: Json) -> Iterator["Log"]:
        """Begin the run, or go on with it; no other process can meanwhile.

        Raises:
            UsageError: the directory holds another run, something else, or a run that is being written.
        """
        ensure_dir(self.path)
        with sole_writer(self.path / ".lock", f"another process writes to {self.path}", "--out"):
            self._adopt(manifest)
            with Log(self.path / SAMPLES) as log:
                yield log

    def _adopt(self, manifest: Json) -> None:
        if not (self.path / MANIFEST).exists():
            if any(not other.name.startswith(".") for other in self.path.iterdir()):
                raise UsageError(f"{self.path} is not empty and holds no run", "Choose another --out.")
            self._write(manifest)
            return
        differing = list(differences(_lasting(self.manifest()), _lasting(manifest)))
        if differing:
            raise UsageError(
                f"{self.path} holds another run: {'; '.join(differing[:5])} differ"
                + (f" and {len(differing) - 5} more" if len(differing) > 5 else ""),
                "Choose another --out, or give the same command to continue.",
            )

    def add_worker(self, about: Json) -> None:
        """Note who makes a part of the run; each once."""
        manifest = self.manifest()
        known = manifest.setdefault(WORKERS, {})
        if about not in known.values():
            known[f"worker-{len(known) + 1}"] = about
            self._write(manifest)

    def _write(self, manifest: Json) -> None:
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        write_atomic(self.path / MANIFEST, f"{text}\n")

    def manifest(self) -> Json:
        """Raises: UsageError: there is no run, or its manifest can't be read."""
        file = self.path / MANIFEST
        try:
            return checked_manifest(parsed(file.read_bytes()))
        except (OSError, *DAMAGE) as error:
            raise UsageError(f"{self.path} holds no run: {error}", "Give the --out of `eval run`.") from None

    def samples(self) -> list[Json]:
        """Every whole line, in the order written.

        Raises:
            UsageError: a line in the middle is damaged.
        """
        return list(read_lines(self.path / SAMPLES))


class Log:
    """An open file of samples; what an interrupted run left of a last line is cut off."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done: set[SampleKey] = set()

    def __enter__(self) -> "Log":
        self.done = {key_of(sample) for sample in read_lines(self._path)}
        self._file: IO[bytes] = open(self._path, "ab")
        _cut_half_line(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, sample: Json) -> None:
        """Write one sample; it is on the disk when this returns.

        Raises:
            AlignBeamError: the file was removed meanwhile.
        """
        if os.fstat(self._file.fileno()).st_nlink == 0:
            raise AlignBeamError(
                f"{self._path} was removed while the run went on", "Start again, or put it back and continue."
            )
        self._file.write(json_line(sample).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done.add(key_of(sample))


@contextmanager
def sole_writer(lock_file: Path, complaint: str, option: str) -> Iterator[None]:
    """Hold a lock meanwhile.

    Raises:
        UsageError: another process holds it; `option` would choose another place.
    """
    lock = FileLock(lock_file, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(complaint, f"Wait for it, or choose another {option}.") from None
    try:
        yield
    finally:
        lock.release()


def read_lines(path: Path) -> Iterator[Json]:
    """Every whole line of a file of samples. Raises: UsageError: one of them is damaged."""
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            sample = parsed(line)
            hash(key_of(sample))
        except DAMAGE:
            raise damaged_line(path, number) from None
        yield sample


def damaged_line(path: Path, number: int) -> UsageError:
    """The error of a line that can't be read."""
    return UsageError(f"{path}, line {number} is damaged", "Delete that line: its sample is then made again.")


def _cut_half_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _lasting(manifest: Json) -> Json:
    """What must stay as it is: who makes it may change, where that may be anybody."""
    return manifest | ({WORKERS: "any"} if WORKERS in manifest else {})


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Dotted names of what differs between two JSON values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif old != new:
        yield where


def first_of(names: Sequence[str]) -> str:
    """The first name, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def partial_notes(manifest: Json, samples: Iterable[tuple[str, str]]) -> list[str]:
    """What of a run is missing, a sentence each; of a sample its method and suite are given."""
    counts = Counter(samples)
    suites = {name: about["prompts"] * len(manifest["seeds"]) for name, about in manifest["suites"].items()}
    notes = []
    for method in manifest["methods"]:
        begun = [name for name in suites if 0 < counts[method, name] < suites[name]]
        notes += [f"{method} on {name}: {counts[method, name]} of {suites[name]} samples" for name in begun]
        untouched = [name for name in suites if not counts[method, name] and suites[name]]
        if untouched:
            notes.append(
                f"{method} on {first_of(untouched)}: 0 of {sum(suites[name] for name in untouched)} samples"
            )
    return notes
