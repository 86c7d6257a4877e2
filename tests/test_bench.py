"""`alignbeam bench`: what is compared, how times become figures, what is printed of them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import llama_cpp
import pytest
from alignbeam_local.cli.views import bench_plot
from alignbeam_local.cli.views.bench import print_report

from alignbeam_local.bench import bench
from alignbeam_local.bench.bench import in_turns, run_bench
from alignbeam_local.bench.cases import CLEAR, BenchPlan, Sweep, sweep_cases, table_cases
from alignbeam_local.bench.floor import bytes_per_decode
from alignbeam_local.bench.prompts import prompt_of
from alignbeam_local.bench.report import (
    BenchReport,
    Spread,
    Throughput,
    mixed_use,
    report_method,
    report_throughput,
    spread,
)
from alignbeam_local.bench.runs import TimedAnswer, require_whole
from alignbeam_local.config import Config
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.heads.check import Scored, figures
from alignbeam_local.llama.context import LlamaLM
from alignbeam_local.llama.plain import PlainAnswer, PlainDraft
from alignbeam_local.llama.weights import LlamaWeights
from alignbeam_local.lm.language_model import SamplerSettings
from alignbeam_local.machine.machine import peak_memory
from alignbeam_local.result import BeamResult
from alignbeam_local.search.steering import steering_of
from tests.fake_engine import fake_result
from tests.fake_lm import WIDTH, fake_vocabulary, hashed_row
from tests.fake_loader import FakeModel
from tests.llama_models import write_tiny
from tests.running import Ran, open_fakes, run
from tests.talk import Talk
from tests.test_heads import LIMITS, record
from tests.test_judge import judge_row

pytestmark = pytest.mark.usefixtures("few_examples")

PLAN = BenchPlan(Config.of({"max_tokens": 64, "ignore_eos": True}), prompt_tokens=32, repeats=2, warm_up=1)


# --- what is compared


def test_the_table_has_one_beam_several_and_several_judged_early() -> None:
    found = {case.name: case.config for case in table_cases(PLAN)}
    assert list(found) == ["K=1", "K=3", "K=3 judge-at 32"]
    assert [config.judged for config in found.values()] == [False, True, True]
    assert {config.max_tokens for config in found.values()} == {64}
    assert "auto" not in {config.on_unsafe for config in found.values() if config.judged}, "none is blocked"


@pytest.mark.parametrize(
    ("knobs", "names"),
    [
        ({"beams": 1}, ["K=1"]),
        ({"beams": 2, "judge_at": 8}, ["K=1", "K=2", "K=2 judge-at 8"]),
        ({"max_tokens": 32}, ["K=1", "K=3"]),
    ],
)
def test_the_table_follows_the_knobs(knobs: dict[str, Any], names: list[str]) -> None:
    plan = PLAN._replace(config=PLAN.config.with_values(knobs))
    assert [case.name for case in table_cases(plan)] == names


def test_steering_by_request_has_a_row_for_what_is_clear() -> None:
    plan = PLAN._replace(config=PLAN.config.with_values({"steer": "by_request", "judge_at": 8}))
    found = {case.name: case.config for case in table_cases(plan)}
    assert list(found) == ["K=1", "K=3", "K=3 judge-at 8", CLEAR]
    decisions = {name: steering_of(config, 0.5, 0.5, 0.2, 0.8).decision for name, config in found.items()}
    assert decisions == {"K=1": "doubtful", "K=3": "doubtful", "K=3 judge-at 8": "doubtful", CLEAR: "clear"}


@pytest.mark.parametrize("flag", ["--late=judge", "--judge-at=8", "--judge-every=8", "--on-unsafe=refuse"])
def test_what_a_bench_says_itself_is_not_asked_of_it(flag: str) -> None:
    ran = run("bench", flag)
    assert (ran.code, ran.out) == (2, "")
    assert f"{flag.partition('=')[0]} does nothing here" in ran.err


def test_a_sweep_changes_one_thing() -> None:
    by_beams = [case.config for case in sweep_cases(PLAN, Sweep.parse("K=1,2"))]
    assert [(c.beams, c.judged, c.max_tokens) for c in by_beams] == [(1, False, 64), (2, True, 64)]
    assert [case.config.depth for case in sweep_cases(PLAN, Sweep.parse("N=0,6"))] == [0, 6]
    assert [case.shape for case in sweep_cases(PLAN, Sweep.parse("prompt-tokens=8,16"))] == [
        (8, 64),
        (16, 64),
    ]
    assert [case.shape for case in sweep_cases(PLAN, Sweep.parse("new_tokens=8,16"))] == [(32, 8), (32, 16)]


def test_a_sweep_steers_whatever_a_head_makes_of_its_requests() -> None:
    plan = PLAN._replace(config=PLAN.config.with_values({"steer": "by_request"}))
    for sweep in ("K=1,2", "prompt-tokens=8"):
        cases = sweep_cases(plan, Sweep.parse(sweep))
        assert {steering_of(c.config, 0.0001, 0.0001, 0.2, 0.8).decision for c in cases} == {"doubtful"}


@pytest.mark.parametrize("text", ["alpha=1", "K", "K=", "K=one", "K=0", "N=-1", "=1", "prompt-tokens=0"])
def test_a_sweep_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="--sweep"):
        Sweep.parse(text)


def test_every_round_begins_with_another_task() -> None:
    order: list[str] = []

    def task(name: str) -> str:
        order.append(name)
        return f"{name}{len(order)}"

    found = in_turns([lambda: task("a"), lambda: task("b"), lambda: task("c")], 3)
    assert "".join(order) == "abcbcacab"
    assert found == [["a1", "a6", "a8"], ["b2", "b4", "b9"], ["c3", "c5", "c7"]]


@pytest.mark.parametrize("num_tokens", [20, 32, 500])
def test_prompts_are_as_long_as_wanted_and_never_alike(num_tokens: int) -> None:
    vocabulary = fake_vocabulary("Case", " the", *(f" {word}" for word in ("and", "of", "they", "what")))
    prompts = [prompt_of(num_tokens, number, vocabulary) for number in range(12)]
    assert len(set(prompts)) == 12
    assert all(num_tokens - 8 <= len(vocabulary.encode(text)) <= num_tokens for text in prompts)


# --- figures


def test_a_spread_is_the_median_and_quartiles() -> None:
    assert spread([5, 1, 4, 2, 3]) == Spread(2, 3, 4)
    assert spread([7]) == Spread(7, 7, 7)


def test_the_expected_cost_is_worked_by_hand() -> None:
    """A quarter of the 95 % is steered like the other 5 %: 0.2875 * 4 + 0.7125 * 2."""
    alone = [TimedAnswer(10.0, 1.0, 4, {"draft": 4})]
    times = {"K=3": 40.0, CLEAR: 20.0}
    methods = [
        report_method(name, [TimedAnswer(ms, 1.0, 4, {"draft": 4})], alone, {"draft": 1})
        for name, ms in times.items()
    ]
    read = [Scored("ordinary", False, p, p) for p in (0.1, 0.1, 0.1, 0.5)]
    head = record(held_out=figures(read, LIMITS))
    use = mixed_use(methods, "K=3", head)
    assert use is not None
    assert (use.ordinary, use.steered) == (0.95, 0.25)
    assert use.ratio == pytest.approx(2.575)
    assert mixed_use(methods, "K=2", head) is None
    assert mixed_use(methods, "K=3", record()) is None


def test_a_clear_request_is_measured_beside_steered_ones(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = figures([Scored("ordinary", False, 0.1, 0.1)], LIMITS)
    monkeypatch.setattr(
        "alignbeam_local.engine.engine.REQUEST_HEADS.find",
        lambda *_: record(weights=(0.0,) * WIDTH, held_out=held_out),
    )
    config = talk.config.with_values({"steer": "by_request", "judge_at": None})
    plan = BenchPlan(config, 24, repeats=2, warm_up=1)
    report = run_bench(talk.engine, plan, lambda _: None)
    clear = report.methods[-1]
    assert clear.name == CLEAR
    assert set(clear.python_share) == {"complete", "whole"}, "nothing is mixed"
    assert clear.weights_read_bytes["anchor"] < report.methods[0].weights_read_bytes["anchor"]
    assert report.mixed_use is not None
    assert report.mixed_use.steered == 0
    print_report(report)


def test_without_a_head_there_is_no_clear_request(talk: Talk) -> None:
    plan = BenchPlan(talk.config.with_values({"steer": "by_request"}), 24, repeats=1, warm_up=0)
    with pytest.raises(UsageError, match="no head"):
        run_bench(talk.engine, plan, lambda _: None)


def test_ratios_are_taken_within_a_round() -> None:
    def took(ms: float, **decodes: int) -> TimedAnswer:
        return TimedAnswer(ms, 1.0, 10, decodes, {"mix": ms / 2}, {"mix": 0.1})

    alone = [took(ms, draft=10) for ms in (10, 20, 40)]
    drifting = [took(ms, draft=10, anchor=5) for ms in (20, 40, 80)]
    method = report_method("x", drifting, alone, {"draft": 100, "anchor": 40})
    assert method.ratio == Spread(2, 2, 2)
    assert method.floor == pytest.approx(1.2)
    assert method.weights_read_bytes == {"draft": 1000, "anchor": 200}
    assert method.phases_ms == {"mix": 20}
    assert method.tokens_per_second.median == pytest.approx(250)


def test_a_decode_reads_all_weights_but_a_table_of_embeddings(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "a.gguf", "llama")
    tensors = {tensor.name: int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors}
    assert bytes_per_decode(path) == sum(tensors.values()) - tensors["token_embd.weight"]
    deep = write_tiny(tmp_path / "deep.gguf", "llama", blocks=3)
    block = sum(size for name, size in tensors.items() if name.startswith("blk.0."))
    assert bytes_per_decode(deep, 1) == 2 * block, "nothing behind the layer"


def test_the_peak_is_not_under_what_is_held() -> None:
    before = peak_memory()
    held = bytearray(64 << 20)
    assert peak_memory() >= before > 10 << 20
    assert held


# --- the draft alone


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[LlamaLM]:
    weights = LlamaWeights(write_tiny(tmp_path / "tiny.gguf", "llama"), use_extra_bufts=False)
    lm = LlamaLM(weights, sha256="0", num_sequences=3, num_cells=512, threads=1)
    yield lm
    lm.close()
    weights.close()


def test_the_draft_alone_samples_what_ours_samples(tiny: LlamaLM) -> None:
    settings = SamplerSettings.of(Config.of({"max_tokens": 24}), 24)
    prompt = tiny.vocabulary.encode("Say something")
    sampler, ours = tiny.sampler(settings), list[int]()
    tiny.extend({0: prompt})
    while len(ours) < 24:
        ours.append(sampler.sample(0))
        tiny.extend({0: ours[-1:]})
    sampler.close()
    plain = PlainDraft(tiny, context=512, threads=1)
    cold = plain.complete(prompt, settings, 24)
    plain.read(prompt[:4])
    warm = plain.go_on(prompt[4:], settings, 24)
    plain.close()
    assert cold.tokens == warm.tokens == ours
    assert 0 < cold.first_token_ms < cold.total_ms


def test_the_draft_alone_answers_several_as_one_by_one(tiny: LlamaLM) -> None:
    settings = SamplerSettings.of(Config.of({"max_tokens": 8, "temperature": 0}), 8)
    prompts = [tiny.vocabulary.encode(text) for text in ("Say something", "Be quiet", "Go")]
    plain = PlainDraft(tiny, context=768, threads=1, num_sequences=3)
    together = plain.complete_together(prompts, settings, 8)
    assert together == [plain.complete(prompt, settings, 8).tokens for prompt in prompts]
    plain.close()


def test_the_draft_alone_has_the_cache_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    make = llama_cpp.llama_init_from_model

    def recorded(model: Any, params: Any) -> Any:
        made.append((params.flash_attn_type, params.type_k, params.type_v, params.n_threads))
        return make(model, params)

    monkeypatch.setattr(llama_cpp, "llama_init_from_model", recorded)
    weights = LlamaWeights(write_tiny(tmp_path / "wide.gguf", "llama", heads=1), use_extra_bufts=False)
    cache: dict[str, Any] = {"flash_attn": "on", "cache_types": ("q8_0", "q4_0")}
    ours = LlamaLM(weights, sha256="0", num_sequences=1, num_cells=256, threads=1, **cache)
    PlainDraft(ours, context=256, threads=1, **cache).close()
    ours.close()
    weights.close()
    assert made[0] == made[1]


def test_a_draft_that_fails_to_decode_leaves_no_sampler(
    tiny: LlamaLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[object] = []
    free = llama_cpp.llama_sampler_free

    def counted(chain: object) -> None:
        freed.append(chain)
        free(chain)

    monkeypatch.setattr(llama_cpp, "llama_sampler_free", counted)
    plain = PlainDraft(tiny, context=256, threads=1)
    settings = SamplerSettings.of(Config.of({}), 8)
    for prompt, new_tokens in (([5] * 300, 8), ([5] * 250, 8)):  # at the prompt, and at a token
        with pytest.raises(ModelError, match="failed to decode the draft alone"):
            plain.complete(prompt, settings, new_tokens)
    plain.close()
    assert len(freed) == 2


# --- a whole bench without weights


class FakePlain:
    """Takes a millisecond a token."""

    def __init__(self, *_: object, **__: object) -> None:
        self.held = 0

    def complete(self, prompt: list[int], _: object, new_tokens: int) -> PlainAnswer:
        return PlainAnswer([0] * new_tokens, 1.0, float(new_tokens))

    def read(self, prompt: list[int]) -> None:
        self.held = len(prompt)

    def go_on(self, prompt: list[int], _: object, new_tokens: int) -> PlainAnswer:
        assert self.held > 0
        assert prompt
        return PlainAnswer([0] * new_tokens, 1.0, 1.0)

    def complete_together(
        self, prompts: Sequence[Sequence[int]], settings: SamplerSettings, new_tokens: int
    ) -> list[list[int]]:
        return [[0] * new_tokens for _ in prompts]

    def close(self) -> None:
        pass


class _Header(NamedTuple):
    path: Path
    bytes: int = 1000
    keys_per_token: int = 10
    values_per_token: int = 10


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Talk:
    monkeypatch.setattr(bench, "PlainDraft", FakePlain)
    monkeypatch.setattr(bench, "LlamaLM", object)
    monkeypatch.setattr(bench, "require_model", _Header)
    monkeypatch.setattr(bench, "bytes_per_decode", lambda *_: 100)
    talk = Talk(monkeypatch, max_tokens=12, beams=3, judge_at=4, ignore_eos=True)
    judging = fake_vocabulary()
    talk.loader.models["judge"] = FakeModel(judging, judge_row(judging))
    return talk


def report_of(talk: Talk, *sweeps: str) -> tuple[BenchReport, list[str]]:
    told: list[str] = []
    plan = BenchPlan(talk.config, 24, repeats=2, warm_up=1, sweeps=tuple(map(Sweep.parse, sweeps)))
    return run_bench(talk.engine, plan, told.append), told


def test_a_bench_measures_every_method(talk: Talk) -> None:
    report, told = report_of(talk)
    assert [method.name for method in report.methods] == ["K=1", "K=3", "K=3 judge-at 4"]
    assert told.count("draft alone, 24 and 12 tokens") == told.count("K=1") == 3
    assert told.count("second turn") == 3
    assert report.alone.weights_read_bytes == 12 * 100
    one, three, _ = report.methods
    mixed = talk.config.depth
    assert one.weights_read_bytes == {"draft": 1200, "anchor": 100 * mixed, "judge": 0}
    assert three.weights_read_bytes["draft"] == 1200
    assert three.weights_read_bytes["judge"] >= 100
    assert one.floor == pytest.approx((12 + mixed) / 12)
    assert set(one.python_share) == {"mix", "complete", "whole"}
    assert report.memory.weights_bytes == 3000


def test_the_draft_alone_is_opened_as_the_draft(monkeypatch: pytest.MonkeyPatch, talk: Talk) -> None:
    opened: list[dict[str, Any]] = []

    def opening(_: object, **given: Any) -> FakePlain:
        opened.append(given)
        return FakePlain()

    monkeypatch.setattr(bench, "PlainDraft", opening)
    knobs = {"flash_attn": "on", "cache_type_k": "q8_0", "cache_type_v": "q4_0"}
    talk.config = talk.config.with_values(knobs)
    for _ in talk.engine.change(talk.config):
        pass
    report_of(talk)
    assert [(one["flash_attn"], one["cache_types"]) for one in opened] == [("on", ("q8_0", "q4_0"))]


def test_a_sweep_grows_the_contexts_before_the_rounds(talk: Talk) -> None:
    report, _ = report_of(talk, "K=1,5", "new-tokens=6,30")
    beams, lengths = report.sweeps
    assert [method.name for method in beams.methods] == ["beams 1", "beams 5"]
    assert [alone.new_tokens for alone in lengths.alone] == [6, 30]
    assert [alone.weights_read_bytes for alone in lengths.alone] == [600, 3000]


def test_several_at_once_are_measured_against_one_by_one(talk: Talk) -> None:
    plan = BenchPlan(talk.config, 24, repeats=2, warm_up=1, num_at_once=3)
    report = run_bench(talk.engine, plan, lambda _: None)
    assert [found.name for found in report.throughputs] == ["draft alone", "K=1", "K=3"]
    assert all(found.at_once.low > 0 < found.gain.low for found in report.throughputs)
    batches = talk.loader.opened["draft"][-1].batches
    assert sum({0, 4, 8} <= batch.keys() for batch in batches) == 2 * 3, "three prompts in a batch"


def test_throughputs_are_prompts_a_minute() -> None:
    found = report_throughput("K=1", 4, [8.0, 8.0], [4.0, 2.0])
    assert (found.one_by_one.median, found.at_once.median, found.gain.median) == (30, 90, 3)


def test_no_answer_finds_another_ones_prompt(talk: Talk) -> None:
    report_of(talk)
    begun = [batch[0] for batch in talk.loader.opened["draft"][-1].batches if 0 in batch]
    assert min(begun[:4]) > 24


def test_the_draft_alone_reads_the_same_prompt(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    alone: list[int] = []

    class Recording(FakePlain):
        def complete(self, prompt: list[int], settings: object, new_tokens: int) -> PlainAnswer:
            alone.append(len(prompt))
            return super().complete(prompt, settings, new_tokens)

    monkeypatch.setattr(bench, "PlainDraft", Recording)
    talk.config = talk.engine.config.with_values({"system": "Be brief."})
    report_of(talk)
    ours = {batch[0] for batch in talk.loader.opened["draft"][-1].batches if 0 in batch}
    assert alone
    assert set(alone) <= ours


def test_a_beam_that_ends_early_is_an_error_unless_the_judge_ended_it() -> None:
    beams = tuple(BeamResult(i, "x", n, 0, "length", 0.0, False, None) for i, n in enumerate((12, 9)))
    found = replace(fake_result("x", Config.of({})), beams=beams)
    require_whole(found, Config.of({"max_tokens": 12, "judge_at": 9}))
    with pytest.raises(ModelError, match="ended before"):
        require_whole(found, Config.of({"max_tokens": 12}))


def test_an_answer_that_is_too_short_is_an_error(talk: Talk) -> None:
    judging = fake_vocabulary()
    talk.loader.models["judge"] = FakeModel(judging, hashed_row(judging.size))  # what it says is unscored
    with pytest.raises(ModelError, match="ended before"):
        report_of(talk)


# --- the command


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, talk: Talk) -> Any:
    """Runs the command; the figures are those of the fakes."""
    open_fakes(monkeypatch)
    plans: list[BenchPlan] = []

    def measured(_: object, plan: BenchPlan, tell: object) -> BenchReport:
        plans.append(plan)
        small = plan._replace(config=talk.config)
        return run_bench(talk.engine, small, lambda _: None)

    monkeypatch.setattr(bench, "run_bench", measured)

    def command(*args: str) -> tuple[Ran, list[BenchPlan]]:
        return run("bench", "--prompt-tokens", "24", "--repeats", "1", "--warm-up", "0", *args), plans

    return command


def test_the_command_prints_a_table_and_bars(ran: Any) -> None:
    done, [plan] = ran("--sweep", "K=1,2", "--sweep", "prompt-tokens=24,32", "--alpha", "0.3")
    assert (done.code, done.err) == (0, "")
    for word in ("ratio", "K=3 judge-at 4", "second turn", "cold start", "weights read", "█", "beams"):
        assert word in done.out, word
    assert "…" not in done.out
    assert (plan.config.max_tokens, plan.config.ignore_eos, plan.config.alpha) == (128, True, 0.3)


def test_large_figures_are_whole_in_a_pipe(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    wide = Spread(123456.78, 234567.89, 345678.9)
    found = tuple(Throughput(name, wide, wide, wide) for name in ("draft alone", "K=3 judge-at 32"))
    print_report(replace(report_of(talk)[0], num_at_once=4, throughputs=found))
    rows = [line for line in capsys.readouterr().out.splitlines() if "345678" in line]
    assert [row.count("234567.89 [123456.78, 345678.90]") for row in rows] == [3, 3]


def test_the_command_prints_json(ran: Any) -> None:
    found = json.loads(ran("--json")[0].out)
    assert found["methods"][0]["name"] == "K=1"
    assert set(found["methods"][0]["ratio"]) == {"low", "median", "high"}
    assert found["machine"]["cores"] >= 1
    assert {"llama_cpp", "threads", "cold_start", "memory", "second_turn"} <= set(found)


@pytest.mark.parametrize("sweeps", [(), ("--sweep", "K=1,2", "--sweep", "N=0,2")])
def test_the_command_draws(ran: Any, tmp_path: Path, sweeps: tuple[str, ...]) -> None:
    path = tmp_path / "bench.png"
    assert ran("--plot", str(path), *sweeps)[0].code == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_nothing_is_measured(ran: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_plot, "find_spec", lambda _: None)
    done, plans = ran("--plot", "bench.png")
    assert (done.code, plans) == (2, [])
    assert done.err == "error: --plot needs matplotlib\nhint: pip install 'alignbeam-local[plots]'\n"


@pytest.mark.parametrize(
    "args",
    [
        ("--max-tokens", "9"),
        ("--sweep", "alpha=1"),
        ("--repeats", "0"),
        ("--plot", "bench.doc"),
        ("--plot", "nowhere/bench.png"),
    ],
)
def test_what_cannot_be_measured_is_a_usage_error(ran: Any, args: tuple[str, ...]) -> None:
    done, plans = ran(*args)
    assert (done.code, plans) == (2, [])
    assert done.err.startswith("error: ")
