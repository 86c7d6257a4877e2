"""What is planned: machines in words, rates, what an answer asks, where it fits, what it takes."""

import json
from pathlib import Path
from typing import Any

import pytest
from alignbeam_local.cli.main import main
from gguf.constants import GGMLQuantizationType

from alignbeam_local.bench.floor import weights_of
from alignbeam_local.config import Config
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.models.entry import Hub
from alignbeam_local.models.gguf_reader import Tensor, read_contents
from alignbeam_local.models.registry import Registry
from alignbeam_local.plan import rates
from alignbeam_local.plan.fit import fit
from alignbeam_local.plan.kernels import between, row_cost
from alignbeam_local.plan.machines import MachineSpec
from alignbeam_local.plan.models import plan_models
from alignbeam_local.plan.plan import Plan, make_plan
from alignbeam_local.plan.rates import MeasuredRates, Rates, measured_rates, rates_of
from alignbeam_local.plan.remote_header import remote_contents
from alignbeam_local.plan.work import Workload, batches_of, mixed_steps
from tests.llama_models import write_tiny
from tests.test_pull import HubServer, content, home, hub

__all__ = ["content", "home", "hub"]

GIB = 1 << 30
WORK = Workload(prompts=100, prompt_tokens=50, new_tokens=20)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {
        role: str(write_tiny(tmp_path / f"{role}.gguf", "llama", seed))
        for seed, role in enumerate(("draft", "anchor", "judge"))
    }


def planned(files: dict[str, str], machine: str = "ram=8G,cores=2", **options: Any) -> Plan:
    knobs = options.pop("knobs", {})
    config = Config.of({**files, **knobs})
    return make_plan(config, Registry({}, {}, ""), MachineSpec.parse(machine), WORK, **options)


# --- machines


