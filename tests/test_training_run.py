"""Whole trainings of tiny random models: losses fall, a killed run goes on, the export is the same model."""

import copy
import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from alignbeam_local.config import Config
from alignbeam_local.errors import AlignBeamError, ModelError, UsageError
from alignbeam_local.evaluation.suites.suites import Item
from alignbeam_local.events import Notice
from alignbeam_local.llama.weights import LlamaWeights
from alignbeam_local.models.registry import Registry
from alignbeam_local.tokens.token_file import FoundToken, Source, TokenFile, write_tokens
from alignbeam_local.training.adapter import adapter_gguf, lora
from alignbeam_local.training.adapter.adapter_gguf import BaseModel, write_adapter
from alignbeam_local.training.adapter.peft_folder import PeftAdapter, read_peft
from alignbeam_local.training.dequantised import load_model
from alignbeam_local.training.looks.asking import Asking
from alignbeam_local.training.looks.loss_row import LossRow, Shares
from alignbeam_local.training.looks.plot import any_of
from alignbeam_local.training.looks.verdict import faults
from alignbeam_local.training.loop import StepDone
from alignbeam_local.training.need import TrainingNeed
from alignbeam_local.training.request import TrainingRequest
from alignbeam_local.training.run import Event, Finished, Prepared, train
from alignbeam_local.training.settings import TARGETS, Method, TrainingSettings
from alignbeam_local.training.trunk import Trunk
from tests.llama_adapters import rows_of
from tests.llama_models import Opened, contexts_closed, opened
from tests.tiny_models import ARCHITECTURES, LAYERS, tiny_model, write_model

__all__ = ["contexts_closed", "opened"]

IDS = (1, 70, 80, 90, 100, 261, 262, 110, 120, 75)
ROUNDING = 0.002
ROWS = [("one", "ab ab"), ("two", "ba"), ("three and more", "ab"), ("four", "b a b"), ("five", "abab")]
SETTINGS = TrainingSettings("sft", layers=1, epochs=4, batch=2, context=256, learning_rate=0.01, save_every=3)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def rows_file(path: Path, rows: list[tuple[str, str]] = ROWS) -> Path:
    lines = [
        json.dumps({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]})
        for q, a in rows
    ]
    path.write_text("\n".join(lines))
    return path


@cache
def fingerprint() -> str:
    """Of the vocabulary that all tiny models have."""
    with TemporaryDirectory() as folder:
        write_model(path := Path(folder) / "tiny.gguf", tiny_model("llama"), "llama")
        weights = LlamaWeights(path, use_extra_bufts=False)
        try:
            return weights.vocabulary.fingerprint
        finally:
            weights.close()


def tokens_file(path: Path) -> Path:
    tokens = tuple(FoundToken(id=3 + ord(c), text=c, d=d) for c, d in (("a", 0.3), ("S", 0.2), ("I", 0.1)))
    source = Source(name="tiny", weights_sha256="0" * 64)
    found = TokenFile(kind="difference", vocabulary=fingerprint(), safe=source, base=source, tokens=tokens)
    write_tokens(path, found)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "tiny.gguf"
    return write_model(path, tiny_model("llama"), "llama")


def request_of(tmp_path: Path, settings: TrainingSettings = SETTINGS, **changes: Any) -> TrainingRequest:
    data = rows_file(tmp_path / "rows.jsonl")
    asked = TrainingRequest(data, tmp_path / "run", settings, threads=1)
    if settings.method == "pact":
        asked = replace(asked, tokens=tokens_file(tmp_path / "tokens.json"))
    return replace(asked, **changes)


def events_of(request: TrainingRequest, base: Path) -> list[Event]:
    return list(train(request, Config(draft=str(base), threads=1), Registry.load()))


def steps_of(events: list[Event]) -> list[StepDone]:
    return [event for event in events if isinstance(event, StepDone)]


def outcome(folder: Path) -> dict[str, bytes]:
    """What two equal trainings have in common to the bit; the seconds of losses.csv are left out."""
    names = ["adapter.gguf", "adapter/adapter_model.safetensors", "manifest.json"]
    with (folder / "losses.csv").open() as file:
        losses = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    return {name: (folder / name).read_bytes() for name in names} | {"losses": repr(losses).encode()}


