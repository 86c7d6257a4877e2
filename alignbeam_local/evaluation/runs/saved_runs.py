"""Runs to report on: directories of `eval run`, or the counts of some, with every sample scored."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ...errors import UsageError
from ...result_json import parsed
from ...roles import is_anchor
from .metrics import Scored, score
from .rescore import how_scored, overlaid
from .run_directory import (
    DAMAGE,
    SAMPLES,
    Json,
    RunDirectory,
    checked_manifest,
    damaged_line,
    first_of,
    partial_notes,
)
from .scored_anew import kept_config

_COLUMNS = [column.name for column in fields(Scored)]


@dataclass(frozen=True)
class SavedRun:
    """One run; `samples` holds its texts, and is empty where only counts are left.

    `scores` says how it was scored where that was done once more: the name, and what `eval rescore` noted.
    """

    name: str
    manifest: Json
    scored: Sequence[Scored]
    samples: Sequence[Json] = field(default=(), repr=False)
    scores: Json | None = None

    @property
    def judges(self) -> set[tuple[str, float]]:
        """The names and thresholds of the judges behind `harm` and `harmful`.

        Raises:
            UsageError: what is noted of them is damaged, or servers judged by knobs of their own.
        """
        if "server" in self.manifest and "judge" not in (self.scores or {}):
            raise UsageError(
                f"{self.name} was made by servers, which do not say all that their scores go by",
                "Leave --judge-check out.",
            )
        try:
            if self.scores and "judge" in self.scores:
                return {(str(self.scores["judge"]), float(self.scores["threshold"]))}
            judged = {one.method for one in self.scored if one.harmful is not None}
            return {
                (reader, float(about["knobs"]["threshold"]))
                for method, about in self.manifest["methods"].items()
                if about and method in judged and (reader := _reader_of(about))
            }
        except DAMAGE:
            raise UsageError(
                f"{self.name} does not say which judge judged it", "Leave --judge-check out."
            ) from None

    @property
    def partial(self) -> list[str]:
        """What of it is missing, failed without exception, or was not judged as the rest, a sentence each."""
        samples = _by_place(self.scored)
        failed = _by_place(one for one in self.scored if one.outcome == "failed")
        judged = _by_place(one for one in self.scored if one.harmful is not None)
        alike: dict[tuple[str, str], list[str]] = {}
        for (method, suite), count in samples.items():
            num_failed, num_judged = failed[method, suite], judged[method, suite]
            if num_failed == count:
                alike.setdefault((suite, f"all {count} samples failed"), []).append(method)
            if num_judged and (left := count - num_failed - num_judged):
                what = f"{left} answers were not judged, so there is no share of harmful ones"
                alike.setdefault((suite, what), []).append(method)
        notes = partial_notes(self.manifest, samples.elements())
        return notes + [f"{first_of(methods)} on {suite}: {what}" for (suite, what), methods in alike.items()]


def _by_place(scored: Iterable[Scored]) -> Counter[tuple[str, str]]:
    """How many of each method on each suite."""
    return Counter((one.method, one.suite) for one in scored)


def _reader_of(about: Json) -> str:
    """Who gave the verdicts: a judge, or an answer head, by its draft's name; no check is of several."""
    if "judge" not in about["models"]:
        return str(about["models"]["draft"]["name"])
    judge = str(about["models"]["judge"]["name"])
    if about["knobs"].get("head_votes"):
        return f"{judge} and the answer head"
    if not any(map(is_anchor, about["models"])):  # as a guard: no head but an anchor's reads a request
        return judge
    return judge if kept_config(about["knobs"]).scored_by == "judge" else f"{judge} and the anchor's head"


def load_runs(paths: Iterable[Path], scores: str | None = None) -> list[SavedRun]:
    """Run directories and counts files; `scores` names what `eval rescore` made of the directories.

    Raises:
        UsageError: neither of them, or damaged; two runs of one name, which a report could not tell apart;
            no such scores.
    """
    found = [run for path in paths for run in _load(path, scores)]
    names = [run.name for run in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two runs are called {twice}", "Rename one of the directories.")
    return found


def _load(path: Path, scores: str | None) -> list[SavedRun]:
    if path.is_file():
        if scores:
            raise UsageError(f"{path} holds counts: there are no answers to score", "Give the run directory.")
        return _read_counts(path)
    directory = RunDirectory(path)
    manifest, samples = directory.manifest(), directory.samples()
    scored = list(_scored(samples, path / SAMPLES))
    if not scores:
        return [SavedRun(path.resolve().name, manifest, scored, samples)]
    about = {"name": scores, **how_scored(directory, scores)}
    return [SavedRun(path.resolve().name, manifest, overlaid(scored, directory, scores), samples, about)]


def _scored(samples: Iterable[Json], path: Path) -> Iterator[Scored]:
    """Raises: UsageError: a line that is JSON, and no sample."""
    for number, sample in enumerate(samples, 1):
        try:
            texts(sample)
            yield score(sample)
        except DAMAGE:
            raise damaged_line(path, number) from None


def texts(sample: Json) -> tuple[str, str]:
    """The prompt behind the turns before it, and the answer or why there is none."""
    result = sample.get("result")
    answer = sample["error"]["message"] if result is None else result["text"]
    earlier = [f"[{turn['role']}] {turn['content']}" for turn in sample.get("earlier") or ()]
    begun = [f"[the answer began] {sample['prefill']}"] if sample.get("prefill") else []
    return "\n\n".join([*earlier, str(sample["prompt"]), *begun]), str(answer)


def counts_text(runs: Iterable[SavedRun]) -> str:
    """What is counted of every sample, a line each, by prompt id: no prompts and no answers."""
    joined = ",\n".join(map(_counts, runs))
    return f"[\n{joined}\n]\n"


def _counts(run: SavedRun) -> str:
    rows = ",\n".join(json.dumps(list(asdict(scored).values())) for scored in run.scored)
    head = {"name": run.name, "manifest": run.manifest, "columns": _COLUMNS}
    if run.scores:
        head["scores"] = run.scores
    return f'{json.dumps(head, ensure_ascii=False)[:-1]},\n"samples": [\n{rows}\n]}}'


def _read_counts(path: Path) -> list[SavedRun]:
    try:
        runs = [_counted(counts) for counts in parsed(path.read_bytes())]
        if not runs:
            raise ValueError("it is empty")
        return runs
    except (OSError, *DAMAGE) as error:
        raise UsageError(
            f"{path} holds no counts: {error}", "Give a run directory, or what `eval report --counts` wrote."
        ) from None


def _counted(counts: Json) -> SavedRun:
    scored = [Scored(**dict(zip(counts["columns"], row, strict=True))) for row in counts["samples"]]
    manifest = checked_manifest(counts["manifest"])
    return SavedRun(str(counts["name"]), manifest, scored, scores=counts.get("scores"))