def test_a_machine_in_words() -> None:
    machine = MachineSpec.parse(
        "gpu=24Gx2,ram=64G,cores=16,gpu-bandwidth=1008G,gpu-tflops=80,ram-bandwidth=80G,network=1.25G,"
        "latency-ms=0.2,price=1.5"
    )
    assert machine.gpus == (24 * GIB, 24 * GIB)
    assert (machine.ram, machine.cores, machine.price) == (64 * GIB, 16, 1.5)
    assert (machine.gpu_bandwidth, machine.gpu_flops, machine.network) == (1.008e12, 8e13, 1.25e9)
    assert machine.latency == pytest.approx(2e-4)
    assert MachineSpec.parse("ram=512M") == MachineSpec(ram=512 << 20)
    dear = MachineSpec.parse("ram=1G,price=2K,latency-ms=1K")
    assert (dear.price, dear.latency) == (2000, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not known"),
        ("gpus=24G,ram=1G", "'gpus' is not known"),
        ("gpu=24G", "ram is missing"),
        ("ram=1G,ram=2G", "ram is there twice"),
        ("ram=lots", "is no number with K, M, G or T behind it"),
        ("ram=0G", "is not above 0"),
        ("ram=-1G", "is no number"),
        ("ram=1e9", "is no number"),
        ("ram=1G,cores=0", "is no number from 1 to 4096"),
        ("ram=1G,cores=two", "is no number from 1 to 4096"),
        ("ram=1G,gpu=24Gx0", "such as 24Gx2"),
        ("ram=1G,gpu=24Gx99", "such as 24Gx2"),
        ("ram=1G,price=free", "is no number"),
    ],
)
def test_a_machine_that_can_not_be(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        MachineSpec.parse(text)
    assert error.value.hint


def test_a_machine_is_guessed_at() -> None:
    with pytest.raises(UsageError) as error:
        MachineSpec.parse("core=4,ram=1G")
    assert error.value.hint == "Did you mean cores?"


# --- rates


def test_a_batch_reads_once_and_multiplies_each_row() -> None:
    device = Rates(bytes_per_second=100, few=10, many=40)
    assert device.seconds(50, 20, rows=1) == 0.5 + 2
    assert device.seconds(50, 20, rows=500) == 0.5 + 0.5
    assert 10 < device.operations_per_second(12) < 40


def test_what_is_assumed_is_said() -> None:
    bare = rates_of(MachineSpec.parse("gpu=24G,ram=8G,cores=2"))
    assert len(bare.assumed) == 4
    told = rates_of(
        MachineSpec.parse("gpu=24G,ram=8G,cores=2,gpu-bandwidth=1T,gpu-tflops=50,ram-bandwidth=50G")
    )
    assert len(told.assumed) == 3
    assert told.assumed[1] == "of the memory's bandwidth 60% is reached"
    assert told.gpu.bytes_per_second == rates.GPU_EFFICIENCY * 1e12
    measured = MeasuredRates(Rates(1e10, 2e10, 4e10), 2, "bench.json")
    found = rates_of(MachineSpec.parse("ram=8G,cores=8"), measured)
    assert (found.cpu, found.assumed) == (Rates(1e10, 8e10, 16e10), ())


def bench_of(draft: str, **alone: Any) -> dict[str, Any]:
    """A report whose machine needs 10 ms to read, 5 ms a row, and 2 ms a row of many."""
    steps = {
        "new_tokens": 21,
        "decoded_tokens": 70,
        "first_token_ms": {"median": 110},
        "total_ms": {"median": 410},
    }
    return {
        "threads": 2,
        "config": {"beams": 3, "depth": 1},
        "models": {"draft": {"path": draft}},
        "alone": {**steps, **alone},
        "methods": [{"name": "K=3", "phases_ms": {"complete": 20 * 25}}],
    }


def test_rates_of_a_bench(files: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(bench_of(files["draft"])))
    found = measured_rates(path)
    tensors = read_contents(Path(files["draft"])).tensors
    weights = weights_of(tensors)
    assert found.rates.bytes_per_second == pytest.approx(weights.bytes / (0.010 - rates.LAYER_SECONDS))
    assert found.rates.few == pytest.approx(2 * sum(row_cost(tensors, 1)) / 0.005)
    assert found.rates.many == pytest.approx(2 * row_cost(tensors, 50).body / 0.002)
    assert found.threads == 2


@pytest.mark.parametrize("harm", ["{", "[]", "{}", "contradicts"])
def test_a_bench_that_is_none(files: dict[str, str], tmp_path: Path, harm: str) -> None:
    path = tmp_path / "bench.json"
    slow_reading = bench_of(files["draft"], total_ms={"median": 111})
    path.write_text(json.dumps(slow_reading) if harm == "contradicts" else harm)
    with pytest.raises(UsageError, match="not what bench --json prints"):
        measured_rates(path)
    with pytest.raises(UsageError, match="No such file"):
        measured_rates(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"config": {"beams": 1, "depth": 1}, "methods": [{"name": "K=1"}]}, "of one beam"),
        ({"config": {"beams": 3, "depth": 21}}, "of one beam, or of no token behind the mixed ones"),
        ({"methods": [{"name": "K=1"}]}, "not what bench --json prints"),
    ],
)
def test_a_bench_that_tells_no_rates(
    changed: dict[str, Any], message: str, files: dict[str, str], tmp_path: Path
) -> None:
    report = {**bench_of(files["draft"]), **changed}
    for method in report["methods"]:
        method.setdefault("phases_ms", {"complete": 500})
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(report))
    with pytest.raises(UsageError, match=message):
        measured_rates(path)


def test_types_that_are_not_laid_out_anew_cost_more() -> None:
    packed, other = (
        [Tensor("blk.0.a.weight", 100, int(kind), 0), Tensor("output.weight", 50, int(kind), 0)]
        for kind in (GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q5_0)
    )
    assert row_cost(packed, 1) == (100, 50)
    assert row_cost(other, 3) == (220, 110)
    assert row_cost(other, 500) == (150, 75)
    assert between(0, 1, 2) == 1


# --- work


def test_batches_of_an_answer() -> None:
    config = Config.of({"beams": 3, "depth": 6})
    found = {(b.role, b.phase): b for b in batches_of(config, WORK) if b.times}
    assert found["draft", "completing"].times == 14
    assert found["draft", "completing"].rows == 3
    assert found["draft", "mixing"].times == 5
    judged = [b for b in batches_of(config, WORK) if b.role == "judge"]
    assert [b.rows for b in judged] == [3 * (20 + 8), 50 + 17]
    early = [b for b in batches_of(config.with_values({"judge_at": 10}), WORK) if b.phase == "completing"]
    assert [(b.times, b.rows) for b in early] == [(4, 3), (10, 1)]


def test_every_anchor_reads_and_mixes() -> None:
    config = Config.of({"anchor": ["a", "b", "c"], "beams": 1})
    found = [(b.role, b.phase) for b in batches_of(config, WORK) if b.role.startswith("anchor")]
    assert found == [(role, phase) for phase in ("prompt", "mixing") for role in config.anchor_roles]