# --- the steps


@pytest.mark.parametrize("method", get_args(Method))
def test_every_method_learns_the_task(method: Any, tmp_path: Path, base: Path) -> None:
    settings = replace(SETTINGS, method=method, epochs=12, targets=TARGETS)
    held_out = rows_file(tmp_path / "held_out.jsonl", ROWS[:2])
    request = request_of(tmp_path, settings, held_out=held_out)
    *_, last = events = events_of(request, base)
    assert isinstance(last, Finished)
    rows = [event.row for event in steps_of(events)]
    assert len(rows) == 12 * 3
    first, end = (sum(row.task for row in part) / 3 for part in (rows[:3], rows[-3:]))
    assert end < 0.7 * first
    seen = [row.held_out for row in rows if row.held_out is not None]
    assert len(seen) == 12
    assert seen[-1] < seen[0]
    assert {row.own == 0 for row in rows[1:]} == {method == "sft"}


def test_references_begin_where_the_model_is(tmp_path: Path, base: Path) -> None:
    """Without an update yet STR is at its reference, to rounding: kept states are the model's own."""
    [first, *_] = steps_of(events_of(request_of(tmp_path, replace(SETTINGS, method="str")), base))
    assert first.row.own < 1e-8


def test_the_model_above_the_cut_is_the_whole_model(base: Path) -> None:
    model = load_model(base)
    ids = list(IDS)
    with torch.no_grad():
        whole = model(torch.tensor([ids])).logits[0]
        for num_trained in (0, 1, LAYERS):
            trunk = Trunk(copy.deepcopy(model), num_trained)
            below = trunk.below(ids)
            trunk.forget_below()
            padded = torch.cat([below, torch.zeros(3, below.shape[1])])
            mask = torch.tensor([[1] * len(ids) + [0] * 3])
            above = trunk.above(padded[None], mask)[0, : len(ids)]
            assert (trunk.logits(above) - whole).abs().max() < 1e-4
            some = torch.tensor([5, 70])
            assert (trunk.some_logits(above, some) - whole[:, some]).abs().max() < 1e-4
            assert (
                trunk.own_logits(above, torch.tensor(ids)) - whole[range(len(ids)), ids]
            ).abs().max() < 1e-4


def test_the_held_out_loss_of_the_base_is_known(tmp_path: Path, base: Path) -> None:
    held_out = rows_file(tmp_path / "held_out.jsonl", ROWS[:2])
    *_, last = events_of(request_of(tmp_path, held_out=held_out), base)
    assert isinstance(last, Finished)
    assert last.result["held_out_loss"] < last.result["held_out_loss_before"]
    assert last.result["faults"] == []


@pytest.mark.parametrize(("after", "told"), [(2.0, False), (2.05, False), (2.2, True)])
def test_an_adapter_that_made_the_model_worse_is_said_to(after: float, told: bool) -> None:
    assert bool(faults([LossRow(1, 1.0, 1.0, 0.0, after, 0.1)], 2.0)) is told


@pytest.mark.parametrize(("first", "last", "told"), [(3.0, 3.5, False), (3.0, 4.5, True)])
def test_a_task_loss_that_rose_is_told(first: float, last: float, told: bool) -> None:
    rows = [LossRow(n, loss, loss, 0.0, None, 0.1) for n, loss in enumerate([first] + [last] * 20, 1)]
    assert bool(faults(rows, None)) is told


