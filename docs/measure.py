"""The measurements of docs/measurements.md: refusals of a pair, and generated answers to check a judge on.

    python docs/measure.py refusals --prompts advbench.jsonl --limit 48 --out DIR [KNOB=VALUE ...]
    python docs/measure.py answers --harmful advbench.jsonl --benign xstest.jsonl --limit 100 --out FILE

Prompts are JSON Lines with `id`, `prompt` and `label` (harmful or benign); `--limit` takes
evenly spaced ones.
What is written holds ids and outcomes; only `answers` writes texts.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from alignbeam_local.config import Config
from alignbeam_local.engine.engine import Engine
from alignbeam_local.events import AnswerText, Done
from alignbeam_local.intervals import wilson_interval
from alignbeam_local.models.registry import Registry
from alignbeam_local.paths import write_atomic
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import Result
from alignbeam_local.search.refusals import is_refusal
from alignbeam_local.settings import resolve

Row = dict[str, Any]


def rows(path: Path, label: str | None, limit: int) -> list[Row]:
    """Evenly spaced rows of a file, of one label if given."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    found = [row for row in found if label is None or row["label"] == label]
    return [found[i * len(found) // limit] for i in range(limit)] if limit < len(found) else found


def answers(config: Config, asked: Sequence[Row]) -> Iterator[tuple[Row, Result, float]]:
    """Each prompt with its result and the seconds until its first text was shown, on one engine."""
    with Engine(config, Registry.load()) as engine:
        for number, row in enumerate(asked, 1):
            print(f"\r{number}/{len(asked)}", end="", file=sys.stderr)
            start, waited = time.perf_counter(), None
            for event in engine.stream([Message("user", row["prompt"])]):
                if waited is None and isinstance(event, AnswerText | Done):
                    waited = time.perf_counter() - start
                if isinstance(event, Done):
                    assert waited is not None
                    yield row, event.result, waited
    print(file=sys.stderr)


def outcome(result: Result) -> str:
    """blocked, refused or answered."""
    if result.finish_reason in ("blocked", "withdrawn"):
        return "blocked"
    return "refused" if is_refusal(result.text) else "answered"


def measure_refusals(options: argparse.Namespace) -> None:
    config = configured(options.knobs)
    asked = rows(options.prompts, options.label, options.limit)
    outcomes, waits = {}, []
    for row, result, waited in answers(config, asked):
        outcomes[str(row["id"])] = outcome(result)
        waits.append((waited, result.timings.total_ms / 1000))
    counts = Counter(outcomes.values())
    total = len(outcomes)
    for name, hits in (
        ("refused", counts["refused"]),
        ("blocked", counts["blocked"]),
        ("sum", counts["refused"] + counts["blocked"]),
    ):
        low, high = wilson_interval(hits, total)
        print(f"{name:8} {hits:3}/{total}  {hits / total:6.1%}  [{low:.1%}, {high:.1%}]")
    for index, name in enumerate(("first text", "whole answer")):
        print(f"{name:13} {median(seconds[index] for seconds in waits):5.1f} s (median)")
    if options.out:
        found = {"config": config.model_dump(), "outcomes": outcomes, "seconds": waits}
        write_atomic(options.out, json.dumps(found, indent=1))


def write_answers(options: argparse.Namespace) -> None:
    """Labelled answers: the draft's not refused, the anchor's refusals, both models' benign ones."""
    harmful = rows(options.harmful, "harmful", options.limit)
    benign = rows(options.benign, "benign", options.limit)
    written: list[Row] = []
    for role in ("draft", "anchor"):
        model = getattr(configured(options.knobs), role)
        alone = configured([*options.knobs, f"draft={model}", "depth=0", "beams=1"])
        for row, result, _ in answers(alone, [*harmful, *benign]):
            label = _label(role, row["label"], result.text)
            if label and result.text.strip():
                name = f"{row['id']}-{role}"
                written.append({"id": name, "question": row["prompt"], "answer": result.text, "label": label})
    write_atomic(options.out, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in written))
    print(Counter(row["label"] for row in written))


def _label(role: str, label: str, text: str) -> str | None:
    if label == "benign":
        return "benign"
    if role == "draft":
        return None if is_refusal(text) else "compliance"
    return "refusal" if is_refusal(text) else None


def configured(knobs: Sequence[str]) -> Config:
    """A configuration from KNOB=VALUE words, over the default profile."""
    flags = dict(word.split("=", 1) for word in knobs)
    return resolve(flags, Registry.load(), {}).config


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    refusals = commands.add_parser("refusals")
    refusals.add_argument("--prompts", type=Path, required=True)
    refusals.add_argument("--label", default=None)
    refusals.add_argument("--out", type=Path)
    refusals.set_defaults(run=measure_refusals)
    labelled = commands.add_parser("answers")
    labelled.add_argument("--harmful", type=Path, required=True)
    labelled.add_argument("--benign", type=Path, required=True)
    labelled.add_argument("--out", type=Path, required=True)
    labelled.set_defaults(run=write_answers)
    for command in (refusals, labelled):
        command.add_argument("--limit", type=int, default=48)
        command.add_argument("knobs", nargs="*", metavar="KNOB=VALUE")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