def test_an_answer_head_reads_what_the_draft_holds() -> None:
    found = batches_of(Config.of({"judge": "head", "judge_at": 10}), WORK)
    assert {b.role for b in found} == {"draft", "anchor"}
    assert [b.rows for b in found if b.phase == "judging"] == [3 * 2, 2]


def test_what_goes_beyond_n_is_mixed_to_its_end() -> None:
    config = Config.of({"beams": 1, "depth": 2, "prefix": "adaptive", "max_depth": 8})
    assert {(b.role, b.times) for b in batches_of(config, WORK) if b.phase == "mixing"} == {
        ("draft", 7),
        ("anchor", 7),
    }
    assert mixed_steps(config, WORK) == 8


def test_an_answer_that_is_read_while_it_grows_is_judged_at_each_window() -> None:
    config = Config.of({"beams": 1, "depth": 2, "late": "judge", "late_every": 5})
    judged = [b for b in batches_of(config, WORK) if b.role == "judge"]
    assert [(b.times, b.rows) for b in judged] == [(1, 5 + 8), (1, 50 + 17), (3, 5 + 8)]


def test_several_answers_share_batches() -> None:
    one, four = (
        next(b for b in batches_of(Config.of({"parallel": p, "beams": 1}), WORK) if b.phase == "completing")
        for p in (1, 4)
    )
    assert (one.times, one.rows) == (four.times, 1)
    assert four.rows == 4


def test_without_an_anchor_nothing_is_mixed() -> None:
    assert {b.role for b in batches_of(Config.of({"depth": 0, "beams": 1}), WORK)} == {"draft"}


# --- plans


def test_more_work_takes_longer(files: dict[str, str]) -> None:
    one, three = planned(files).predictions
    assert (one.beams, three.beams) == (1, 3)
    assert one.fit.fits
    assert three.fit.fits
    assert one.answer_seconds is not None
    assert three.answer_seconds is not None
    assert one.answer_seconds < three.answer_seconds
    assert "judging" not in (one.phases or {})
    assert sum((three.phases or {}).values()) == pytest.approx(three.answer_seconds)
    assert (three.floor_seconds or 0) < three.answer_seconds
    twice = planned(files, count=2).predictions[1]
    assert twice.prompts_per_hour == pytest.approx(2 * (three.prompts_per_hour or 0))
    assert twice.total_seconds == pytest.approx((three.total_seconds or 0) / 2)


def test_twins_are_placed_and_one_beam_is_planned_without_a_judge(files: dict[str, str]) -> None:
    plain = planned(files).predictions
    one, three = planned(files, knobs={"anchor_row": "gated", "late": "judge"}).predictions
    assert "judging" not in (one.phases or {})
    assert set(three.fit.needs) - set(plain[1].fit.needs) == {"anchor_twin"}
    assert (three.answer_seconds or 0) > (plain[1].answer_seconds or 0)


def test_cost_and_machines_for_so_many_an_hour(files: dict[str, str]) -> None:
    found = planned(files, "ram=8G,cores=2,price=2", count=3, per_hour=10**7).predictions[0]
    assert found.cost == pytest.approx(2 * 3 * (found.total_seconds or 0) / 3600)
    each = (found.prompts_per_hour or 0) / 3
    assert found.machines_needed == -int(-(10**7) // each)


def test_what_does_not_fit_is_not_timed(files: dict[str, str]) -> None:
    one, three = planned(files, "ram=10M,cores=2").predictions
    assert not one.fit.fits
    assert (one.answer_seconds, three.prompts_per_hour) == (None, None)


def test_a_gpu_of_its_own_for_each_role(files: dict[str, str]) -> None:
    knobs = {"draft_gpu": "1", "anchor_gpu": "0", "judge_gpu": "cpu"}
    found = planned(files, "gpu=4Gx2,ram=8G,cores=2", knobs=knobs).predictions[1].fit
    assert {role: [part.device for part in parts] for role, parts in found.parts.items()} == {
        "draft": ["gpu 1"],
        "anchor": ["gpu 0"],
        "anchor_reader": ["gpu 0"],
        "judge": ["processor"],
    }
    assert set(found.devices) == {"gpu 0", "gpu 1"}


def test_machines_that_share_one_set_of_models(files: dict[str, str]) -> None:
    alone, shared = planned(files, count=2), planned(files, count=2, together=2)
    parts = shared.predictions[0].fit.parts["draft"]
    assert [(part.device, part.is_far, part.kind) for part in parts] == [("machine2 0", True, "cpu")]
    assert (shared.predictions[0].prompts_per_hour or 0) < (alone.predictions[0].prompts_per_hour or 0)
    near = planned(files, "gpu=4G,ram=8G,cores=2", count=2, together=2).predictions[0].fit.parts["draft"]
    assert [part.device for part in near] == ["gpu 0"], "what fits on this machine's GPU goes nowhere else"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 3, "together": 2}, "3 machines can't share 2 each"),
        ({"knobs": {"context": 128, "max_tokens": 64}, "work": Workload(1, 100, 100)}, "the context has 128"),
    ],
)
def test_numbers_that_do_not_go_together(
    files: dict[str, str], options: dict[str, Any], message: str
) -> None:
    work, knobs = options.pop("work", WORK), options.pop("knobs", {})
    with pytest.raises(UsageError, match=message):
        make_plan(
            Config.of({**files, **knobs}), Registry({}, {}, ""), MachineSpec.parse("ram=8G"), work, **options
        )