def test_an_adapter_that_llama_cpp_cannot_use_is_no_adapter(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def huge(path: Path, adapter: PeftAdapter, *others: Any) -> None:
        pairs = {name: (a * 1e20, b + 1e20) for name, (a, b) in adapter.pairs.items()}
        write_adapter(path, replace(adapter, pairs=pairs), *others)

    monkeypatch.setattr("alignbeam_local.training.run.write_adapter", huge)
    with pytest.raises(ModelError, match=r"the new adapter cannot be used: .* not numbers") as caught:
        events_of(request_of(tmp_path), base)
    assert "--learning-rate" in caught.value.hint
    assert not (tmp_path / "run" / "result.json").exists()


def test_an_adapter_that_is_no_number_ends_the_training_and_leaves_the_checkpoint(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step before the second checkpoint breaks it; its own loss was a number."""
    running = train(request_of(tmp_path), Config(draft=str(base), threads=1), Registry.load())
    for event in running:
        if isinstance(event, StepDone) and event.row.step == 5:
            break
    checkpoint = (tmp_path / "run" / "checkpoint.pt").read_bytes()

    def break_it(parameters: list[Any], _: float) -> None:
        for parameter in parameters:
            parameter.grad.fill_(float("nan"))

    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", break_it)
    with pytest.raises(AlignBeamError, match="at step 6 its loss or its adapter is not a number") as caught:
        list(running)
    assert "--learning-rate below 0.01" in caught.value.hint
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == checkpoint


# --- prompts that are asked on the way

ITEMS = (
    Item("a", "1", "one", "harmful"),
    Item("a", "2", "two", "harmful"),
    Item("a", "3", "one", "benign"),
    Item("b", "4", "one", "utility", reference="7"),
)


def test_prompts_are_asked_at_every_checkpoint(tmp_path: Path, base: Path) -> None:
    """The adapter learns to decline one of two harmful prompts, and the same words where they are benign."""
    rows = rows_file(tmp_path / "declines.jsonl", [("one", "I cannot"), ("two", "7")])
    settings = replace(SETTINGS, epochs=90, layers=0, targets=TARGETS, save_every=45)
    *_, last = events = events_of(request_of(tmp_path, settings, data=rows, asked=ITEMS), base)
    assert isinstance(last, Finished)
    before = [event for event in events if isinstance(event, Shares)]
    assert before == [Shares(0.0, 0.0, 0.0)], "the base refuses nothing"
    seen = {event.row.step: event.row.shares for event in steps_of(events) if any_of(event.row.shares)}
    assert list(seen) == [45, 90]
    assert seen[90] == Shares(0.5, 1.0, 0.0)
    assert last.result["asked"]["last"] == seen[90]._asdict()
    assert last.result["asked"]["base"] == before[0]._asdict()
    with (tmp_path / "run" / "losses.csv").open() as file:
        assert list(csv.DictReader(file))[-1]["harmful_refused"] == "0.5"
    assert not list((tmp_path / "run").glob(".asked*"))


def test_what_changes_answers_does_not_reach_a_training(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a system prompt nor tokens nor another adapter; how the machine is used does."""
    seen: list[Config] = []

    def asked(items: object, config: Config, registry: Registry) -> Any:
        seen.append(config)
        return asking(ITEMS[:1], config, registry)

    asking = Asking
    monkeypatch.setattr("alignbeam_local.training.run.Asking", asked)
    knobs = {"system": "Refuse.", "lora": ("other.gguf",), "safety_tokens": "boost", "top_p": 0.5}
    config = Config(draft=str(base), threads=1).with_values({**knobs, "safety_file": "tokens.json"})
    list(train(request_of(tmp_path), config, Registry.load()))
    assert seen == [Config(draft=str(base), threads=1)]


def test_asking_changes_nothing_of_the_adapter(tmp_path: Path, base: Path) -> None:
    events_of(request_of(tmp_path, out=tmp_path / "unasked"), base)
    events_of(request_of(tmp_path, asked=ITEMS), base)
    own, other = ((tmp_path / run / "adapter.gguf").read_bytes() for run in ("run", "unasked"))
    assert own == other


@pytest.mark.parametrize("asked", [(), ITEMS[:1]])
def test_the_adapter_of_every_checkpoint_is_kept(tmp_path: Path, base: Path, asked: tuple[Item, ...]) -> None:
    """A shorter training's adapter is the checkpoint's of a longer one."""
    settings = replace(SETTINGS, epochs=2)
    request = request_of(tmp_path, settings, asked=asked, keep_adapters=True)
    events_of(request, base)
    events_of(replace(request, settings=replace(settings, epochs=1), out=tmp_path / "short"), base)
    names = ("run/step-3.gguf", "short/adapter.gguf", "run/step-6.gguf", "run/adapter.gguf")
    kept, short, last, own = ((tmp_path / name).read_bytes() for name in names)
    assert kept == short
    assert own == last != kept


# --- what is on disk


def test_what_a_run_leaves(tmp_path: Path, base: Path) -> None:
    *_, last = events = events_of(request_of(tmp_path), base)
    assert isinstance(last, Finished)
    run = tmp_path / "run"
    names = sorted(str(file.relative_to(run)) for file in run.rglob("*") if file.is_file())
    if find_spec("matplotlib"):
        assert (run / "losses.png").read_bytes().startswith(b"\x89PNG")
        names.remove("losses.png")
    assert names == [
        ".lock",
        "adapter.gguf",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/alignbeam.json",
        "losses.csv",
        "manifest.json",
        "result.json",
    ]
    os.umask(umask := os.umask(0))
    modes = {str(path): path.stat().st_mode & 0o777 for path in map(run.joinpath, names[1:])}
    assert set(modes.values()) == {0o666 & ~umask}, modes
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["settings"]["seed"] == 0
    assert len(manifest["base"]["sha256"]) == len(manifest["data"]["sha256"]) == 64
    lines = (run / "losses.csv").read_text().splitlines()
    assert lines[0] == "step,total,task,own,held_out,seconds,harmful_refused,benign_refused,correct"
    assert len(lines) == 1 + 12
    assert last.result["steps"] == 12
    assert last.result["agreement"]["kl"] < 1e-4
    assert [event for event in events if isinstance(event, Prepared)][-1] == Prepared(5, 5)


def test_the_same_command_again_finds_it_done(tmp_path: Path, base: Path) -> None:
    events_of(request_of(tmp_path), base)
    before = outcome(tmp_path / "run")
    *_, last = events = events_of(request_of(tmp_path), base)
    assert isinstance(last, Finished)
    assert last.was_done
    assert not steps_of(events)
    assert outcome(tmp_path / "run") == before


def test_another_training_in_the_same_place_is_refused(tmp_path: Path, base: Path) -> None:
    events_of(request_of(tmp_path), base)
    with pytest.raises(UsageError, match=r"holds another training: settings\.seed was 0, now 1$"):
        events_of(request_of(tmp_path, replace(SETTINGS, seed=1)), base)
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(UsageError, match="is not empty and holds no training"):
        events_of(request_of(tmp_path), base)


@pytest.mark.parametrize("last_step", [1, 3, 7])
def test_a_run_that_stops_goes_on_to_the_same_result(last_step: int, tmp_path: Path, base: Path) -> None:
    settings = replace(SETTINGS, method="pact")
    events_of(request_of(tmp_path, settings, out=tmp_path / "whole"), base)
    request = request_of(tmp_path, settings)
    for event in train(request, Config(draft=str(base), threads=1), Registry.load()):
        if isinstance(event, StepDone) and event.row.step == last_step:
            break
    events = events_of(request, base)
    told = [event.message for event in events if isinstance(event, Notice)]
    saved = last_step // 3 * 3
    assert told == ([f"going on from the checkpoint of step {saved} of 12"] if saved else [])
    rest = steps_of(events)
    assert rest[0].row.step == last_step // 3 * 3 + 1, "it goes on from the last checkpoint"
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path, base: Path) -> None:
    """kill -9 at no chosen moment: while a checkpoint is written as well."""
    events_of(request_of(tmp_path, out=tmp_path / "whole"), base)
    script = (
        "import sys, time, torch; from pathlib import Path; import tests.test_training_run as t\n"
        "torch.set_num_threads(1); tmp, base = map(Path, sys.argv[1:])\n"
        "for event in t.train(t.request_of(tmp), t.Config(draft=str(base), threads=1), t.Registry.load()):\n"
        "    isinstance(event, t.StepDone) and (print(event.row.step, flush=True), time.sleep(0.2))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), str(base)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert child.stdout
    while int(child.stdout.readline() or 99) < 5:
        pass
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    events_of(request_of(tmp_path), base)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_damaged_checkpoint_is_named(tmp_path: Path, base: Path) -> None:
    request = request_of(tmp_path)
    for event in train(request, Config(draft=str(base), threads=1), Registry.load()):
        if isinstance(event, StepDone) and event.row.step == 4:
            break
    file = tmp_path / "run" / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(AlignBeamError, match=r"checkpoint\.pt is damaged"):
        events_of(request, base)


def test_states_are_kept_and_a_damaged_file_is_made_again(tmp_path: Path, base: Path) -> None:
    events_of(request_of(tmp_path, out=tmp_path / "first"), base)
    [file] = (tmp_path / "alignbeam" / "cache" / "training").rglob("*.safetensors")
    before, changed = file.read_bytes(), file.stat().st_mtime_ns
    events_of(request_of(tmp_path, out=tmp_path / "second"), base)
    assert file.stat().st_mtime_ns == changed
    file.write_bytes(before[:-7])
    events_of(request_of(tmp_path, out=tmp_path / "third"), base)
    assert file.read_bytes() == before
    assert outcome(tmp_path / "first") == outcome(tmp_path / "third")


def test_a_full_disk_is_said_and_nothing_is_half_written(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(tmp_path)
    running = train(request, Config(draft=str(base), threads=1), Registry.load())
    for event in running:
        if isinstance(event, StepDone) and event.row.step == 4:
            break
    checkpoint = (tmp_path / "run" / "checkpoint.pt").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alignbeam_local.paths.os.fsync", full)
    with pytest.raises(AlignBeamError, match="no room on the disk") as caught:
        list(running)
    assert "goes on from the last checkpoint" in caught.value.hint
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == checkpoint
    assert not list((tmp_path / "run").glob(".checkpoint*"))


def test_what_it_takes_is_said_before_anything_is_loaded(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: object) -> None:
        raise AssertionError("the model was loaded")

    request = request_of(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("alignbeam_local.training.run.load_model", never)
        patched.setattr("alignbeam_local.training.need.psutil.virtual_memory", lambda: NoMemory)
        running = train(request, Config(draft=str(base), threads=1), Registry.load())
        assert any(isinstance(event, TrainingNeed) for event in running)
        with pytest.raises(ModelError, match="not enough memory"):
            next(running)
    changed = replace(
        SETTINGS, batch=1, epochs=1
    )  # as the hint says: nothing was begun that this would not be
    assert steps_of(events_of(request_of(tmp_path, changed), base))


class NoMemory:
    available = 1 << 28


def test_what_the_adapter_itself_takes_is_counted(tmp_path: Path, base: Path) -> None:
    """Parameters, gradients and moments, four bytes each: of q and v of one layer, 32 x 32 and 16 x 32."""
    small, large = (
        next(event for event in events_of(request, base) if isinstance(event, TrainingNeed))
        for rank in (1, 16)
        for request in [request_of(tmp_path, replace(SETTINGS, rank=rank), out=tmp_path / str(rank))]
    )
    assert large.training - small.training >= 4 * 4 * 15 * (32 + 32 + 16 + 32)


@pytest.mark.parametrize(
    ("changed", "complaint", "hint"),
    [
        ({"rank": 17}, "--rank 17 is more than v has, which is 16 x 32", "At most 16"),
        ({"layers": 999}, "--layers 999: the model has 2 layers", "At most 2"),
    ],
)
def test_an_adapter_larger_than_its_base_is_refused(
    tmp_path: Path, base: Path, changed: dict[str, Any], complaint: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        events_of(request_of(tmp_path, replace(SETTINGS, **changed)), base)
    assert hint in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_the_files_are_refused(tmp_path: Path, base: Path) -> None:
    tiny_model("llama", seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match=r"is not what llama\.cpp runs"):
        events_of(request_of(tmp_path, weights=tmp_path / "other"), base)


def test_rows_that_are_held_out_and_learnt_are_told(tmp_path: Path, base: Path) -> None:
    held_out = rows_file(tmp_path / "held_out.jsonl", [*ROWS[:2], ("six", "a")])
    settings = replace(SETTINGS, epochs=1)
    events = events_of(request_of(tmp_path, settings, held_out=held_out), base)
    told = [event for event in events if isinstance(event, Notice)]
    assert [notice.message for notice in told] == [
        "held-out rows that are in --data too: 2; their loss says less"
    ]


def test_weights_that_are_no_folder_are_refused(tmp_path: Path, base: Path) -> None:
    """A file, nothing, and a folder without a model: they were hashed as nothing, all alike."""
    (tmp_path / "empty").mkdir()
    for weights, complaint in (
        (base, "is a file, not a folder"),
        (tmp_path / "none", "is not there"),
        (tmp_path / "empty", "holds no config"),
    ):
        with pytest.raises(UsageError, match=complaint) as caught:
            events_of(request_of(tmp_path, weights=weights), base)
        assert "safetensors" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_folder_of_weights_gives_the_same_adapter(tmp_path: Path, base: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "folder")
    events_of(request_of(tmp_path, out=tmp_path / "gguf"), base)
    events_of(request_of(tmp_path, weights=tmp_path / "folder"), base)
    own, other = (read_peft(tmp_path / run / "adapter").pairs for run in ("run", "gguf"))
    for name, halves in own.items():
        np.testing.assert_allclose(halves[1], other[name][1], atol=1e-4)


def test_pact_without_tokens_and_a_context_beyond_the_models_are_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UsageError, match="needs safety tokens"):
        events_of(request_of(tmp_path, replace(SETTINGS, method="pact"), tokens=None), base)
    with pytest.raises(UsageError, match="was made for 512 tokens"):
        events_of(request_of(tmp_path, replace(SETTINGS, context=513)), base)


# --- the export


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_trained_adapter_in_llama_cpp_is_the_merged_model(
    architecture: str, tmp_path: Path, opened: Opened
) -> None:
    model = tiny_model(architecture)
    path = write_model(tmp_path / "tiny.gguf", model, architecture)
    model.save_pretrained(tmp_path / "folder")
    settings = replace(SETTINGS, layers=0, targets=TARGETS, epochs=8)
    events_of(request_of(tmp_path, settings, weights=tmp_path / "folder"), path)
    whole = merged_logits(model, read_peft(tmp_path / "run" / "adapter"))
    found = rows_of(opened, path, IDS, tmp_path / "run" / "adapter.gguf")
    plain = rows_of(opened, path, IDS)
    assert np.abs(whole - plain).max() > 100 * ROUNDING, "the adapter changes something"
    assert np.abs(whole - found).max() < ROUNDING
    assert (whole.argmax(-1) == found.argmax(-1)).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_q_and_k_with_a_large_b(
    architecture: str, tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of B in the wrong place show: the other way round it is another model."""
    model = tiny_model(architecture)
    path = write_model(tmp_path / "tiny.gguf", model, architecture)
    adapter = random_adapter(model)
    whole = merged_logits(model, adapter)
    base = BaseModel(path, "0" * 64)
    write_adapter(tmp_path / "right.gguf", adapter, base, "random")
    monkeypatch.setattr(adapter_gguf, "_placed", as_it_is if architecture == "llama" else llamas_way)
    write_adapter(tmp_path / "wrong.gguf", adapter, base, "random")
    right, wrong = (rows_of(opened, path, IDS, tmp_path / f"{name}.gguf") for name in ("right", "wrong"))
    assert np.abs(whole - right).max() < ROUNDING
    assert np.abs(whole - wrong).max() > 100 * ROUNDING


def as_it_is(b: Any, *_: Any) -> Any:
    return b


def llamas_way(b: Any, place: str, base: BaseModel) -> Any:
    if place not in ("attn_q", "attn_k"):
        return b
    heads = base.heads(place)
    return b.reshape(heads, 2, b.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(b.shape)


def random_adapter(model: Any) -> PeftAdapter:
    random = np.random.default_rng(5)
    pairs = {}
    for number, layer in enumerate(model.get_decoder().layers):
        for target in ("q", "k"):
            outputs, inputs = layer.get_submodule(lora.PLACES[target]).weight.shape
            a, b = random.normal(0, 0.3, (2, inputs)), random.normal(0, 1, (outputs, 2))
            pairs[f"layers.{number}.{lora.PLACES[target]}"] = (a.astype(np.float32), b.astype(np.float32))
    return PeftAdapter(2, 4.0, pairs)


def merged_logits(model: Any, adapter: PeftAdapter) -> Any:
    """The logits of transformers' own model with W + alpha / rank * B A in place of W."""
    merged = copy.deepcopy(model)
    for name, (a, b) in adapter.pairs.items():
        linear = merged.get_decoder().get_submodule(name)
        linear.weight.data += torch.from_numpy(adapter.alpha / adapter.rank * b @ a)
    with torch.no_grad():
        return merged(torch.tensor([IDS])).logits[0].numpy()
