"""Files of an evaluation that are damaged, hostile, or another version's: read, or a UsageError."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.reports.compare import compare
from alignbeam_local.evaluation.reports.figures import figures
from alignbeam_local.evaluation.reports.page import page
from alignbeam_local.evaluation.reports.table import csv_text, markdown
from alignbeam_local.evaluation.runs.run_directory import MANIFEST, SAMPLES
from alignbeam_local.evaluation.runs.saved_runs import counts_text, load_runs
from alignbeam_local.evaluation.suites.suites import load_suite, read_rows
from tests.running import run
from tests.test_eval_report import sample, write_run

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    answers = [
        sample("Sure."),
        sample("I'm sorry, no.", id="2", label="benign"),
        sample("x", method="anchor"),
    ]
    failed = {**sample("", id="3"), "error": {"message": "full"}}
    del failed["result"]
    made = write_run(tmp_path / "run", *answers, failed)
    (tmp_path / "counts.json").write_text(counts_text(load_runs([made])), encoding="utf-8")
    return made


def report(path: Path) -> None:
    """Everything that a report makes of a run."""
    runs = load_runs([path])
    found = figures(runs)
    for text in (page(runs, found), markdown(found), csv_text(found), counts_text(runs)):
        text.encode()
    for one in runs:
        compare(one.scored, one.scored)


def damaged_bytes(whole: bytes, at: int, length: int, other: bytes) -> bytes:
    at %= len(whole) + 1
    return whole[:at] + other + whole[at + length :]


@settings(relaxed, max_examples=150)
@given(
    name=st.sampled_from([MANIFEST, SAMPLES, "../counts.json"]),
    at=st.integers(0, 1 << 16),
    length=st.integers(0, 9),
    other=st.binary(max_size=2) | st.sampled_from([b"9" * 400, b"e999", b"\0", b"[" * 9999, b"\\ud800"]),
)
def test_other_bytes_are_read_or_refused(folder: Path, name: str, at: int, length: int, other: bytes) -> None:
    read_or_refused(folder, name, lambda whole: damaged_bytes(whole, at, length, other))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to everything in a JSON value."""
    if path:
        yield path
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield from places(child, (*path, key))


def damaged_value(whole: bytes, which: int, other: Any) -> bytes:
    """Another value in the place of one, or without it."""
    lines = whole.decode().splitlines() if b'"prompt"' in whole else [whole.decode()]
    values = [json.loads(line) for line in lines]
    every = list(places(values))
    *path, last = every[which % len(every)]
    within: Any = values
    for key in path:
        within = within[key]
    if other is GONE:
        del within[last]
    else:
        within[last] = other
    return "".join(f"{json.dumps(value)}\n" for value in values).encode()


GONE = object()


@settings(relaxed, max_examples=150)
@given(
    name=st.sampled_from([MANIFEST, SAMPLES, "../counts.json"]),
    which=st.integers(0, 1 << 16),
    other=st.sampled_from([GONE, None, True, -1, 1e308, float("nan"), 10**30, "x", "\ud800", [], {}, [[]]]),
)
def test_other_values_are_read_or_refused(folder: Path, name: str, which: int, other: Any) -> None:
    read_or_refused(folder, name, lambda whole: damaged_value(whole, which, other))


def read_or_refused(folder: Path, name: str, damage: Any) -> None:
    """Whatever else than a UsageError is raised fails the test."""
    file = folder / name
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    try:
        with suppress(UsageError):
            report(file if name not in (MANIFEST, SAMPLES) else folder)
    finally:
        file.write_bytes(whole)


def test_a_damaged_run_is_told_as_such(folder: Path) -> None:
    lines = (folder / SAMPLES).read_text().splitlines(keepends=True)
    (folder / SAMPLES).write_text("".join([lines[0], lines[1].replace('"timings"', '"time"'), *lines[2:]]))
    ran = run("eval", "report", str(folder))
    assert (ran.code, ran.out) == (2, "")
    assert "samples.jsonl, line 2 is damaged\nhint: Delete that line" in ran.err