def test_a_part_of_the_experts_is_read(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "a.gguf", "llama", expert_count=8, expert_used_count=2)
    config = Config.of({"draft": str(path), "depth": 0, "beams": 1})
    model = plan_models(config, Registry({}, {}, ""))["draft"]
    assert model.share_of_experts == 0.25
    assert fit({"draft": model}, config, MachineSpec.parse("ram=8G")).fits


# --- the hub


def test_a_header_is_read_from_the_hub_in_parts(
    home: Path, content: bytes, hub: type[HubServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.content = content + bytes(1 << 20)
    monkeypatch.setattr("alignbeam_local.models.gguf_reader._CHUNK", 256)
    found = remote_contents(Hub(repo="a/b", file="c.gguf"))
    assert found.bytes == len(hub.content)
    assert found.fields["general.name"] == "Tiny"
    assert found.tensors == read_contents(home / "source.gguf").tensors
    ranges = [str(each) for each in hub.ranges]
    assert ranges[0] == "bytes=0-23"
    assert len(ranges) > 2, "its weights are not read"
    assert int(ranges[-1].rpartition("-")[2]) < len(content)


@pytest.mark.parametrize(
    ("name", "message"), [("missing.gguf", "can't be read: HTTP 404"), ("c.gguf", "is not a GGUF file")]
)
def test_what_the_hub_does_not_have(home: Path, hub: type[HubServer], name: str, message: str) -> None:
    hub.content = b"<html>" * 100
    with pytest.raises(ModelError, match=message):
        remote_contents(Hub(repo="a/b", file=name))


def test_offline_no_header_is_fetched(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNBEAM_OFFLINE", "1")
    config = Config.of({"draft": "hf:a/b/c.gguf", "depth": 0, "beams": 1})
    with pytest.raises(ModelError, match="the network is forbidden"):
        plan_models(config, Registry({}, {}, ""))


# --- the command


def test_one_page(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    named = [word for role, path in files.items() for word in (f"--{role}", path)]
    machine = ["--machine", "gpu=4G,ram=8G,cores=2,price=1", "--count", "2", "--per-hour", "10000"]
    assert main(["plan", *named, *machine]) == 0
    text = capsys.readouterr().out
    for line in (
        "K = 1",
        "fits",
        "draft takes",
        "judge lies on",
        "one answer",
        "prompts an hour",
        "cost",
        "Assumed:",
    ):
        assert line in text
    assert "for 10,000 an hour" in text
    assert max(map(len, text.splitlines())) < 130


def test_as_json(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    named = [word for role, path in files.items() for word in (f"--{role}", path)]
    assert main(["plan", *named, "--machine", "ram=8G,cores=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["models"]["draft"]["header"] == "this machine"
    assert [each["beams"] for each in found["predictions"]] == [1, 3]
    assert found["predictions"][1]["fit"]["needs"]["judge"]["cache"] > 0


def test_a_plan_without_a_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan"]) == 2
    assert "--machine" in capsys.readouterr().err
    assert main(["plan", "--machine", "ram=1G,cores=none"]) == 2
    assert "cores = 'none' is no number" in capsys.readouterr().err
