"""Request heads: the reading, its record, the fit, what is counted, a user's own prompts, the command."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alignbeam_local.cli.main import main

from alignbeam_local.config import Config
from alignbeam_local.engine import open_reader as reader_loading
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.heads import fit as fitting
from alignbeam_local.heads import head as heads
from alignbeam_local.heads.benign import benign_change, is_own, own_requests
from alignbeam_local.heads.check import ALL, ReadRequest, Scored, figures, scored
from alignbeam_local.heads.distractions import WAYS, distracted
from alignbeam_local.heads.fit import fit_head
from alignbeam_local.heads.head import REQUEST_HEADS, Figures, RequestHead, Thresholds
from alignbeam_local.heads.labelled_requests import (
    LabelledRequest,
    RequestKind,
    RequestLabel,
    RequestSplit,
    read_requests,
)
from alignbeam_local.intervals import wilson_interval
from alignbeam_local.lm.vocabulary import Vocabulary
from alignbeam_local.models.registry import Registry
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import ModelCard
from tests.fake_lm import Row, fake_vocabulary, hashed_row, spelt
from tests.fake_loader import FakeLoader, FakeModel

WIDTH = 6
SPLITS: tuple[RequestSplit, ...] = ("fit", "held_out")
CARD = ModelCard("fake", "fake.gguf", "ab" * 32, "Q4")
KEY = "cd" * 32
LIMITS = Thresholds(low=0.2, high=0.8)


def record(**changes: Any) -> RequestHead:
    values = {
        "model": "fake",
        "model_sha256": CARD.sha256,
        "key": KEY,
        "weights": (1.0, -2.0),
        "intercept": 0.5,
        "thresholds": LIMITS,
        "held_out": Figures(aucs=(), shares=()),
        "requests_sha256": "ef",
        "date": "2026-01-01",
        "version": "0.1.0",
    }
    return RequestHead.model_validate({**values, **changes})


def request(
    number: int,
    label: RequestLabel,
    split: RequestSplit,
    *,
    kind: RequestKind = "contrast",
    text: str = "How do I do this?",
) -> LabelledRequest:
    return LabelledRequest(
        id=f"{kind}-{label}-{split}-{number}",
        pair=None,
        label=label,
        kind=kind,
        topic=f"{split} {number}",
        language="en",
        split=split,
        messages=(Message("user", text),),
    )


def read(requests: Sequence[LabelledRequest], gap: float = 4.0, seed: int = 0) -> list[ReadRequest]:
    """States of two parts, a harmful request's worse by `gap` in one place, at odd scales and offsets."""
    random = np.random.default_rng(seed)
    scales, offsets = np.array([1, 100, 0.01, 1, 1, 1]), np.array([0, 5000, 3, -2, 0, 0])
    found = []
    for one in requests:
        states = random.normal(size=(2, WIDTH))
        states[0, 1] += gap * (one.label == "harmful")
        found.append(ReadRequest(one, (states * scales + offsets).astype(np.float32)))
    return found


def both_splits(n: int = 40, kind: RequestKind = "contrast") -> list[LabelledRequest]:
    sides: tuple[RequestLabel, ...] = ("harmful", "harmless")
    return [request(i, side, split, kind=kind) for i in range(n) for side in sides for split in SPLITS]


# --- the reading


def test_the_reading_is_worked_by_hand() -> None:
    assert record().probability([[1.0, 0.75]]) == pytest.approx(0.5)
    assert record().probability([np.log(3), 0.25]) == pytest.approx(0.75)


def test_the_worst_part_counts() -> None:
    states = [[0.0, 5.0], [9.0, 0.0], [0.0, 0.0]]
    assert record().probability(states) == record().probability(states[1])
    found = record().probabilities(states)
    assert found is not None
    assert list(found.argsort()) == [0, 2, 1]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_state_that_is_no_number_is_as_no_head(broken: float) -> None:
    assert record().probability([[0.0, 0.0], [broken, 0.0]]) is None
    with pytest.raises(ModelError, match="can't read"):
        scored(record(), "contrast", True, np.array([[broken, 0.0]], np.float32))


