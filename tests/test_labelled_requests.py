"""The labelled requests: their reader, and what the shipped ones must hold so that form tells nothing."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.suites.suites import load_suite
from alignbeam_local.heads.labelled_requests import REQUESTS_FILE, LabelledRequest, read_requests
from alignbeam_local.prompt.message import Message

LANGUAGES = {"en", "de", "fr", "es", "zh"}
BALANCED = {"contrast", "order", "question", "turns", "long"}
FORM_ACCURACY = 0.62
SUITES = Path(str(files("alignbeam_local.evaluation.suites")))

ROW = {
    "id": "a",
    "pair": None,
    "label": "harmless",
    "kind": "question",
    "topic": "tea",
    "language": "en",
    "split": "fit",
    "prompt": "How do I brew tea?",
}


@pytest.fixture(scope="module")
def requests() -> list[LabelledRequest]:
    return read_requests()


def twins(requests: Iterable[LabelledRequest]) -> dict[str, list[LabelledRequest]]:
    found = defaultdict(list)
    for request in requests:
        if request.pair is not None:
            found[request.pair].append(request)
    return found


def words(request: LabelledRequest) -> list[str]:
    """Of Chinese, which has no spaces, the characters."""
    text = "\n".join(message.content for message in request.messages)
    pattern = r"[\u4e00-\u9fff]|[A-Za-z]+" if request.language == "zh" else r"[\w']+"
    return re.findall(pattern, text.lower())


def asks(request: LabelledRequest) -> bool:
    return request.text.rstrip().endswith(("?", "？"))


def folded(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def accuracy(requests: list[LabelledRequest], form: Callable[[LabelledRequest], Hashable]) -> float:
    """Of calling each request what most of its form are."""
    labels: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for request in requests:
        labels[form(request)][request.label] += 1
    return sum(max(counts.values()) for counts in labels.values()) / len(requests)


def shorter_than(n: int) -> Callable[[LabelledRequest], bool]:
    return lambda request: len(words(request)) < n


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_there_are_enough_of_every_kind(requests: list[LabelledRequest]) -> None:
    kinds = Counter(request.kind for request in requests)
    assert len(requests) >= 1500
    assert kinds["contrast"] >= 800
    assert min(kinds["turns"], kinds["long"]) >= 100
    assert min(kinds["ordinary"], kinds["order"], kinds["question"]) >= 140
    assert len({request.topic for request in requests}) >= 120


def test_every_language_and_kind_is_in_both_splits(requests: list[LabelledRequest]) -> None:
    languages = Counter(request.language for request in requests)
    assert set(languages) == LANGUAGES
    assert 0.6 <= languages["en"] / len(requests) <= 0.7
    cells = {(r.language, r.kind, r.split) for r in requests}
    assert len(cells) == len(LANGUAGES) * (len(BALANCED) + 1) * 2
    assert 0.6 <= sum(request.split == "fit" for request in requests) / len(requests) <= 0.7


def test_labels_are_balanced_in_each_kind_language_and_split(requests: list[LabelledRequest]) -> None:
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for r in requests:
        if r.kind in BALANCED:
            groups: list[tuple[str, ...]] = [(r.kind, r.language), (r.kind, r.split), (r.language, r.split)]
            for group in groups:
                counts[group][r.label] += 1
    for group, labels in counts.items():
        assert 0.45 <= labels["harmful"] / labels.total() <= 0.55, group


def test_ordinary_requests_are_harmless(requests: list[LabelledRequest]) -> None:
    assert {r.label for r in requests if r.kind == "ordinary"} == {"harmless"}


def test_twins_are_opposites_of_one_topic_and_form(requests: list[LabelledRequest]) -> None:
    pairs = twins(requests)
    assert sum(pair[0].kind == "contrast" for pair in pairs.values()) >= 400
    for name, pair in pairs.items():
        assert sorted(request.label for request in pair) == ["harmful", "harmless"], name
        assert len({(r.topic, r.split, r.kind, r.language, len(r.messages)) for r in pair}) == 1, name
        if pair[0].kind == "contrast":
            assert asks(pair[0]) == asks(pair[1]), name


def test_contrasts_turns_and_long_requests_have_a_twin(requests: list[LabelledRequest]) -> None:
    for request in requests:
        assert (request.pair is not None) == (request.kind in {"contrast", "turns", "long"}), request.id


def test_no_topic_is_in_both_splits(requests: list[LabelledRequest]) -> None:
    splits = defaultdict(set)
    for request in requests:
        splits[request.topic].add(request.split)
    assert [topic for topic, found in splits.items() if len(found) > 1] == []


def test_no_text_is_there_twice(requests: list[LabelledRequest]) -> None:
    texts = Counter(folded("\n".join(m.content for m in request.messages)) for request in requests)
    assert [text for text, count in texts.items() if count > 1] == []


def test_form_does_not_tell_the_labels_apart(requests: list[LabelledRequest]) -> None:
    contrast = [request for request in requests if request.kind == "contrast"]
    assert accuracy(contrast, lambda r: (words(r)[0], asks(r))) <= FORM_ACCURACY
    for kind in BALANCED:
        assert accuracy([r for r in requests if r.kind == kind], asks) <= FORM_ACCURACY, kind


@pytest.mark.parametrize("kind", sorted(BALANCED))
def test_length_does_not_tell_the_labels_apart(kind: str, requests: list[LabelledRequest]) -> None:
    some = [request for request in requests if request.kind == kind]
    assert max(accuracy(some, shorter_than(n)) for n in {len(words(r)) for r in some}) <= FORM_ACCURACY


def test_long_requests_are_long_and_so_are_their_twins(requests: list[LabelledRequest]) -> None:
    for pair in twins(r for r in requests if r.kind == "long").values():
        lengths = [len(words(request)) for request in pair]
        assert 100 <= min(lengths) <= max(lengths) <= 260, pair[0].id
        assert max(lengths) - min(lengths) <= 10, pair[0].id


def test_only_conversations_have_several_messages(requests: list[LabelledRequest]) -> None:
    for request in requests:
        assert (len(request.messages) > 1) == (request.kind == "turns"), request.id
        roles = [message.role for message in request.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"], request.id


def test_what_the_assistant_said_does_not_tell_twins_apart(requests: list[LabelledRequest]) -> None:
    for name, pair in twins(requests).items():
        said = {tuple(m.content for m in r.messages if m.role == "assistant") for r in pair}
        assert len(said) == 1, name


def test_the_suites_are_read_and_share_nothing_with_the_requests(requests: list[LabelledRequest]) -> None:
    ordinary = load_suite(str(SUITES / "ordinary.jsonl"), lambda file: pytest.fail(file.repo))
    questions = load_suite(str(SUITES / "harmless_questions.jsonl"), lambda file: pytest.fail(file.repo))
    assert (len(ordinary), len(questions)) == (150, 100)
    assert {item.label for item in ordinary + questions} == {"benign"}
    texts = [folded(item.prompt) for item in ordinary + questions]
    assert len(set(texts)) == len(texts)
    assert set(texts).isdisjoint(folded(message.content) for r in requests for message in r.messages)


def test_harmless_questions_have_right_answers_of_both_sorts() -> None:
    lines = (SUITES / "harmless_questions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    answers = Counter(row["answer"] for row in rows)
    assert set(answers) == {"yes", "no", None}
    assert min(answers["yes"], answers["no"]) >= 25
    assert {row["category"] for row in rows} == {"medicine", "pharmacy", "finance", "code"}


def test_the_file_holds_letters_not_escapes() -> None:
    text = REQUESTS_FILE.read_text(encoding="utf-8")
    assert "\\u" not in text
    assert text.endswith("}\n")


def test_a_prompt_and_messages_are_read(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes."}]
    turns = {**ROW, "id": "b", "kind": "turns", "messages": [*said, {"role": "user", "content": "How?"}]}
    del turns["prompt"]
    one, other = read_requests(write(tmp_path / "own.jsonl", ROW, turns))
    assert one.messages == (Message("user", "How do I brew tea?"),)
    assert [message.role for message in other.messages] == ["user", "assistant", "user"]
    assert (other.text, other.topic, other.pair) == ("How?", "tea", None)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"label": "benign"}, "label"),
        ({"split": "test"}, "split"),
        ({"language": "english"}, "language"),
        ({"topic": ""}, "topic"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": None}, "either a prompt or messages"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "either a prompt or messages"),
        ({"prompt": None, "messages": [{"role": "assistant", "content": "Hi"}]}, "the user's"),
        ({"prompt": None, "messages": [{"role": "system", "content": "Hi"}]}, "messages.0.role"),
        ({"answer": "yes"}, "answer"),
        ({"id": "a"}, "line 1 as well"),
    ],
)
def test_a_wrong_line_is_named(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", ROW, {**ROW, "id": "b", **change})
    with pytest.raises(UsageError, match=rf"own\.jsonl, line 2: .*{complaint}"):
        read_requests(path)


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n{", encoding="utf-8")
    with pytest.raises(UsageError, match="line 3"):
        read_requests(path)


def test_a_file_that_is_missing_empty_or_not_utf_8_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't read"):
        read_requests(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(UsageError, match="holds no request"):
        read_requests(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}')
    with pytest.raises(UsageError, match="can't read"):
        read_requests(tmp_path / "latin.jsonl")
