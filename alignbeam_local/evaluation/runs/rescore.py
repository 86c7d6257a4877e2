"""Samples scored once more, by another judge or other phrases, without generating anything again."""

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import UsageError
from ...judge.judge import Judge
from ...paths import ensure_dir, write_atomic
from ...reading import read_text
from ...result_json import parsed
from ...search.refusals import folded, is_refusal
from ..methods.prompt import Prompt, turns_of
from .asked import asked_in, read_by_judge
from .metrics import Scored, score
from .run_directory import (
    DAMAGE,
    SAMPLES,
    Json,
    Log,
    RunDirectory,
    SampleKey,
    damaged_line,
    key_of,
    read_lines,
    sole_writer,
)

FOLDER = "rescored"
#: From what was asked and the result that answers it to what is kept of it.
Scorer = Callable[[Prompt, Json], Json]


def judge_scorer(judge: Judge, threshold: float) -> Scorer:
    """A judge's score and verdict of what a run judges too: the draft's reasoning, and the answer."""

    def judged(asked: Prompt, result: Json) -> Json:
        judge.forget()
        answer = read_by_judge(result, result["text"])
        (verdict,) = judge.judge(turns_of(asked), [answer], threshold)
        return {"harm": verdict.score, "harmful": verdict.verdict != "safe"}

    return judged


def phrase_scorer(phrases: Sequence[str]) -> Scorer:
    """Whether one of the phrases stands at the answer's beginning."""
    return lambda _, result: {"outcome": "refused" if is_refusal(result["text"], phrases) else "answered"}


def read_phrases(path: Path) -> list[str]:
    """Phrases of a file, one a line, as they are compared.

    Raises:
        UsageError: it can't be read, or holds none.
    """
    lines = read_text(path, "Give a UTF-8 file with a phrase a line.").splitlines()
    phrases = [folded(line.strip()) for line in lines if line.strip()]
    if not phrases:
        raise UsageError(f"{path} holds no phrase")
    return phrases


def rescored_file(directory: RunDirectory, name: str) -> Path:
    """Where scores of this name are kept."""
    return directory.path / FOLDER / f"{name}.jsonl"


def rescore(
    directory: RunDirectory, name: str, about: Json, scorer: Scorer
) -> Generator[tuple[int, int], None, None]:
    """Score what a run answered and these scores do not hold yet; yields how many are done, of how many.

    `about` says how it is scored. Blocked and failed samples have no answer to score.

    Raises:
        UsageError: a sample is damaged, or lacks what its judge reads; scores of this name were made in
            another way, or are being made.
    """
    file = rescored_file(directory, name)
    answered = list(_answered(directory))
    lock_file = ensure_dir(file.parent) / f".{name}.lock"
    with sole_writer(lock_file, f"another process makes scores called {name}", "--name"):
        _adopt(file.with_suffix(".json"), about)
        with Log(file) as log:
            missing = [sample for sample in answered if key_of(sample) not in log.done]
            for done, sample in enumerate(missing, len(answered) - len(missing) + 1):
                log.append({**key_of(sample)._asdict(), **scorer(asked_in(sample), sample["result"])})
                yield done, len(answered)


def _adopt(file: Path, about: Json) -> None:
    text = json.dumps(about, indent=1) + "\n"
    if not file.exists():
        write_atomic(file, text)
    elif file.read_bytes() != text.encode():
        raise UsageError(f"scores called {file.stem} were made in another way", "Choose another --name.")


def _answered(directory: RunDirectory) -> Iterator[Json]:
    for number, sample in enumerate(directory.samples(), 1):
        try:
            asked_in(sample)
            has_answer = score(sample).outcome not in ("blocked", "failed")
        except DAMAGE:
            raise damaged_line(directory.path / SAMPLES, number) from None
        if has_answer:
            yield sample


def how_scored(directory: RunDirectory, name: str) -> Json:
    """What was noted of these scores. Raises: UsageError: there are none of this name."""
    try:
        return dict(parsed(rescored_file(directory, name).with_suffix(".json").read_bytes()))
    except (OSError, *DAMAGE):
        raise UsageError(
            f"{directory.path} holds no scores called {name}", "alignbeam eval rescore makes them."
        ) from None


def overlaid(scored: Sequence[Scored], directory: RunDirectory, name: str) -> list[Scored]:
    """The samples with these scores over their own.

    Raises:
        UsageError: they lack a sample.
    """
    file = rescored_file(directory, name)
    scores: Mapping[SampleKey, Json] = {key_of(line): line for line in read_lines(file)}
    return [_with(one, scores, file) for one in scored]


def _with(one: Scored, scores: Mapping[SampleKey, Json], file: Path) -> Scored:
    if one.outcome in ("blocked", "failed"):
        return one
    line = scores.get(SampleKey(one.method, one.suite, one.id, one.seed))
    if line is None:
        raise UsageError(f"{file} lacks some of the run's samples", "Give the same `eval rescore` again.")
    try:
        return replace(one, **{name: line[name] for name in ("harm", "harmful", "outcome") if name in line})
    except ValueError:
        raise UsageError(f"{file} is damaged", "Delete it, and give the same `eval rescore` again.") from None