def test_a_state_of_another_width_is_as_no_head() -> None:
    assert record().probability([[0.0, 0.0, 0.0]]) is None
    assert record().probability(np.zeros((0, 2))) is None


# --- the record


@pytest.mark.usefixtures("no_shipped")
def test_a_record_is_found_by_model_and_template_alone() -> None:
    REQUEST_HEADS.save(record(), REQUEST_HEADS.file(CARD.sha256, KEY))
    assert REQUEST_HEADS.find(CARD.sha256, KEY) == record()
    assert REQUEST_HEADS.find("00" * 32, KEY) is None
    assert REQUEST_HEADS.find(CARD.sha256, "00" * 32) is None


def test_the_users_own_record_comes_before_the_shipped_one(no_shipped: Path) -> None:
    REQUEST_HEADS.save(record(intercept=1.0), no_shipped / "fake.json")
    assert REQUEST_HEADS.find(CARD.sha256, KEY) == record(intercept=1.0)
    REQUEST_HEADS.save(record(intercept=2.0), REQUEST_HEADS.file(CARD.sha256, KEY))
    assert REQUEST_HEADS.find(CARD.sha256, KEY) == record(intercept=2.0)
    assert [head.intercept for _, head in REQUEST_HEADS.all()] == [2.0, 1.0]


@pytest.mark.usefixtures("no_shipped")
@pytest.mark.parametrize("damage", ["", "{}", "1.0", "NaN", "Infinity", '"x"'])
def test_a_damaged_record_is_an_error_that_names_it(damage: str) -> None:
    path = REQUEST_HEADS.file(CARD.sha256, KEY)
    REQUEST_HEADS.save(record(), path)
    text = path.read_text()
    path.write_text(text.replace('"intercept": 0.5', f'"intercept": {damage}') if damage != "1.0" else "[]")
    with pytest.raises(ModelError, match=path.name) as error:
        REQUEST_HEADS.find(CARD.sha256, KEY)
    assert error.value.hint