def test_what_is_damaged_is_not_scored_again(folder: Path) -> None:
    whole = (folder / SAMPLES).read_text()
    (folder.parent / "phrases.txt").write_text("no")
    again = ("eval", "rescore", str(folder), "--phrases", str(folder.parent / "phrases.txt"))
    (folder / SAMPLES).write_text(whole.replace('"finish_reason"', '"reason"', 1))
    ran = run(*again)
    assert (ran.code, "samples.jsonl, line 1 is damaged" in ran.err) == (2, True)
    (folder / SAMPLES).write_text(whole)
    assert run(*again).code == 0
    about = folder / "rescored" / "phrases.json"
    about.write_bytes(b"5")
    assert "holds no scores called phrases" in run("eval", "report", str(folder), "--scores", "phrases").err
    about.write_bytes(b"\xff\xfe")
    assert "were made in another way" in run(*again).err


@pytest.mark.parametrize("empty", ["[]", "{}"])
def test_counts_of_no_run_are_refused(empty: str, tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text(empty)
    for words in ("report",), ("compare", str(tmp_path / "counts.json")):
        ran = run("eval", *words, str(tmp_path / "counts.json"))
        assert (ran.code, ran.out) == (2, "")
        assert "holds no counts: it is empty" in ran.err


def test_counts_of_another_version_are_refused(folder: Path) -> None:
    counts = folder.parent / "counts.json"
    counts.write_text(counts.read_text().replace('"covered_mass"', '"crossed_mass"'))
    ran = run("eval", "report", str(counts))
    assert (ran.code, ran.out) == (2, "")
    assert "holds no counts" in ran.err


# --- suites


@pytest.mark.parametrize(
    ("name", "raw", "prompt"),
    [
        ("nul.csv", b"prompt,label\n\0a,benign\n", "\0a"),
        ("nul.jsonl", b'{"prompt": "\\u0000a", "label": "benign"}\n', "\0a"),
        ("long.csv", b"prompt,label\n" + b"x" * 10_000_000 + b",benign\n", "x" * 10_000_000),
        ("long.jsonl", b'{"prompt": "%s", "label": "benign"}' % (b"x" * 10_000_000), "x" * 10_000_000),
        ("quoted.csv", b'prompt,label\n"a ""b"", c\nd",benign\n', 'a "b", c\nd'),
        ("utf16.csv", "prompt,label\na,benign\n".encode("utf-16"), "a"),
        ("returns.csv", b"prompt,label\ra,benign\r", "a"),
        ("marked.jsonl", b'\xef\xbb\xbf{"prompt": "a", "label": "benign"}\n', "a"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith(("csv", "jsonl")) else "",
)
def test_odd_suites_are_read(tmp_path: Path, name: str, raw: bytes, prompt: str) -> None:
    (tmp_path / name).write_bytes(raw)
    (item,) = load_suite(str(tmp_path / name), lambda _: tmp_path)
    assert item.prompt == prompt


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("open.csv", b'prompt,label\n"a,benign\nb,benign\n'),
        ("wide.csv", b"prompt,label\na,benign,more,and more\n"),
        ("bytes.jsonl", b'{"prompt": "\xff", "label": "benign"}\n'),
        ("surrogate.jsonl", b'{"prompt": "\\ud800", "label": "benign"}\n'),
        ("nul.jsonl", b'{"prompt": "\0", "label": "benign"}\n'),
        ("deep.jsonl", b"[" * 100_000),
        ("digits.jsonl", b'{"prompt": "a", "label": "benign", "id": %s}' % (b"9" * 5000)),
        ("label.jsonl", b'{"prompt": "a", "label": ["benign"]}'),
    ],
)
def test_hostile_suites_are_refused(tmp_path: Path, name: str, raw: bytes) -> None:
    (tmp_path / name).write_bytes(raw)
    ran = run("eval", "run", "--suite", str(tmp_path / name), "--out", str(tmp_path / "out"))
    assert (ran.code, ran.out, (tmp_path / "out").exists()) == (2, "", False)
    assert ran.err.startswith("error: ")
    assert str(tmp_path / name) in ran.err


@settings(relaxed, max_examples=100)
@given(
    suffix=st.sampled_from(["csv", "tsv", "jsonl"]),
    raw=st.binary(max_size=80) | st.text('prompt,label\n\r"\0 {}[]:\t\ud7ff', max_size=80).map(str.encode),
)
def test_any_suite_is_read_or_refused(tmp_path: Path, suffix: str, raw: bytes) -> None:
    path = tmp_path / f"suite.{suffix}"
    path.write_bytes(raw)
    with suppress(UsageError):
        read_rows(path)
