"""Suites: from files, by name, and which of their prompts are asked."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from alignbeam_local.errors import AlignBeamError, UsageError
from alignbeam_local.evaluation.suites import suites
from alignbeam_local.evaluation.suites.hub import hub_fetch
from alignbeam_local.evaluation.suites.sampling import pick
from alignbeam_local.evaluation.suites.suites import HubFile, Item, load_suite, named_suites, prompts_sha256


def no_fetch(_: HubFile) -> Path:
    raise AssertionError("nothing is fetched")


def written(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return str(file)


EXPECTED = [
    Item("mine", "a", 'Say, "hi"\nand bye', "benign", "greeting"),
    Item("mine", "mine-2", "2 + 2?", "utility", "", "4"),
]


def test_json_lines(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "prompt": EXPECTED[0].prompt, "label": "benign", "category": "greeting", "more": [1]},
        {"prompt": "2 + 2?", "label": "utility", "answer": 4},
    ]
    text = "\n\n".join(json.dumps(row) for row in rows)
    assert load_suite(written(tmp_path, "mine.jsonl", text), no_fetch) == EXPECTED


@pytest.mark.parametrize(("suffix", "comma"), [("csv", ","), ("tsv", "\t")])
def test_comma_and_tab_separated(tmp_path: Path, suffix: str, comma: str) -> None:
    lines = [
        "id,prompt,label,category,answer",
        'a,"Say, ""hi""\nand bye",benign,greeting,',
        ",2 + 2?,utility,,4",
    ]
    lines = [line.replace(",", comma).replace(f"Say{comma}", "Say,") for line in lines]
    text = "\ufeff" + "\r\n".join(lines)  # as a spreadsheet writes it
    assert load_suite(written(tmp_path, f"mine.{suffix}", text), no_fetch) == EXPECTED


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"prompt": "x"', "line 1: not JSON"),
        ("a.jsonl", "[1]", "line 1: not an object"),
        ("a.jsonl", '{"prompt": " ", "label": "benign"}', "row 1: no prompt"),
        ("a.jsonl", '{"prompt": 3, "label": "benign"}', "row 1: no prompt"),
        ("a.jsonl", '{"prompt": "x"}', "row 1: label None"),
        ("a.jsonl", '{"prompt": "x", "label": "bad"}', "row 1: label 'bad'"),
        ("a.jsonl", '{"id": 1, "prompt": "x", "label": "benign"}\n' * 2, "id '1' is there twice"),
        ("a.jsonl", '{"prompt": "x", "label": "utility", "answer": "J"}', "row 1: answer 'J'"),
        ("a.jsonl", '{"prompt": "x", "label": "utility", "answer": "Paris"}', "row 1: answer 'Paris'"),
        ("a.jsonl", "\n", "holds no prompt"),
        ("a.csv", "prompt,label\n", "holds no prompt"),
        ("a.txt", "x", "not a format of suites"),
        ("a.csv", "id,label,prompt\n1,benign,Hello, how are you?\n", "row 1: 4 fields under 3 columns"),
        ("a.tsv", "label\tprompt\nbenign\tHello\nbenign\ta\tb\n", "row 2: 3 fields under 2 columns"),
        ("a.csv", "prompt,label,category\nx,benign,\n\ny,benign\n", "row 2: 2 fields under 3 columns"),
        ("a.csv", "prompt,label,prompt\nx,benign,y\n", "column 'prompt' is there twice"),
        ("a.csv", 'prompt,label\nx,benign\n"y,benign\nz,benign\n', "line 4: unexpected end of data"),
        ("a.csv", 'prompt,label\n"Say" it,benign\n', "line 2: ',' expected after '\"'"),
        ("a.csv", "", "holds no prompt"),
        (
            "a.jsonl",
            '{"prompt": "x", "label": "benign", "prompt": "y"}',
            "line 1: not JSON: 'prompt' is there twice",
        ),
        (
            "a.jsonl",
            r'{"prompt": "\ud800", "label": "benign"}',
            r"line 1: not JSON: an escape such as \ud800 in it is not Unicode text",
        ),
    ],
)
def test_a_file_that_is_no_suite(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_suite(written(tmp_path, name, text), no_fetch)
    assert message in caught.value.message


def test_answers_are_what_utility_is_counted_by(tmp_path: Path) -> None:
    rows = [
        {"id": 0, "prompt": "x", "label": "utility", "answer": "(b)"},
        {"id": 1, "prompt": "x", "label": "utility", "answer": 18},
        {"id": "", "prompt": "x", "label": "harmful", "answer": "Sure, here is"},
    ]
    items = load_suite(written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))), no_fetch)
    assert [(item.id, item.reference) for item in items] == [("0", "B"), ("1", "18"), ("a-3", None)]


@pytest.mark.parametrize("spec", ["harmful", ":benign"])
def test_what_looks_like_a_path_and_is_none(spec: str) -> None:
    with pytest.raises(UsageError, match="no suite and no file"):
        load_suite(spec, no_fetch)


def test_a_misspelt_name_is_told_the_right_one() -> None:
    with pytest.raises(UsageError, match="no suite and no file 'advbnch'") as caught:
        load_suite("advbnch", no_fetch)
    assert "Did you mean advbench" in caught.value.hint


#: A row as each named suite's file has it, and what must become of it.
ROWS: dict[str, tuple[dict[str, Any], tuple[str, str, str, str | None]]] = {
    "jailbreakbench-benign": ({"Goal": "g", "Category": "c"}, ("g", "benign", "c", None)),
    "sorry-bench": ({"turns": ["t"], "category": 3}, ("t", "harmful", "3", None)),
    "wildjailbreak": ({"adversarial": "a", "data_type": "adversarial_benign"}, ("a", "benign", "", None)),
    "xstest": ({"prompt": "p", "label": "unsafe", "type": "t"}, ("p", "harmful", "t", None)),
    "or-bench-hard": ({"prompt": "p", "category": "c"}, ("p", "benign", "c", None)),
    "harmbench-contextual": (
        {"prompt": "p", "context": "about", "category": "c"},
        ("about\n\n---\n\np", "harmful", "c", None),
    ),
    "gsm8k": ({"question": "q", "answer": "so #### no\n#### 1,200"}, ("q", "utility", "", "1,200")),
    "medqa": (
        {"question": "q", "options": dict(zip("ABCD", "wxyz", strict=True)), "answer_idx": "B"},
        (
            "q\n\nA) w\nB) x\nC) y\nD) z\n\nAnswer with the letter of the right option.",
            "utility",
            "",
            "B",
        ),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_named_suite_reads_its_rows(name: str) -> None:
    row, expected = ROWS[name]
    item = named_suites()[name].item(name, 7, row)
    assert (item.prompt, item.label, item.category, item.reference) == expected
    assert (item.suite, item.id) == (name, f"{name}-7")


@pytest.mark.parametrize(("name", "least", "kinds"), [("ordinary", 150, 15), ("harmless_questions", 100, 4)])
def test_what_the_project_ships_is_benign_and_of_many_kinds(name: str, least: int, kinds: int) -> None:
    def fetch(_: HubFile) -> Path:
        raise AssertionError("nothing is fetched")

    items = load_suite(name, fetch)
    assert len({item.prompt for item in items}) == len(items) >= least
    assert {(item.suite, item.label) for item in items} == {(name, "benign")}
    assert len({item.category for item in items}) >= kinds


def test_every_suite_of_the_task_has_a_name() -> None:
    assert set(named_suites()) == {
        *("advbench", "harmbench-standard", "harmbench-contextual", "strongreject", "sorry-bench"),
        *("jailbreakbench-harmful", "jailbreakbench-benign", "wildjailbreak", "xstest", "or-bench-hard"),
        *("gsm8k", "medqa", "ordinary", "harmless_questions", "several_turns"),
    }


def test_a_file_of_another_shape_is_no_traceback(tmp_path: Path) -> None:
    file = Path(written(tmp_path, "or.csv", "question\nx\n"))
    with pytest.raises(AlignBeamError, match="another shape than expected: KeyError"):
        load_suite("or-bench-hard", lambda _: file)


def test_parquet_is_read_or_its_library_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(written(tmp_path, "a.parquet", "no parquet"))
    monkeypatch.setattr(suites, "import_module", lambda _: (_ for _ in ()).throw(ImportError()))
    with pytest.raises(UsageError, match="pyarrow is not installed") as caught:
        load_suite("advbench", lambda _: file)
    assert "pip install" in caught.value.hint


def test_parquet(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "a.parquet"
    parquet.write_table(arrow.Table.from_pylist([{"prompt": "p", "target": "t"}]), file)
    assert [item.prompt for item in load_suite("advbench", lambda _: file)] == ["p"]


@pytest.mark.parametrize("variable", ["ALIGNBEAM_OFFLINE", None])
def test_offline_asks_no_hub(variable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    if variable:
        monkeypatch.setenv(variable, "1")
    fetch = hub_fetch(offline=variable is None)
    with pytest.raises(AlignBeamError, match="is not here") as caught:
        fetch(HubFile(repo="walledai/AdvBench", file="a.parquet"))
    assert "--offline" in caught.value.hint


def test_a_gated_suite_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(*_: object, **__: object) -> None:
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", gated)
    with pytest.raises(AlignBeamError, match="is gated") as caught:
        hub_fetch(offline=False)(HubFile(repo="allenai/wildjailbreak", file="eval/eval.tsv"))
    assert "huggingface.co/datasets/allenai/wildjailbreak" in caught.value.hint
    assert "HF_TOKEN" in caught.value.hint


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError("The read operation timed out"), "timed out"),
        (ConnectionResetError(), "ConnectionResetError"),
        (OSError(28, "No space left on device"), "No space left"),
        (RuntimeError("file should be of size 7"), "of size 7"),
    ],
)
def test_whatever_the_hub_does_is_a_message(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(AlignBeamError, match=reason) as caught:
        hub_fetch(offline=False)(HubFile(repo="a/b", file="c.tsv"))
    assert "path of a file" in caught.value.hint


# --- which are asked

LABELLED = st.tuples(st.sampled_from(["harmful", "benign"]), st.sampled_from(["", "x", "y"]))


def items(kinds: list[tuple[str, str]]) -> list[Item]:
    return [Item("s", str(i), f"p{i}", label, category) for i, (label, category) in enumerate(kinds)]  # type: ignore[arg-type]


def kinds() -> SearchStrategy[list[tuple[str, str]]]:
    return st.lists(LABELLED, min_size=1, max_size=60)


@given(kinds(), st.integers(1, 70), st.integers(0, 3))
def test_a_stratified_limit_keeps_the_shares(
    given_kinds: list[tuple[str, str]], limit: int, seed: int
) -> None:
    every = items(given_kinds)
    chosen = pick(every, limit, "stratified", seed)
    assert chosen == pick(every, limit, "stratified", seed)
    assert len(chosen) == min(limit, len(every))
    assert [int(item.id) for item in chosen] == sorted({int(item.id) for item in chosen})
    before = Counter((item.label, item.category) for item in every)
    after = Counter((item.label, item.category) for item in chosen)
    for kind, count in before.items():
        assert abs(after[kind] - count * len(chosen) / len(every)) < 1


def test_another_seed_draws_others() -> None:
    every = items([("harmful", "")] * 50)
    assert pick(every, 10, "stratified", 0) != pick(every, 10, "stratified", 1)


def test_even_spacing_is_that_of_the_earlier_figures() -> None:
    every = items([("benign", "")] * 10)
    assert [item.id for item in pick(every, 4, "even", 9)] == ["0", "2", "5", "7"]
    assert pick(every, None, "even", 0) == pick(every, 99, "even", 0) == every


def test_a_hash_of_prompts_sees_what_is_asked() -> None:
    one, other = items([("harmful", "")]), items([("benign", "")])
    assert prompts_sha256(one) != prompts_sha256(other)