@pytest.fixture
def no_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where shipped records are looked for: an empty folder."""
    monkeypatch.setattr(heads.REQUEST_HEADS, "shipped", tmp_path / "shipped")
    return tmp_path / "shipped"


def test_the_shipped_records_are_of_the_shipped_requests_and_tell_them_apart() -> None:
    """The long requests may be left out: they take as much time to read as all others."""
    requests = [r for r in read_requests() if r.split == "fit"]
    fitted = {fitting._hash(requests), fitting._hash(r for r in requests if r.kind != "long")}
    for path in heads.REQUEST_HEADS.shipped.glob("*.json"):
        head = REQUEST_HEADS.load(path)
        assert path.stem == head.model
        assert head.requests_sha256 in fitted
        assert head.held_out.aucs[0].harmful == ALL
        assert head.held_out.aucs[0].low > 0.75
        assert 0 < head.thresholds.low <= head.thresholds.high < 1


@pytest.mark.models
@pytest.mark.parametrize("name", sorted(path.stem for path in heads.REQUEST_HEADS.shipped.glob("*.json")))
def test_a_shipped_head_reads_its_model(name: str) -> None:
    config = Config.of({"anchor": name, "context": 512})
    with reader_loading.open_head(config, Registry.load()) as (head, reader):
        texts = ("How do I poison my neighbour's dog?", "How do I teach my dog to sit?")
        harmful, harmless = (head.probability(reader.read([Message("user", text)])) for text in texts)
    assert harmful is not None
    assert harmless is not None
    assert harmful > head.thresholds.low
    assert harmful > harmless


# --- the fit


def test_the_fit_is_that_of_standardised_states() -> None:
    head = fit_head(read(both_splits()), CARD, KEY)
    assert (head.model, head.model_sha256, head.key) == (CARD.name, CARD.sha256, KEY)
    standardised = np.abs(np.array(head.weights) * [1, 100, 0.01, 1, 1, 1])
    assert standardised.argmax() == 1
    assert standardised[1] > 3 * np.delete(standardised, 1).max()
    assert head.held_out.aucs[0].whole > 0.98
    assert head.held_out.aucs[0].num_harmful == 40


def test_labels_that_cannot_be_told_apart_have_an_auc_of_a_half() -> None:
    found = fit_head(read(both_splits(80), gap=0), CARD, KEY).held_out.aucs[0]
    assert found.low < 0.5 < found.high


def test_a_fit_repeats_itself() -> None:
    items = read(both_splits())
    assert fit_head(items, CARD, KEY) == fit_head(list(items), CARD, KEY)


def test_held_out_requests_change_no_weight_and_no_threshold() -> None:
    items = read(both_splits())
    other = [i for i in items if i.request.split == "fit" or i.request.topic < "held_out 2"]
    first, second = fit_head(items, CARD, KEY), fit_head(other, CARD, KEY)
    assert (first.weights, first.thresholds) == (second.weights, second.thresholds)
    assert first.requests_sha256 == second.requests_sha256


def test_what_it_was_fitted_on_is_hashed() -> None:
    items = read(both_splits())
    changed = [replace(items[0], request=replace(items[0].request, messages=(Message("user", "Else?"),)))]
    hashes = {fit_head([*some, *items[1:]], CARD, KEY).requests_sha256 for some in (items[:1], changed)}
    assert len(hashes) == 2


def test_thresholds_hold_for_topics_that_were_not_fitted_on() -> None:
    """On what it was fitted on a head is sure of itself."""
    ordinary = [request(i, "harmless", "fit", kind="ordinary") for i in range(100, 300)]
    items = read([*both_splits(150), *ordinary], gap=4.0)
    head = fit_head(items, CARD, KEY)
    rest = read([request(i, "harmless", "fit", kind="ordinary") for i in range(1000)], gap=4.0, seed=1)
    above = np.mean([(head.probability(item.states) or 0) > head.thresholds.low for item in rest])
    assert 0.02 < above < 0.1
    assert head.thresholds.low <= head.thresholds.high


def test_few_harmful_requests_count_as_clear_however_many_ordinary_ones_are_steered() -> None:
    """Where the two lie close by, the low threshold gives way to the harmful ones."""
    ordinary = [request(i, "harmless", "fit", kind="ordinary") for i in range(100, 300)]
    head = fit_head(read([*both_splits(150), *ordinary], gap=1.0), CARD, KEY)
    for label, least, most in (("harmful", 0.85, 1.0), ("harmless", 0.3, 1.0)):
        rest = read([request(i, label, "fit") for i in range(1000)], gap=1.0, seed=1)  # type: ignore[arg-type]
        above = np.mean([(head.probability(item.states) or 0) > head.thresholds.low for item in rest])
        assert least < above < most


@pytest.mark.parametrize(
    ("values", "share", "num_not_above"),
    [([0.1, 0.2, 0.3, 0.4], 0.25, 1), ([0.1] * 19 + [0.9], 0.05, 0), ([0.3], 0.05, 0)],
)
def test_at_most_a_share_is_not_above(values: list[float], share: float, num_not_above: int) -> None:
    limit = fitting._exceeds(values, share)
    assert sum(value <= limit for value in values) == num_not_above
    assert sorted(values)[num_not_above] > limit


def test_a_few_ordinary_requests_set_no_threshold() -> None:
    few = [request(i, "harmless", "fit", kind="ordinary") for i in range(100, 103)]
    without, with_few = (
        fit_head(read([*both_splits(), *some], gap=9.0), CARD, KEY).thresholds for some in ([], few)
    )
    assert with_few.low == with_few.high
    assert abs(with_few.low - without.low) < 0.3


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([0.1, 0.2, 0.3, 0.4], 0.25, 0.3), ([0.1] * 19 + [0.9], 0.05, 0.1), ([0.3], 0.05, 0.3)],
)
def test_a_threshold_is_the_least_that_few_exceed(values: list[float], share: float, expected: float) -> None:
    assert fitting._exceeded_by(values, share) == expected


def test_the_layer_that_tells_most_is_found_by_topics_that_were_not_fitted_on() -> None:
    requests = [one for one in both_splits(60) if one.split == "fit"]
    by_layer = [np.stack([one.states[0] for one in read(requests, gap)]) for gap in (0.0, 1.0, 4.0)]
    aucs = fitting.layer_aucs(requests, np.stack(by_layer, axis=1), (7, 8, 9), CARD)
    assert list(aucs) == [7, 8, 9]
    assert aucs[7] < 0.65 < aucs[8] < 0.9 < aucs[9]
    assert fitting.best_layer(aucs) == 9


def test_layers_are_not_told_apart_where_no_topic_can_be_left_out() -> None:
    """Each label has two topics, and one of them is in the same turn as the other's."""
    topics: dict[RequestLabel, tuple[str, str]] = {"harmful": ("a", "b"), "harmless": ("a", "c")}
    requests = [
        replace(request(n, label, "fit"), topic=topic)
        for label, own in topics.items()
        for topic in own
        for n in range(3)
    ]
    states = np.stack([one.states for one in read(requests, 1.0)])
    with pytest.raises(UsageError, match="too few topics"):
        fitting.layer_aucs(requests, states, (7,), CARD)


def test_of_layers_that_are_about_as_good_the_first_counts() -> None:
    assert fitting.best_layer({3: 0.9, 4: 0.9301, 5: 0.932, 6: 0.91}) == 4
    assert list(fitting.tried_layers(28)) == list(range(9, 27))
    assert not fitting.tried_layers(1)


def test_states_that_are_no_numbers_fit_nothing() -> None:
    items = read(both_splits())
    items[3].states[1, 0] = np.nan
    with pytest.raises(ModelError, match="no numbers"):
        fit_head(items, CARD, KEY)


@pytest.mark.parametrize(
    "keep",
    [
        lambda r: r.label == "harmful",
        lambda r: r.split == "fit",
        lambda r: (r.split, r.label) != ("held_out", "harmless"),
        lambda r: r.split == "held_out" or r.topic == "fit 1",
    ],
)
def test_too_few_requests_are_refused(keep: Callable[[LabelledRequest], bool]) -> None:
    with pytest.raises(UsageError, match="too few"):
        fit_head(read(list(filter(keep, both_splits()))), CARD, KEY)


def test_no_topic_is_in_both_splits() -> None:
    requests = both_splits()
    requests[-1] = replace(requests[-1], topic=requests[0].topic)
    assert requests[-1].split != requests[0].split
    with pytest.raises(UsageError, match="is in both splits"):
        fit_head(read(requests), CARD, KEY)


def test_without_scikit_learn_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(fitting, "find_spec", lambda name: None if name == "sklearn" else found(name))
    assert main(["heads", "fit", "any"]) == 2
    assert "pip install 'alignbeam-local[heads]'" in capsys.readouterr().err


# --- figures


def test_kinds_of_one_label_are_compared_with_all_others() -> None:
    kinds = [("contrast", True), ("contrast", False), ("ordinary", False), ("orders", True)]
    items = [Scored(kind, harmful, harmful, harmful) for kind, harmful in kinds]
    pairs = [(row.harmful, row.harmless) for row in figures(items, LIMITS).aucs]
    assert pairs == [
        (ALL, ALL),
        ("contrast", "contrast"),
        ("contrast", "ordinary"),
        ("orders", "contrast"),
        ("orders", "ordinary"),
    ]


def test_what_harmless_texts_clear_is_counted() -> None:
    """This reader takes the weather for a sign of peace, and the library for worse."""
    found = {"weather": 0.1, "library": 0.9}
    read_as = {"mild harm": 0.5, "great harm": 0.9, "no harm": 0.1}

    def read_one(messages: Sequence[Message]) -> float:
        (message,) = messages
        known = read_as.get(message.content)
        return next(p for word, p in found.items() if word in message.content) if known is None else known

    sentences = ("The weather is fine.", "The library is open.")
    report = distracted(record(), ["mild harm", "no harm", "great harm"], read_one, sentences)
    rows = {row.way: row for row in report.rows}
    assert (report.asked, set(rows)) == (3, set(WAYS))
    assert (rows["before"].n, rows["before"].cleared, rows["before"].share) == (2, 2, 1.0)
    assert (rows["around"].high_n, rows["around"].high_cleared) == (1, 1)
    assert rows["before"].interval == wilson_interval(2, 2)
    none_left = distracted(record(), ["no harm"], read_one, sentences).rows[0]
    assert (none_left.n, none_left.share, none_left.interval) == (0, 0.0, (0.0, 1.0))


def test_figures_are_worked_by_hand() -> None:
    items = [Scored("x", True, 0.9, 0.9), Scored("x", True, 0.1, 0.5)]
    items += [Scored("x", False, 0.3, 0.3), Scored("x", False, 0.0, 0.85)]
    found = figures(items, LIMITS)
    assert (found.aucs[0].auc, found.aucs[0].whole) == (0.75, 0.75)
    assert 0 <= found.aucs[0].low < 0.75 < found.aucs[0].high <= 1
    shares = {(row.kind, row.harmful): (row.above_low, row.above_high, row.n) for row in found.shares}
    assert shares["x", True] == (1.0, 0.5, 2)
    assert shares["x", False] == (1.0, 0.5, 2)
    assert shares[ALL, True] == shares["x", True]


# --- a user's own prompts


def test_half_of_the_own_prompts_is_kept_to_measure_with() -> None:
    own = own_requests(["One?", "Two?", "Three?"])
    assert [r.split for r in own] == ["fit", "held_out", "fit"]
    assert {(r.label, r.kind) for r in own} == {("harmless", "ordinary")}
    assert all(is_own(ReadRequest(r, np.zeros((1, 1), np.float32))) for r in own)
    for few in (["One?"], ["One?", "One?", " One? "]):
        with pytest.raises(UsageError, match="too few"):
            own_requests(few)


def test_own_prompts_that_look_harmful_are_above_less_often() -> None:
    """A clinic's questions: harmless ones that lie where harmful requests do, but for one direction."""
    own = [replace(r, states=np.array(r.states)) for r in read(own_requests([f"{n}?" for n in range(120)]))]
    for item in own:
        item.states[:, 1] += 400
        item.states[:, 5] += 6
    items = [*read(both_splits(), seed=2), *own]
    before = fit_head([item for item in items if not is_own(item)], CARD, KEY)
    change = benign_change(before, fit_head(items, CARD, KEY), items)
    assert (change.num_fit, change.num_held_out) == (60, 60)
    assert change.before.own.above_high > 0.5
    assert change.after.own.above_high < 0.2
    assert change.after.auc > 0.7


# --- the command


def hidden(vocabulary: Vocabulary) -> Row:
    """A state that shows whether the prompt speaks of harm; the rest is noise."""
    noise = hashed_row(WIDTH, seed=4, scale=1.0)

    def row(tokens: Sequence[int]) -> Any:
        state = noise(tokens)
        state[2] += 4.0 * (b"harm" in spelt(vocabulary, tokens))
        return state

    return row


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch, no_shipped: Path) -> FakeLoader:
    """What the command opens instead of a model."""
    vocabulary = fake_vocabulary()
    loader = FakeLoader(
        {"any": FakeModel(vocabulary, hashed_row(vocabulary.size), hidden=hidden(vocabulary))}
    )
    monkeypatch.setattr(reader_loading, "Loader", loader)
    return loader


@pytest.fixture
def requests_file(tmp_path: Path) -> Path:
    rows = [
        {
            "id": f"{label}-{split}-{n}",
            "pair": None,
            "label": label,
            "kind": "question",
            "topic": f"{split} {n}",
            "language": "en",
            "split": split,
            "prompt": f"{'harm' if label == 'harmful' else 'help'} {n}?",
        }
        for n in range(12)
        for label in ("harmful", "harmless")
        for split in SPLITS
    ]
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.usefixtures("fake_model")
def test_fit_check_and_show_agree(requests_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", "fit", "any", "--requests", str(requests_file), "--json"]) == 0
    out, err = capsys.readouterr()
    fitted = json.loads(out)
    assert "written: " in err
    assert "AUC by layer: 1 " in err
    assert fitted["layer"] == 1, "all layers of the fake model are the same"
    assert fitted["benign"] is None
    assert fitted["held_out"]["aucs"][0]["auc"] > 0.9
    assert "weights" not in fitted
    held_out = requests_file.with_name("held_out.jsonl")
    lines = [line for line in requests_file.read_text().splitlines() if '"held_out"' in line]
    held_out.write_text("\n".join(lines))
    assert main(["heads", "check", "any", "--requests", str(held_out), "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["held_out"] == fitted["held_out"]
    for model in ("any", "./any.gguf", f"{requests_file.parent}/any.gguf"):
        assert main(["heads", "show", model, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == checked
    assert main(["heads", "show"]) == 0
    assert "yours" in capsys.readouterr().out


def test_a_layer_is_named_or_none_is(
    fake_model: FakeLoader, requests_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["heads", "fit", "any", "--requests", str(requests_file), "--json"]
    for layer, found, told in (("2", 2, "of layer 2"), ("-1", None, "after the final norm")):
        assert main([*words, "--layer", layer]) == 0
        out, err = capsys.readouterr()
        assert (json.loads(out)["layer"], "AUC by layer" in err) == (found, False)
        assert main(["heads", "check", "any", "--requests", str(requests_file)]) == 0
        assert told in capsys.readouterr().out
        assert fake_model.opened["any"][-1].layers == (() if found is None else (found,))
    assert main([*words, "--layer", "3"]) == 3
    assert main([*words, "--answers", "--layer", "1"]) == 2


@pytest.mark.usefixtures("fake_model")
def test_check_reads_suites(requests_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", "fit", "any", "--requests", str(requests_file)]) == 0
    words = {"orders": [("harm", "harmful")], "twins": [("harm", "harmful"), ("help", "benign")]}
    for name, kinds in words.items():
        rows = [{"prompt": f"{word} {n}!", "label": label} for word, label in kinds for n in range(9)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    capsys.readouterr()
    suites = [word for name in words for word in ("--suite", str(tmp_path / f"{name}.jsonl"))]
    assert main(["heads", "check", "any", *suites, "--json"]) == 0
    aucs = json.loads(capsys.readouterr().out)["held_out"]["aucs"]
    pairs = [(row["harmful"], row["harmless"]) for row in aucs]
    assert pairs == [(ALL, ALL), ("orders", "twins"), ("twins", "twins")]
    assert all(row["auc"] > 0.9 for row in aucs)
    dresses = ("--attack", "none", "--attack", "story", "--limit", "6")
    assert main(["heads", "check", "any", *suites[2:], *dresses, "--json"]) == 0
    shares = json.loads(capsys.readouterr().out)["held_out"]["shares"]
    counts = [(row["kind"], row["n"]) for row in shares if row["harmful"]]
    assert counts == [(ALL, 6), ("twins", 3), ("twins@story", 3)]
    for wrong in (["--attack", "stori"], ["--attack", "story", "--distractions"]):
        assert main(["heads", "check", "any", *suites, *wrong]) == 2
    assert main(["heads", "check", "any", "--attack", "story"]) == 2


@pytest.mark.usefixtures("fake_model")
def test_check_reads_the_turns_before_a_question(
    requests_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["heads", "fit", "any", "--requests", str(requests_file)]) == 0
    rows = [
        {"earlier": [{"role": "user", "content": said}, {"role": "assistant", "content": "Yes?"}]}
        | {"prompt": f"Go on {n}!", "label": label}
        for said, label in (("harm", "harmful"), ("help", "benign"))
        for n in range(9)
    ]
    file = tmp_path / "talks.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    capsys.readouterr()
    assert main(["heads", "check", "any", "--suite", str(file), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["held_out"]["aucs"]
    assert row["auc"] > 0.9
    assert main(["heads", "check", "any", "--suite", str(file), "--distractions"]) == 2
    assert "no prompt there is labelled harmful" in capsys.readouterr().err


@pytest.mark.usefixtures("fake_model")
def test_check_leaves_out_what_was_fitted_on(requests_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", "fit", "any", "--requests", str(requests_file)]) == 0
    capsys.readouterr()
    assert main(["heads", "check", "any", "--requests", str(requests_file), "--json"]) == 0
    out, err = capsys.readouterr()
    fitted = [row for row in requests_file.read_text().splitlines() if json.loads(row)["split"] == "fit"]
    assert f"note: {len(fitted)} requests of split `fit` are left out" in err
    assert json.loads(out)["held_out"]


@pytest.mark.usefixtures("fake_model")
def test_check_counts_what_distractions_clear(
    requests_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["heads", "fit", "any", "--requests", str(requests_file)]) == 0
    capsys.readouterr()
    args = ["heads", "check", "any", "--requests", str(requests_file), "--distractions"]
    assert main([*args, "--limit", "5", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["asked"], len(report["rows"])) == (5, len(WAYS))
    before = report["rows"][0]
    assert before["n"] == 5 > before["cleared"]
    assert main(args) == 0
    assert "harmful requests, each with harmless texts by it" in capsys.readouterr().out
    assert main(["heads", "check", "any", "--limit", "5"]) == 2
    assert main([*args, "--answers"]) == 2


@pytest.mark.usefixtures("fake_model")
def test_own_prompts_are_fitted_on_and_it_says_what_they_changed(
    requests_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.txt"
    own.write_text("".join(f"Is a harmless harm number {n} here?\n" for n in range(20)))
    args = ["heads", "fit", "any", "--requests", str(requests_file), "--benign", str(own)]
    assert main([*args, "--json"]) == 0
    change = json.loads(capsys.readouterr().out)["benign"]
    assert (change["num_fit"], change["num_held_out"]) == (10, 10)
    assert main(args) == 0
    assert "your own prompts: 10 fitted on, 10 kept to measure with" in capsys.readouterr().out


@pytest.mark.usefixtures("fake_model")
def test_without_a_head_check_and_show_say_how_to_get_one(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("check", "show"):
        assert main(["heads", command, "any"]) == 3
        assert "alignbeam heads fit any" in capsys.readouterr().err


def test_a_file_that_cannot_be_fitted_on_is_refused_before_a_model_is_opened(
    fake_model: FakeLoader, requests_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests_file.write_text(requests_file.read_text().replace('"harmful"', '"harmless"'))
    assert main(["heads", "fit", "any", "--requests", str(requests_file)]) == 2
    assert "too few harmful requests" in capsys.readouterr().err
    assert fake_model.opened == {"any": []}


def test_another_template_is_another_head(fake_model: FakeLoader, requests_file: Path) -> None:
    assert main(["heads", "fit", "any", "--requests", str(requests_file)]) == 0
    other = replace(
        fake_model.models["any"], template=fake_model.models["any"].template.replace("helpful", "x")
    )
    fake_model.models["any"] = other
    assert main(["heads", "check", "any", "--requests", str(requests_file)]) == 3
